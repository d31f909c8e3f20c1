"""The norm of a family: RMSNorm, or LayerNorm with a bias. Statistics are in float32."""

import jax.numpy as jnp
from flax import nnx

from specmd_jax.models.config import DecoderConfig


def make_norm(
    config: DecoderConfig, size: int, dtype: jnp.dtype | type, rngs: nnx.Rngs
) -> nnx.Module:
    """Returns the norm that `config` asks for, over the last axis of `size`.

    Args:
      config: the architecture.
      size: of the last axis.
      dtype: of the weights.
      rngs: source of the random weights.
    """
    if config.layer_norm:
        return nnx.LayerNorm(
            size, epsilon=config.norm_eps, use_fast_variance=False, param_dtype=dtype, rngs=rngs
        )
    return rms_norm(size, config.norm_eps, dtype, rngs)


def rms_norm(size: int, eps: float, dtype: jnp.dtype | type, rngs: nnx.Rngs) -> nnx.RMSNorm:
    """Returns an RMSNorm (arXiv 1910.07467) over the last axis of `size`.

    Args:
      size: of the last axis.
      eps: added to the mean square.
      dtype: of the weights.
      rngs: source of the random weights.
    """
    return nnx.RMSNorm(size, epsilon=eps, param_dtype=dtype, rngs=rngs)
