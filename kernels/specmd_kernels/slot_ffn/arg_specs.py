"""Arguments of `slot_ffn`: the shapes of real models, small copies of them, and odd ones."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from specmd_kernels.sizes import MODELS, Sizes
from specmd_kernels.slot_ffn.slots import GPT_OSS, GROUP, SWIGLU, Activation, Slots

ODD = {
    "unaligned": Sizes(1, 5, 3, 48, 40),
    "one-expert": Sizes(1, 1, 1, 64, 64),
    "seven-groups": Sizes(1, 3, 3, 448, 192, gpt_oss=True),
}


class Args(NamedTuple):
    """The positional arguments of `slot_ffn`; `shapes` has shapes in place of arrays."""

    hidden: Float[Array, "T H"]
    slots: Int[Array, "T K"]
    weights: Float[Array, "T K"]
    experts: Slots


def activation_of(sizes: Sizes) -> Activation:
    return GPT_OSS if sizes.gpt_oss else SWIGLU


def small(sizes: Sizes, by: int = 16) -> Sizes:
    """Returns a model `by` times narrower, in whole groups, and with few experts."""

    def narrow(size: int) -> int:
        return GROUP * max(1, round(size / by / GROUP))

    few = min(sizes.experts, 6)
    return sizes._replace(
        experts=few,
        top_k=min(sizes.top_k, 3),
        hidden=narrow(sizes.hidden),
        width=narrow(sizes.width),
    )


SMALL = {name: small(sizes) for name, sizes in MODELS.items()}


def shapes(sizes: Sizes, tokens: int, dtype: Any, bits: int | None = None) -> Args:
    """Returns the shapes of a call.

    Args:
      sizes: of the model.
      tokens: of the call.
      dtype: of hidden states, and of weights that are not packed.
      bits: of a packed weight; None for floats.
    """
    pairs = (tokens, sizes.top_k)
    of: Any = jax.ShapeDtypeStruct
    return Args(
        of((tokens, sizes.hidden), dtype),
        of(pairs, jnp.int32),
        of(pairs, jnp.float32),
        _slots(sizes, dtype, bits),
    )


def _slots(sizes: Sizes, dtype: Any, bits: int | None) -> Slots:
    many, size, width = sizes.experts, sizes.hidden, sizes.width
    of = jax.ShapeDtypeStruct
    parts: dict[str, Any] = {
        "gate_up": of((many, size, 2 * width), dtype),
        "down": of((many, width, size), dtype),
    }
    if bits is not None:
        parts = {
            "gate_up": of((many, size * bits // 8, 2 * width), jnp.uint8),
            "down": of((many, width * bits // 8, size), jnp.uint8),
            "gate_up_scales": of((many, size // GROUP, 2 * width), jnp.bfloat16),
            "down_scales": of((many, width // GROUP, size), jnp.bfloat16),
        }
    if sizes.gpt_oss:
        parts["gate_up_bias"] = of((many, 2 * width), jnp.bfloat16)
        parts["down_bias"] = of((many, size), jnp.bfloat16)
    return Slots(**parts)


def draw(wanted: Args, seed: int = 0) -> Args:
    """Returns random arguments; slots are repeated within a token, and some are unused."""
    rng = np.random.default_rng(seed)
    count = wanted.experts.down.shape[0]

    def array(shape: Any) -> Array:
        if shape.dtype == jnp.uint8:
            values = rng.integers(0, 256, shape.shape)
        elif shape.dtype == jnp.int32:
            values = rng.integers(-1, count, shape.shape)
        else:
            values = rng.normal(size=shape.shape)
        return jnp.asarray(values.astype(shape.dtype))

    def like_inputs(matrix: Any, scales: Any) -> Any:
        """Draws weights, or scales, such that a product keeps the size of its input."""
        if scales is None:
            spread = 1 / np.sqrt(matrix.shape[1])
            return jnp.asarray((rng.normal(size=matrix.shape) * spread).astype(matrix.dtype)), None
        bits = matrix.shape[1] * 8 // (scales.shape[1] * GROUP)
        spread = 2.0 ** (1 - bits) / np.sqrt(scales.shape[1] * GROUP)
        spreads = spread * rng.uniform(0.5, 1.5, scales.shape)
        return array(matrix), jnp.asarray(spreads.astype(scales.dtype))

    gate_up = like_inputs(wanted.experts.gate_up, wanted.experts.gate_up_scales)
    down = like_inputs(wanted.experts.down, wanted.experts.down_scales)
    biases = jax.tree.map(array, wanted.experts[4:])
    experts = Slots(gate_up[0], down[0], gate_up[1], down[1], *biases)
    hidden, slots, weights = jax.tree.map(array, wanted[:3])
    return Args(hidden, slots, weights, experts)
