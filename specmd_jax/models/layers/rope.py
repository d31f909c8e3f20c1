"""Rotary position embeddings: pairs of dimensions turned by angles that grow with the position.

Source: RoFormer (arXiv 2104.09864, §3.2).
"""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from specmd_jax.models.config import Rope


def rotate(
    heads: Float[Array, "B S N D"], positions: Int[Array, "B S"], rope: Rope
) -> Float[Array, "B S N D"]:
    """Returns `heads` (queries or keys) turned to their positions, in their own precision."""
    frequencies = jnp.asarray(np.asarray(rope.frequencies, np.float32))
    angles = positions[..., None, None].astype(jnp.float32) * frequencies
    cos, sin = rope.magnitude * jnp.cos(angles), rope.magnitude * jnp.sin(angles)
    first, second = _pairs(heads.astype(jnp.float32), rope.interleaved)
    turned = first * cos - second * sin, second * cos + first * sin
    return _joined(*turned, rope.interleaved).astype(heads.dtype)


def _pairs(heads: Float[Array, "B S N D"], interleaved: bool) -> tuple[Array, Array]:
    if interleaved:
        return heads[..., ::2], heads[..., 1::2]
    first, second = jnp.split(heads, 2, axis=-1)
    return first, second


def _joined(first: Array, second: Array, interleaved: bool) -> Float[Array, "B S N D"]:
    if interleaved:
        return jnp.stack([first, second], axis=-1).reshape(*first.shape[:-1], -1)
    return jnp.concatenate([first, second], axis=-1)
