"""The gated feed-forward block of dense layers and shared experts."""

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from specmd_jax.models.layers.attention import linear


class FeedForward(nnx.Module):
    """SwiGLU (arXiv 2002.05202) between two projections up and one down."""

    def __init__(self, size: int, width: int, dtype: jnp.dtype | type, rngs: nnx.Rngs):
        """Draws all weights from `rngs`.

        Args:
          size: features in and out.
          width: features between.
          dtype: of the weights.
          rngs: source of the random weights.
        """
        self.gate = linear(size, width, dtype, rngs)
        self.up = linear(size, width, dtype, rngs)
        self.down = linear(width, size, dtype, rngs)

    def __call__(self, hidden: Float[Array, "*rows H"]) -> Float[Array, "*rows H"]:
        """Returns what the block adds to the residual stream."""
        return self.down(jax.nn.silu(self.gate(hidden)) * self.up(hidden))
