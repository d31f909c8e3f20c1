"""All experts on the device: the plainest `ExpertFn`, and the one that can be trained."""

from jaxtyping import Array

from specmd_jax.models.config import DecoderConfig
from specmd_jax.models.dispatch import all_blocks, in_blocks
from specmd_jax.models.experts import ExpertFn, ExpertWeights


def resident(layers: tuple[ExpertWeights, ...], config: DecoderConfig) -> ExpertFn:
    """Returns the experts of a model that is on the device whole, for prefill and decode.

    Args:
      layers: stacked weights of each MoE layer, [N, ...].
      config: of the decoder.
    """

    def compute(layer: int, hidden: Array, ids: Array, weights: Array) -> Array:
        return in_blocks(layers[layer], hidden, ids, weights, config.activation)

    return compute


def trainable(layers: tuple[ExpertWeights, ...], config: DecoderConfig) -> ExpertFn:
    """Returns the experts in a form that gradients flow through; arguments as `resident`."""

    def compute(layer: int, hidden: Array, ids: Array, weights: Array) -> Array:
        return all_blocks(layers[layer], hidden, ids, weights, config.activation)

    return compute
