"""The decoder compiled, where all experts are on the device.

The weights are split from the modules once and go into plain `jax.jit` as a flat list, next to a
structure whose hash is remembered: walking through modules at every call would take as long as a
small model's decode step.
"""

from functools import partial
from typing import Any, Protocol, runtime_checkable

import jax
from flax import nnx
from jaxtyping import Array, Int

from specmd_jax.core.interned import Interned
from specmd_jax.models.config import DecoderConfig
from specmd_jax.models.decoder import Decoder, Pass
from specmd_jax.models.experts.resident import resident
from specmd_jax.models.experts.weights import ExpertWeights
from specmd_jax.models.layers.kv_cache import KvCache
from specmd_kernels import Implementation


@runtime_checkable
class Forward(Protocol):
    """Runs one pass over a cache: what generation needs of a model, whoever computes it."""

    config: DecoderConfig

    def __call__(self, tokens: Int[Array, "B S"], cache: KvCache) -> Pass:
        """Returns the pass; its cache replaces `cache`, whose memory may be reused."""
        ...


class Structure(Interned[tuple[nnx.GraphDef[Any], Any]]):
    """A module without its weights: what a program is compiled for, cheap to look up."""

    def module(self, weights: list[Array]) -> Any:
        """Returns the module with these weights."""
        graph, tree = self.value
        return nnx.merge(graph, jax.tree.unflatten(tree, weights))


def take_apart(module: nnx.Module) -> tuple[Structure, list[Array]]:
    """Returns what a module is and its weights."""
    graph, state = nnx.split(module)
    weights, tree = jax.tree.flatten(state)
    return Structure((graph, tree)), weights


class ResidentModel:
    """A model that is on the device whole, as a `Forward` of one program a shape."""

    def __init__(
        self,
        decoder: Decoder,
        experts: tuple[ExpertWeights, ...],
        implementation: Implementation | None = None,
    ):
        """Takes the weights, and the kernel of the experts; None: the platform's."""
        self.config = decoder.config
        self._kernel: Implementation | None = implementation
        self._structure, self._weights = take_apart(decoder)
        self._experts = experts

    def __call__(self, tokens: Int[Array, "B S"], cache: KvCache) -> Pass:
        """Runs one pass; see `Forward`."""
        static = self._structure, self._kernel
        return _whole_pass(*static, self._weights, self._experts, tokens, cache)


@partial(jax.jit, static_argnums=(0, 1), donate_argnames="cache")
def _whole_pass(
    structure: Structure,
    implementation: Implementation | None,
    weights: list[Array],
    experts: tuple[ExpertWeights, ...],
    tokens: Int[Array, "B S"],
    cache: KvCache,
) -> Pass:
    decoder: Decoder = structure.module(weights)
    return decoder(tokens, resident(experts, decoder.config, implementation), cache)
