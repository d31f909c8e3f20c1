"""Times of the parts of a MoE layer, as lower bounds: the slower of arithmetic and memory.

A layer here is a MoE layer. What the model does elsewhere, attention of dense layers and their
feed-forward blocks, is spread evenly over the MoE layers, so that the sum over them is a whole
forward pass but for `head_s`. Attention, shared experts and dense blocks are read in the spec's
`non_expert_precision`, router, norms and head in bf16; all is multiplied at the bf16 peak.

Where the profile fixes `layer_s`, that is the time of the whole layer: `attention_s` returns it
and the other device times are 0. Transfers and experts on the host keep their own.
"""

from typing import NamedTuple

from specmd_jax.core.errors import InputError
from specmd_jax.hardware.profiles import HardwareProfile
from specmd_jax.model_zoo import ModelSpec

_VALUE_BYTES = 2  # of a bf16 weight, activation or cached key
_FLOPS_PER_WEIGHT = 2  # a multiply and an add for each token


class Roof(NamedTuple):
    """Time of a block of weights against the tokens it serves: a floor, then a slope."""

    floor_s: float  # reading the weights once
    per_token_s: float  # arithmetic of one token

    def at(self, tokens: float | int) -> float:
        """Returns max(floor, tokens x slope), in seconds."""
        return max(self.floor_s, tokens * self.per_token_s)


def attention_s(
    spec: ModelSpec, hw: HardwareProfile, tokens: int, context: int, *, sequences: int = 1
) -> float:
    """Returns the seconds of attention, router and norms for each MoE layer.

    dispatch + max(FLOPs / peak, bytes / HBM), where FLOPs = 2 x weights x tokens + scores, and
    bytes = those of the weights + the cache of `context` tokens of every sequence.

    Args:
      tokens: computed by the pass, over all its sequences.
      context: length of each sequence at the end of the pass, those tokens included.
      sequences: that share the tokens evenly; 1 for a prefill or a single decode step.

    Raises:
      InputError: the context is too short to hold the tokens.
    """
    if context * sequences < tokens:
        raise InputError(
            f"context {context} of {sequences} sequences cannot hold the {tokens} tokens of the "
            "pass: count them in"
        )
    if hw.layer_s is not None:
        return hw.layer_s
    plain = spec.norm_params + spec.router_params
    weights = spec.attention_params + plain
    mean_seen = context - (tokens / sequences - 1) / 2  # the first new token sees the least
    scores = sum(mixer.score_flops(mean_seen) for mixer in spec.layer_mixers)
    flops = tokens * (_FLOPS_PER_WEIGHT * weights + scores)
    nbytes = spec.projection_bytes(spec.attention_params) + _VALUE_BYTES * plain
    nbytes += sequences * spec.cache_bytes(context)
    pass_s = max(flops / hw.peak_flops_per_s, nbytes / hw.hbm_bytes_per_s)
    return hw.dispatch_s + pass_s / spec.num_moe_layers


def shared_s(spec: ModelSpec, hw: HardwareProfile, tokens: int) -> float:
    """Returns the seconds of shared experts and dense feed-forward blocks for each MoE layer.

    max(2 x weights x tokens / peak, their bytes / HBM).
    """
    if hw.layer_s is not None:
        return 0.0
    weights = spec.shared_params + spec.dense_params
    return (
        _device_roof(weights, spec.projection_bytes(weights), hw).at(tokens) / spec.num_moe_layers
    )


def head_s(spec: ModelSpec, hw: HardwareProfile, tokens: int) -> float:
    """Returns the seconds from hidden states to logits, once a pass.

    Args:
      tokens: whose logits are wanted: one a sequence, also in a prefill.
    """
    if hw.layer_s is not None:
        return 0.0
    return _device_roof(spec.head_params, _VALUE_BYTES * spec.head_params, hw).at(tokens)


def expert_roof(spec: ModelSpec, hw: HardwareProfile, precision: str = "bf16") -> Roof:
    """Returns the time of one resident expert as a function of its tokens.

    The weights are read at `precision` and multiplied at the bf16 peak, as dequantising kernels do.
    """
    if hw.layer_s is not None:
        return Roof(0.0, 0.0)
    return _device_roof(spec.expert_params, spec.expert_bytes(precision), hw)


def expert_s(
    spec: ModelSpec,
    hw: HardwareProfile,
    tokens_per_expert: float | int,
    precision: str = "bf16",
) -> float:
    """Returns the seconds of one resident expert: max(2 x weights x tokens / peak, bytes / HBM).

    Args:
      tokens_per_expert: routed to it in this pass.
      precision: of its weights on the device.
    """
    return expert_roof(spec, hw, precision).at(tokens_per_expert)


def host_expert_s(
    spec: ModelSpec,
    hw: HardwareProfile,
    tokens_per_expert: float | int,
    precision: str = "bf16",
) -> float:
    """Returns the seconds of one expert computed by the CPU (miss policy "cpu", Fiddler).

    max(2 x weights x tokens / host FLOPs, bytes / host memory), and the activations of its
    tokens there and back over the link.

    Args:
      tokens_per_expert: routed to it in this pass.
      precision: of its weights in host memory.
    """
    roof = Roof(
        spec.expert_bytes(precision) / hw.host_memory_bytes_per_s,
        _FLOPS_PER_WEIGHT * spec.expert_params / hw.host_flops_per_s,
    )
    activation_bytes = tokens_per_expert * spec.hidden_size * _VALUE_BYTES
    return roof.at(tokens_per_expert) + 2 * transfer_s(hw, activation_bytes)


def transfer_s(hw: HardwareProfile, nbytes: float | int) -> float:
    """Returns the seconds of one host-to-device copy: latency + bytes / link; 0 when unified."""
    return 0.0 if hw.unified else hw.h2d_latency_s + nbytes / hw.h2d_bytes_per_s


def _device_roof(num_weights: int, nbytes: int, hw: HardwareProfile) -> Roof:
    return Roof(nbytes / hw.hbm_bytes_per_s, _FLOPS_PER_WEIGHT * num_weights / hw.peak_flops_per_s)
