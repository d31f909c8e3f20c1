"""A model that is on the device whole and gives the choices of its gates to a recorder."""

from functools import partial

import jax
from jaxtyping import Array, Float, Int

from specmd_jax.models import Decoder, ExpertWeights, KvCache, Pass, resident
from specmd_jax.models.forward import Structure, take_apart
from specmd_jax.runtime.gates.scores import Seen, Wanted, see
from specmd_jax.runtime.record.recorder import Recorder


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
            self._structure, self._weights, self._experts, tokens, cache, self.recorder.wanted
        )
        self.recorder.add(seen)
        return Pass(logits, (), after)


@partial(jax.jit, static_argnames=("structure", "wanted"), donate_argnames="cache")
def _recorded_pass(
    structure: Structure,
    weights: list[Array],
    experts: tuple[ExpertWeights, ...],
    tokens: Int[Array, "B S"],
    cache: KvCache,
    wanted: Wanted,
) -> tuple[Float[Array, "B S V"], KvCache | None, Seen]:
    decoder: Decoder = structure.module(weights)
    done = decoder(tokens, resident(experts, decoder.config), cache)
    return done.logits, done.cache, see(decoder, done.gates, wanted)
