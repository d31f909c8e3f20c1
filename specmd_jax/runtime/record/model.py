"""A checkpoint loaded whole, as a model that gives the choices of its gates to a recorder."""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Integer

from specmd_jax.models import Checkpoint, Decoder, ExpertWeights, KvCache, Pass, resident
from specmd_jax.models.forward import Structure, take_apart
from specmd_jax.runtime.gates.scores import PassRecord, RecordOptions, record_pass
from specmd_jax.runtime.record.recorder import Recorder


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


class RecordingModel:
    """A `Forward` like `ResidentModel`, whose every pass goes to `recorder`.

    Its passes come without gates: hidden states stay inside the program, and what is wanted of
    the gates is in the recorder.
    """

    def __init__(self, decoder: Decoder, experts: tuple[ExpertWeights, ...], recorder: Recorder):
        self.config = decoder.config
        self.recorder = recorder
        self._structure, self._weights = take_apart(decoder)
        self._experts = experts

    def __call__(self, tokens: Int[Array, "B S"], cache: KvCache) -> Pass:
        """Runs one pass and records it; see `Forward`."""
        logits, after, seen = _recorded_pass(
            self._structure, self._weights, self._experts, tokens, cache, self.recorder.options
        )
        self.recorder.add(seen)
        return Pass(logits, (), after)


@partial(jax.jit, static_argnames=("structure", "options"), donate_argnames="cache")
def _recorded_pass(
    structure: Structure,
    weights: list[Array],
    experts: tuple[ExpertWeights, ...],
    tokens: Int[Array, "B S"],
    cache: KvCache,
    options: RecordOptions,
) -> tuple[Float[Array, "B S V"], KvCache | None, PassRecord]:
    decoder: Decoder = structure.module(weights)
    done = decoder(tokens, resident(experts, decoder.config), cache)
    return done.logits, done.cache, record_pass(decoder, done.gates, options)
