"""From gate to event: a run, a recorded trace and the closed loop come to the same integers."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from specmd_jax.core.types import ONE, ModelShape
from specmd_jax.models import Gate
from specmd_jax.policies.base import LOGITS, PROBS
from specmd_jax.policies.strategy import make_strategy
from specmd_jax.runtime.gates.gate_events import GateChoices, GatePosition, make_events
from specmd_jax.runtime.quality.closed_loop import _event
from specmd_jax.simulator.cache import CacheConfig
from specmd_jax.simulator.events import dense_events
from specmd_jax.traces import Trace
from tests.models.small import small_decoder

LAYERS, EXPERTS, TOP_K = 3, 40, 4
READS = frozenset({LOGITS, PROBS})
SAME = ("used", "routed", "gate", "logits", "probs")


def choices(tokens: int, seed: int) -> GateChoices:
    """Returns what the gates of one pass might say."""
    rng = np.random.default_rng(seed)
    logits = (4 * rng.standard_normal((LAYERS, tokens, EXPERTS))).astype(np.float32)
    shares = np.asarray(jax.nn.softmax(logits))
    ids = np.argsort(-shares, axis=2, kind="stable")[..., :TOP_K].astype(np.int32)
    return GateChoices(ids, np.take_along_axis(shares, ids, axis=2), logits, None)


@pytest.mark.parametrize("tokens", [1, 7, 300])
def test_a_run_comes_to_the_events_of_its_recording(tokens: int) -> None:
    said = choices(tokens, seed=tokens)
    events = make_events(said, GatePosition(0, 0, LAYERS, True, True), EXPERTS, READS)
    assert said.logits is not None
    trace = Trace(
        num_experts=EXPERTS,
        experts=said.ids.swapaxes(0, 1).astype(np.int16),
        step=np.zeros(tokens, np.int32),
        request=np.zeros(tokens, np.int32),
        phase=np.zeros(tokens, np.uint8),
        weights=said.weights.swapaxes(0, 1),
        logits=said.logits.swapaxes(0, 1),
    )
    replayed = dense_events(trace, READS)
    for name in ("routed", "gate", "logits", "probs"):
        np.testing.assert_array_equal(getattr(events, name), getattr(replayed, name)[0], name)


def test_the_closed_loop_comes_to_the_events_of_a_run() -> None:
    """Over so many scores that probabilities in float32 would round some of them otherwise."""
    strategy = make_strategy(routing="cumulative-mass")
    shape = ModelShape(LAYERS, EXPERTS, TOP_K)
    sizes = jnp.ones(1, jnp.int32), jnp.ones((LAYERS, 1), jnp.int32)
    setting = CacheConfig(strategy, shape, strategy.params, *sizes)
    decoder, _ = small_decoder()

    @jax.jit
    def closed(gate: Gate) -> dict[str, jax.Array]:
        event = _event(decoder, setting, gate, 0, jnp.int32(0), jnp.bool_(True))
        return {name: getattr(event, name) for name in SAME}

    rounded = 0
    for seed in range(60):
        said = choices(1, seed)
        assert said.logits is not None
        one = make_events(said, GatePosition(0, 0, LAYERS, False, True), EXPERTS, READS)
        assert one.probs is not None
        logits = jnp.asarray(said.logits[0])
        gate = Gate(
            jnp.zeros((1, 8)), logits, jnp.asarray(said.ids[0]), jnp.asarray(said.weights[0])
        )
        found = closed(gate)
        for name in SAME:
            np.testing.assert_array_equal(found[name], getattr(one, name)[0], name)
        in_float32 = jnp.rint(jax.nn.softmax(logits[0]) * ONE).astype(jnp.int32)
        rounded += int((in_float32 != one.probs[0]).sum())
    assert rounded > 0
