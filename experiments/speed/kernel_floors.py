"""Bytes and arithmetic of the kernels, and the least time that an accelerator needs for them.

    python -m experiments.speed.kernel_floors    # prints the tables of docs/kernels.md

A floor is the slower of reading what must be read once and of the arithmetic, at the rates of the
makers' sheets (`specmd_jax.hardware.profiles`).
"""

from typing import NamedTuple

from experiments.shared.recordings import markdown_table
from specmd_jax.hardware.profiles import get_hardware
from specmd_kernels.sizes import MODELS, Sizes

CHIPS = {"H100": "h100-sxm", "TPU v5e": "tpu-v5e"}
SCALE_BITS = 16 / 64  # of a weight's share of its group's scale


class Work(NamedTuple):
    """What a call must do."""

    nbytes: float
    flops: float

    def floor_s(self, chip: str) -> float:
        """Returns seconds: the slower of memory and arithmetic."""
        card = get_hardware(CHIPS[chip])
        return max(self.nbytes / card.hbm_bytes_per_s, self.flops / card.peak_flops_per_s)


def slot_ffn_work(sizes: Sizes, tokens: int, bits: int = 16) -> Work:
    """Returns the work of a layer's experts, all tokens choosing apart as far as they can.

    Args:
      bits: of a weight; below 16, scales come on top.
    """
    chosen = min(sizes.experts, tokens * sizes.top_k)
    weights = 3 * sizes.hidden * sizes.width
    stored = bits if bits == 16 else bits + SCALE_BITS
    ends = 2 * 2 * tokens * sizes.hidden  # bf16, in and out
    return Work(chosen * weights * stored / 8 + ends, 2 * tokens * sizes.top_k * weights)


def gate_work(sizes: Sizes, tokens: int) -> Work:
    """Returns the work of a gate with the next layer's mask, from float32 logits."""
    read = 2 * 4 * tokens * sizes.experts
    written = tokens * (8 * sizes.top_k + 4 * sizes.experts)
    return Work(read + written, 5 * tokens * sizes.experts * (sizes.top_k + 2))


def main() -> None:
    """Prints the tables."""
    for title, tokens, bits in (
        ("decode, 1 token, bf16", 1, 16),
        ("decode, 1 token, int4", 1, 4),
        ("decode, 32 tokens, bf16", 32, 16),
        ("prefill, 4096 tokens, bf16", 4096, 16),
    ):
        print(f"\nslot_ffn, {title}: us a layer, ESTIMATED\n")
        body = [_row(name, slot_ffn_work(sizes, tokens, bits)) for name, sizes in MODELS.items()]
        print("\n".join(markdown_table(["model", "MB", "GFLOP", *CHIPS], body)))
    print("\ngate_topk, 4096 tokens: us a layer, ESTIMATED\n")
    body = [_row(name, gate_work(sizes, 4096)) for name, sizes in MODELS.items()]
    print("\n".join(markdown_table(["model", "MB", "GFLOP", *CHIPS], body)))


def _row(name: str, work: Work) -> list[str]:
    floors = [f"{1e6 * work.floor_s(chip):,.1f}" for chip in CHIPS]
    return [name, f"{work.nbytes / 1e6:,.1f}", f"{work.flops / 1e9:,.2f}", *floors]


if __name__ == "__main__":
    main()
