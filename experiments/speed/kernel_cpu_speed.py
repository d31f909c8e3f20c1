"""The MoE feed-forward of a few tokens on CPU, computed in six ways.

    python -m experiments.speed.kernel_cpu_speed    # about three minutes, 1 GB of memory

The ways take turns, in an order that changes, so that what else the machine does slows all; each
way is compared with slot_ffn's in the same turn. All compute the same to the float32 tolerance of
the sums. Prints one JSON object and writes results/kernel_cpu_speed.md.
"""

import json
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import tyro
from jaxtyping import Array, Float, Int

from experiments.shared.recordings import RESULTS, markdown_table, measured_on, write_page
from specmd_kernels import SWIGLU, Slots
from specmd_kernels.sizes import MODELS, Sizes
from specmd_kernels.slot_ffn import xla
from specmd_kernels.slot_ffn.arg_specs import Args, draw, shapes

SIZES = {
    "bundled": Sizes(8, 32, 4, 128, 64),  # the model that comes with the package
    "olmoe, 16 slots": MODELS["olmoe"]._replace(experts=16),
}
PAIRS, BLOCKS = "scan over pairs", "loop over blocks"  # slot_ffn's own
MOST_COPIED = 1 << 30  # bytes: beyond, a way that copies experts is left out
UNROLLED = 32  # pairs up to which a loop is unrolled


@dataclass(frozen=True)
class Options:
    """What is timed."""

    tokens: tuple[int, ...] = (1, 8, 32)
    turns: int = 15
    sizes: tuple[str, ...] = tuple(SIZES)
    output: Path = RESULTS


class Timed(NamedTuple):
    """One shape: the seconds of each way, turn by turn."""

    size: str
    tokens: int
    chosen: str  # the way that slot_ffn takes
    seconds: dict[str, list[float]]


def gather_einsum(
    hidden: Float[Array, "T H"],
    slots: Int[Array, "T K"],
    weights: Float[Array, "T K"],
    experts: Slots,
) -> Float[Array, "T H"]:
    """Copies the experts of every pair, then multiplies."""
    gate, up = jnp.split(jnp.einsum("th,tkhf->tkf", hidden, experts.gate_up[slots]), 2, axis=-1)
    return jnp.einsum("tk,tkf,tkfh->th", weights, SWIGLU(gate, up), experts.down[slots])


def ragged_dot(
    hidden: Float[Array, "T H"],
    slots: Int[Array, "T K"],
    weights: Float[Array, "T K"],
    experts: Slots,
) -> Float[Array, "T H"]:
    """Sorts the pairs by expert, and leaves the rest to XLA."""
    order = jnp.argsort(slots.reshape(-1))
    token = order // slots.shape[1]
    counts = jnp.bincount(slots.reshape(-1), length=experts.down.shape[0]).astype(jnp.int32)
    gate, up = jnp.split(jax.lax.ragged_dot(hidden[token], experts.gate_up, counts), 2, axis=-1)
    out = jax.lax.ragged_dot(SWIGLU(gate, up), experts.down, counts)
    weighted = out * weights.reshape(-1)[order][:, None]
    return jnp.zeros_like(hidden).at[token].add(weighted.astype(hidden.dtype))


def all_slots(
    hidden: Float[Array, "T H"],
    slots: Int[Array, "T K"],
    weights: Float[Array, "T K"],
    experts: Slots,
) -> Float[Array, "T H"]:
    """Computes every expert for every token, and weighs most of them by 0."""
    token = jnp.arange(hidden.shape[0])[:, None]
    share = jnp.zeros((hidden.shape[0], experts.down.shape[0])).at[token, slots].add(weights)
    gate, up = jnp.split(jnp.einsum("th,shf->tsf", hidden, experts.gate_up), 2, axis=-1)
    return jnp.einsum("ts,tsf,sfh->th", share, SWIGLU(gate, up), experts.down)


def unrolled(
    hidden: Float[Array, "T H"],
    slots: Int[Array, "T K"],
    weights: Float[Array, "T K"],
    experts: Slots,
) -> Float[Array, "T H"]:
    """Computes pair by pair, without a loop."""
    total = jnp.zeros_like(hidden)
    for token, choice in np.ndindex(*slots.shape):
        row, slot = hidden[token], slots[token, choice]
        gate, up = jnp.split(row @ experts.gate_up[slot], 2)
        total = total.at[token].add(
            weights[token, choice] * (SWIGLU(gate, up) @ experts.down[slot])
        )
    return total


def ways(args: Args) -> dict[str, Callable[..., Array]]:
    """Returns what is timed for these arguments; `slot_ffn` takes one of the first two."""
    pairs = args.slots.size
    expert_bytes = sum(leaf.nbytes // leaf.shape[0] for leaf in jax.tree.leaves(args.experts))
    found = {
        PAIRS: partial(xla.by_pair, SWIGLU),
        BLOCKS: partial(xla.by_block, SWIGLU),
        "ragged_dot": ragged_dot,
        "all slots": all_slots,
    }
    if pairs <= UNROLLED:
        found["unrolled pairs"] = unrolled
    if pairs * expert_bytes <= MOST_COPIED:
        found["gather + einsum"] = gather_einsum
    return {name: jax.jit(way) for name, way in found.items()}


def time_in_turns(size: str, tokens: int, turns: int) -> Timed:
    """Returns the seconds of each way; all are run once before, and must agree."""
    args = draw(shapes(SIZES[size], tokens, jnp.float32))
    args = args._replace(slots=jnp.maximum(args.slots, 0))
    found = ways(args)
    made = [np.asarray(way(*args)) for way in found.values()]
    for other in made[1:]:
        np.testing.assert_allclose(other, made[0], atol=1e-4 * np.abs(made[0]).max())
    seconds: dict[str, list[float]] = {name: [] for name in found}
    order = list(found)
    for turn in range(turns):
        for name in order[turn % len(order) :] + order[: turn % len(order)]:
            start = time.perf_counter()
            found[name](*args).block_until_ready()
            seconds[name].append(time.perf_counter() - start)
    few = xla.is_few(args.slots.size, args.experts)
    return Timed(size, tokens, PAIRS if few else BLOCKS, seconds)


def main(options: Options) -> None:
    """Prints one JSON object, and writes the page."""
    timed = [
        time_in_turns(size, tokens, options.turns)
        for size in options.sizes
        for tokens in options.tokens
    ]
    found = measured_on() | {
        "label": "MEASURED",
        "rows": [row for one in timed for row in rows(one)],
    }
    print(json.dumps(found, indent=1))
    write_page(page(options, timed, found), options.output / "kernel_cpu_speed.md")


def rows(timed: Timed) -> list[dict[str, Any]]:
    """Returns a row for each way: its best turn, and the median of its ratios to slot_ffn's."""
    base = timed.seconds[timed.chosen]
    return [
        {
            "size": timed.size,
            "tokens": timed.tokens,
            "way": f"{name} (slot_ffn)" if name == timed.chosen else name,
            "best_us": 1e6 * min(times),
            "to_slot_ffn": float(np.median(np.divide(times, base))),
            "to_slot_ffn_best": min(times) / min(base),
        }
        for name, times in timed.seconds.items()
    ]


def page(options: Options, timed: list[Timed], found: dict[str, Any]) -> list[str]:
    """Returns the lines of kernel_cpu_speed.md."""
    body = [
        [
            row["size"],
            str(row["tokens"]),
            row["way"],
            f"{row['best_us']:,.0f}",
            f"{row['to_slot_ffn_best']:.2f}",
            f"{row['to_slot_ffn']:.2f}",
        ]
        for row in found["rows"]
    ]
    head = ["weights", "tokens", "way", "us, best turn", "to slot_ffn, best", "median turn"]
    return [
        "# The MoE feed-forward of a few tokens on CPU",
        "",
        f"MEASURED {found['date']}, float32, {options.turns} turns of each shape; machine: "
        f"{found['machine']}; commit {found['commit']}. By "
        "`python -m experiments.speed.kernel_cpu_speed`. The ways take turns, in an order that "
        "changes, so that what else the machine does slows all: the load average was "
        f"{os.getloadavg()[2]:.0f}.",
        "",
        *markdown_table(head, body),
        "",
        *[f"* {verdict(one)}" for one in timed],
    ]


def verdict(timed: Timed) -> str:
    """Returns a sentence: how far `slot_ffn` is from the fastest way."""
    best = {name: min(times) for name, times in timed.seconds.items()}
    own = best[timed.chosen]
    fastest = min(best, key=lambda name: best[name])
    return (
        f"{timed.size}, {timed.tokens} token(s): the fastest is {fastest}; slot_ffn takes "
        f"{own / best[fastest]:.2f} times as long, and ragged_dot {best['ragged_dot'] / own:.1f} "
        "times as long as slot_ffn."
    )


if __name__ == "__main__":
    main(tyro.cli(Options))
