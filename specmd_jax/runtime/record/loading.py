"""A checkpoint loaded whole, and how large its experts are where they are stored."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Integer

from specmd_jax.models import Checkpoint, Decoder, ExpertWeights


class Loaded(NamedTuple):
    """A model on the device."""

    decoder: Decoder
    experts: tuple[ExpertWeights, ...]  # of each MoE layer
    expert_bytes: Integer[np.ndarray, " L"]  # int64, of one expert as stored


def load_whole(checkpoint: Checkpoint, dtype: jnp.dtype | type = jnp.float32) -> Loaded:
    """Returns the model with all its experts on the device.

    Args:
      checkpoint: its files.
      dtype: of all weights on the device.

    Raises:
      InputError: a tensor is missing or has another shape than config.json asks for.
    """
    experts, sizes = [], []
    for layer in range(checkpoint.config.spec.num_moe_layers):
        stored = checkpoint.experts(layer)
        nbytes = sum(leaf.nbytes for leaf in jax.tree.leaves(stored))
        sizes.append(nbytes // checkpoint.config.spec.num_experts)
        experts.append(jax.tree.map(lambda leaf: jnp.asarray(leaf, dtype), stored))
    return Loaded(checkpoint.decoder(dtype), tuple(experts), np.asarray(sizes, np.int64))
