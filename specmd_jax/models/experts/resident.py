"""All experts on the device: the plainest `ExpertFn`, and the one that can be trained."""

from jaxtyping import Array

from specmd_jax.models.config import DecoderConfig
from specmd_jax.models.experts.dispatch import all_blocks, in_blocks
from specmd_jax.models.experts.weights import ExpertFn, ExpertWeights
from specmd_kernels import Implementation


def resident(
    layers: tuple[ExpertWeights, ...],
    config: DecoderConfig,
    implementation: Implementation | None = None,
) -> ExpertFn:
    """Returns the experts of a model that is on the device whole, for prefill and decode.

    Args:
      layers: stacked weights of each MoE layer, [N, ...].
      config: of the decoder.
      implementation: of `slot_ffn`; None: the platform's kernel, if it has one.
    """

    def compute(layer: int, hidden: Array, ids: Array, weights: Array) -> Array:
        args = layers[layer], hidden, ids, weights, config.activation
        return in_blocks(*args, implementation)

    return compute


def trainable(layers: tuple[ExpertWeights, ...], config: DecoderConfig) -> ExpertFn:
    """Returns the experts in a form that gradients flow through; see `resident`."""

    def compute(layer: int, hidden: Array, ids: Array, weights: Array) -> Array:
        return all_blocks(layers[layer], hidden, ids, weights, config.activation)

    return compute
