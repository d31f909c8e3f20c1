"""torch's grouped product over the experts of a layer: what `slot_ffn` stands beside on a GPU.

Tokens are sorted by expert ahead of the timing, and their sum is left out: it is given more than
`slot_ffn`, which sorts and sums in its own time. Launches do not count, as they do not there: on a
GPU the calls are one CUDA graph.
"""

import importlib.util
import time
from importlib import import_module
from typing import Any

import numpy as np

from specmd_kernels.sizes import Sizes

# Types would come from torch itself, which is not installed where this is checked.
has_torch = importlib.util.find_spec("torch") is not None


def grouped_product_s(sizes: Sizes, slots: np.ndarray, repeats: int, turns: int) -> float | None:
    """Returns the seconds of a layer's experts in bfloat16; None without torch or its product.

    Args:
      sizes: of the layer; biases are left out.
      slots: the experts of each token, [T K].
      repeats: calls that are timed together.
      turns: of which the best counts.
    """
    if not has_torch:
        return None
    torch: Any = import_module("torch")
    product = getattr(torch.nn.functional, "grouped_mm", None)
    if product is None:
        return None
    device = "cuda" if torch.cuda.is_available() else "cpu"
    many = {"dtype": torch.bfloat16, "device": device}
    up = torch.randn(sizes.experts, sizes.hidden, 2 * sizes.width, **many) / sizes.hidden**0.5
    down = torch.randn(sizes.experts, sizes.width, sizes.hidden, **many) / sizes.width**0.5
    rows = torch.randn(slots.size, sizes.hidden, **many)
    ends = np.cumsum(np.bincount(slots.reshape(-1), minlength=sizes.experts))
    offsets = torch.tensor(ends, dtype=torch.int32, device=device)

    def experts() -> Any:
        gate, linear = product(rows, up, offs=offsets).chunk(2, dim=-1)
        return product(torch.nn.functional.silu(gate) * linear, down, offs=offsets)

    with torch.inference_mode():
        return _best_s(torch, experts, repeats, turns) / repeats


def _best_s(torch: Any, call: Any, repeats: int, turns: int) -> float:
    def run() -> None:
        for _ in range(repeats):
            call()

    run()
    wait = torch.cuda.synchronize if torch.cuda.is_available() else lambda: None
    if torch.cuda.is_available():
        wait()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            run()
        run = graph.replay
    times = []
    for _ in range(turns):
        begun = time.perf_counter()
        run()
        wait()
        times.append(time.perf_counter() - begun)
    return min(times)
