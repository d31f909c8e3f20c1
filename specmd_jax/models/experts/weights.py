"""The routed experts: their weights, and what one of them computes.

An `ExpertFn` is all that the decoder knows of experts. Whoever caches or offloads them hands in
its own.
"""

from typing import NamedTuple, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from specmd_jax.models.config import DecoderConfig
from specmd_kernels import Activation


class ExpertWeights(NamedTuple):
    """The weights of one expert, or of many along leading axes; on the device or on the host."""

    gate_up: Float[Array | np.ndarray, "*many H 2F"]  # gate in the first half
    down: Float[Array | np.ndarray, "*many F H"]
    gate_up_bias: Float[Array | np.ndarray, "*many 2F"] | None = None  # gpt-oss alone has biases
    down_bias: Float[Array | np.ndarray, "*many H"] | None = None


@runtime_checkable
class ExpertFn(Protocol):
    """Computes the routed experts of one MoE layer."""

    def __call__(
        self,
        layer: int,
        hidden: Float[Array, "T H"],
        ids: Int[Array, "T K"],
        weights: Float[Array, "T K"],
    ) -> Float[Array, "T H"]:
        """Returns the weighted sum of the chosen experts of each token.

        Args:
          layer: MoE layer, counted from 0 without the dense layers.
          hidden: at the gate.
          ids: chosen experts, -1 for none.
          weights: of each, 0 for none.
        """
        ...


def apply_expert(
    expert: ExpertWeights, rows: Float[Array, "M H"], activation: Activation
) -> Float[Array, "M H"]:
    """Returns what one expert makes of each row."""
    inner = rows @ expert.gate_up
    if expert.gate_up_bias is not None:
        inner = inner + expert.gate_up_bias
    gate, up = jnp.split(inner, 2, axis=-1)
    out = activation(gate, up) @ expert.down
    return out if expert.down_bias is None else out + expert.down_bias


def init_experts(
    config: DecoderConfig, key: Array, dtype: jnp.dtype | type = jnp.float32
) -> tuple[ExpertWeights, ...]:
    """Returns experts drawn from a normal distribution of deviation 0.02; biases are 0."""
    spec = config.spec
    many, size, width = spec.num_experts, spec.hidden_size, spec.moe_intermediate_size

    def layer(key: Array) -> ExpertWeights:
        up_key, down_key = jax.random.split(key)
        up = 0.02 * jax.random.normal(up_key, (many, size, 2 * width), dtype)
        down = 0.02 * jax.random.normal(down_key, (many, width, size), dtype)
        if not spec.expert_bias:
            return ExpertWeights(up, down)
        return ExpertWeights(
            up, down, jnp.zeros((many, 2 * width), dtype), jnp.zeros((many, size), dtype)
        )

    return tuple(layer(key) for key in jax.random.split(key, spec.num_moe_layers))
