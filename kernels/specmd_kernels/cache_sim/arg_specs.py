"""Arguments of `cache_sim`: traces of the shapes of real models, and of odd ones."""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int

from specmd_kernels.sizes import MODELS

ONE = 1 << 20  # a gate weight of 1


class SimSizes(NamedTuple):
    layers: int
    experts: int
    top_k: int


REAL = {name: SimSizes(size.layers, size.experts, size.top_k) for name, size in MODELS.items()}
ODD = {
    "one-layer": SimSizes(1, 9, 2),
    "three-by-five": SimSizes(3, 5, 2),
    "seven-by-twelve": SimSizes(7, 12, 3),
}


def draw(sizes: SimSizes, passes: int, seed: int = 0) -> Int[Array, "P L N"]:
    """Returns gate weights of a trace in which every eighth pass is a prefill of four tokens."""
    rng = np.random.default_rng(seed)
    gate = np.zeros((passes, sizes.layers, sizes.experts), np.int32)
    for step, layer in np.ndindex(passes, sizes.layers):
        for _ in range(4 if step % 8 == 0 else 1):
            liked = rng.permutation(sizes.experts)[: 2 * sizes.top_k]
            chosen = np.sort(liked)[: sizes.top_k]  # low ids are wanted more often
            gate[step, layer, chosen] = rng.integers(1, ONE, chosen.size)
    return jnp.asarray(gate)
