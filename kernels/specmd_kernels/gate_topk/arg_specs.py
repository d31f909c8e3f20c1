"""Arguments of `gate_topk`: the gates of real models, and odd ones."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from specmd_kernels.sizes import MODELS


class GateSizes(NamedTuple):
    experts: int
    top_k: int


REAL = {name: GateSizes(sizes.experts, sizes.top_k) for name, sizes in MODELS.items()}
ODD = {"sixty": GateSizes(60, 4), "seven": GateSizes(7, 3), "one": GateSizes(1, 1)}


class Args(NamedTuple):
    """The positional arguments of `gate_topk`; `shapes` has shapes in place of arrays."""

    logits: Float[Array, "T N"]
    resident: Bool[Array, " N"]
    next_logits: Float[Array, "T N"]


def shapes(sizes: GateSizes, tokens: int, dtype: Any) -> Args:
    """Returns the shapes of a call."""
    of: Any = jax.ShapeDtypeStruct
    gate = of((tokens, sizes.experts), dtype)
    return Args(gate, of((sizes.experts,), bool), gate)


def draw(wanted: Args, seed: int = 0) -> Args:
    """Returns random arguments; logits are rounded to quarters, so that there are ties."""
    rng = np.random.default_rng(seed)

    def gate() -> Array:
        drawn = rng.normal(size=wanted.logits.shape) * 2
        return jnp.asarray((np.round(drawn * 4) / 4).astype(wanted.logits.dtype))

    return Args(gate(), jnp.asarray(rng.random(wanted.resident.shape) < 0.3), gate())
