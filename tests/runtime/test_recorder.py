"""What is recorded is what the model chose, however its passes were cut; takes about 45 s."""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from specmd_jax.core.errors import InputError
from specmd_jax.models import (
    Decoder,
    ExpertWeights,
    Gate,
    Pass,
    ResidentModel,
    Sampling,
    generate,
    resident,
    stream_tokens,
)
from specmd_jax.policies.strategy import make_strategy
from specmd_jax.runtime.gates.scores import PassRecord, RecordOptions
from specmd_jax.runtime.record.model import RecordingModel
from specmd_jax.runtime.record.record import Continuation, record
from specmd_jax.runtime.record.recorder import Recorder
from specmd_jax.simulator.events import dense_events
from specmd_jax.study.metrics import count_summary
from specmd_jax.study.run import compare
from specmd_jax.study.setup import Setup
from specmd_jax.traces import DECODE, PAD, PREFILL, Trace, read_trace, write_trace
from tests.models.small import CONFIG, small_decoder

PROMPTS = [[3, 14, 15, 9, 26, 5, 35, 8, 9], [7, 9, 3, 2], [38, 46, 26, 43, 38, 32, 7]]
NEW = 6
EXACT = 1e-5  # of logits around 2, in float32
SPEC = CONFIG.spec
Small = tuple[Decoder, tuple[ExpertWeights, ...]]


@pytest.fixture(scope="module")
def small() -> Small:
    return small_decoder()


def recorded(small: Small, wanted: RecordOptions | None = None, **how: Any) -> Trace:
    """Returns the trace of the prompts continued."""
    recorder = Recorder(wanted)
    model = RecordingModel(*small, recorder)
    record(model, PROMPTS, Continuation(NEW, **how))
    return recorder.trace(SPEC.num_experts)


@pytest.fixture(scope="module")
def full(small: Small) -> Trace:
    """All prompts in one batch, with all that can be recorded."""
    return recorded(small, RecordOptions(scores=True, lookahead=2), batch=3)


@pytest.fixture(scope="module")
def direct(small: Small) -> list[tuple[Gate, ...]]:
    """The gates of each request, prompt and continuation in one pass without cache or padding."""
    decoder, experts = small
    made = generate(ResidentModel(decoder, experts), CONFIG, PROMPTS, NEW)
    rows = [prompt + new[:-1] for prompt, new in zip(PROMPTS, made, strict=True)]
    graph, state = nnx.split(decoder)

    @jax.jit
    def gates(state, experts, tokens):
        return nnx.merge(graph, state)(tokens, resident(experts, CONFIG)).gates

    return [gates(state, experts, jnp.array([row])) for row in rows]


def stacked(gates: Sequence[Gate], field: str) -> np.ndarray:
    return np.stack([np.asarray(getattr(gate, field)) for gate in gates], axis=1)


@pytest.mark.parametrize("batch", [1, 2, 3])
def test_ids_and_weights_are_those_of_a_direct_forward(small: Small, direct, batch: int) -> None:
    trace = recorded(small, batch=batch)
    for request, gates in enumerate(direct):
        rows = trace.request == request
        np.testing.assert_array_equal(trace.experts[rows], stacked(gates, "ids"))
        assert trace.weights is not None and trace.logits is None and trace.predicted is None
        np.testing.assert_allclose(trace.weights[rows], stacked(gates, "weights"), atol=EXACT)


def test_scores_are_the_logits_of_all_gates(full: Trace, direct) -> None:
    assert full.logits is not None
    for request, gates in enumerate(direct):
        found = full.logits[full.request == request]
        np.testing.assert_allclose(found, stacked(gates, "logits"), atol=EXACT)
    best = np.argsort(-full.logits, axis=-1, kind="stable")[..., : SPEC.top_k]
    np.testing.assert_array_equal(best, full.experts)


def test_predictions_are_the_next_gates_applied_by_hand(small: Small, full: Trace, direct) -> None:
    kernels = [np.asarray(layer.moe.gate.kernel[...]) for layer in small[0].layers]
    assert full.predicted is not None and full.lookahead == 2
    for request, gates in enumerate(direct):
        found = full.predicted[full.request == request]
        for layer, gate in enumerate(gates):
            for ahead in range(2):
                if layer + 1 + ahead < len(gates):
                    wanted = jax.nn.softmax(gate.hidden @ kernels[layer + 1 + ahead])
                    np.testing.assert_allclose(found[:, layer, ahead], wanted, atol=EXACT)
                else:
                    assert not found[:, layer, ahead].any()


def test_one_by_one_a_request_is_a_prefill_and_steps(small: Small) -> None:
    trace = recorded(small)
    for request, prompt in enumerate(PROMPTS):
        rows = trace.request == request
        assert trace.phase[rows].tolist() == [PREFILL] * len(prompt) + [DECODE] * (NEW - 1)
        steps = trace.step[rows] - trace.step[rows][0]
        assert steps.tolist() == [0] * len(prompt) + list(range(1, NEW))
    assert trace.num_passes == len(PROMPTS) * NEW


def test_a_batch_shares_its_passes_and_padding_is_left_out(full: Trace) -> None:
    assert full.num_passes == NEW
    assert full.num_tokens == sum(map(len, PROMPTS)) + len(PROMPTS) * (NEW - 1)
    assert (full.experts != PAD).all()
    assert full.request[full.step == 0].tolist() == [0] * 9 + [1] * 4 + [2] * 7
    for step in range(1, NEW):
        assert full.request[full.step == step].tolist() == [0, 1, 2]
        assert (full.phase[full.step == step] == DECODE).all()


@pytest.mark.parametrize("chunk", [1, 4])
def test_a_prefill_in_chunks_is_as_many_passes(small: Small, full: Trace, chunk: int) -> None:
    recorder = Recorder()
    model = RecordingModel(*small, recorder)
    recorder.begin([len(prompt) for prompt in PROMPTS])
    for _ in stream_tokens(model, CONFIG, PROMPTS, NEW, chunk=chunk):
        pass
    recorder.finish()
    trace = recorder.trace(SPEC.num_experts)
    chunks = -(-max(map(len, PROMPTS)) // chunk)
    assert trace.num_passes == chunks + NEW - 1
    assert set(trace.step[trace.phase == PREFILL]) == set(range(chunks))
    for request in range(len(PROMPTS)):
        one, other = trace.request == request, full.request == request
        np.testing.assert_array_equal(trace.experts[one], full.experts[other])
        np.testing.assert_array_equal(trace.phase[one], full.phase[other])


def test_a_replay_asks_for_the_very_sets_that_the_model_used(small: Small, full: Trace) -> None:
    used = []

    class Watched(ResidentModel):
        def __call__(self, tokens, cache) -> Pass:
            done = super().__call__(tokens, cache)
            used.append([set(np.asarray(gate.ids).ravel().tolist()) - {PAD} for gate in done.gates])
            return done

    generate(Watched(*small), CONFIG, PROMPTS, NEW)
    routed = np.asarray(dense_events(full).routed) > 0
    replayed = [[set(np.flatnonzero(row).tolist()) for row in layers] for layers in routed]
    assert replayed == used

    strategy = make_strategy("lru")
    (answer,) = compare(full, [Setup(strategy, strategy.params, capacity="24")])
    asked = sum(len(experts) for layers in used for experts in layers)
    assert count_summary(answer)["accesses"] == asked


def test_it_survives_its_file(full: Trace, tmp_path) -> None:
    write_trace(full, tmp_path / "trace.st")
    again = read_trace(tmp_path / "trace.st")
    for name in ("experts", "step", "request", "phase", "weights", "logits", "predicted"):
        np.testing.assert_array_equal(getattr(again, name), getattr(full, name), err_msg=name)


def test_draws_are_the_same_for_the_same_seed_alone(small: Small) -> None:
    def drawn(seed: int) -> np.ndarray:
        return recorded(small, sampling=Sampling(temperature=2.0), seed=seed).experts

    np.testing.assert_array_equal(drawn(1), drawn(1))
    assert not np.array_equal(drawn(1), drawn(2))


def test_a_request_ends_with_its_stop_token(small: Small) -> None:
    made = generate(ResidentModel(*small), CONFIG, PROMPTS, NEW)
    stop = made[1][2]
    trace = recorded(small, batch=3, stop=frozenset([stop]))
    for request, (prompt, new) in enumerate(zip(PROMPTS, made, strict=True)):
        run_tokens = new.index(stop) if stop in new else NEW - 1
        assert (trace.request == request).sum() == len(prompt) + run_tokens


def test_hidden_states_stay_inside_the_program(small: Small) -> None:
    passes = []

    class Watched(RecordingModel):
        def __call__(self, tokens, cache) -> Pass:
            passes.append(super().__call__(tokens, cache))
            return passes[-1]

    record(Watched(*small, Recorder()), PROMPTS[:1], Continuation(max_tokens=NEW))
    assert len(passes) == NEW and all(done.gates == () for done in passes)


def chosen(*tokens: int) -> PassRecord:
    """Returns a pass of one layer and one choice a token, -1 for padding."""
    ids = np.array(tokens, np.int16).reshape(-1, 1, 1)
    return PassRecord(ids, np.where(ids < 0, 0, 1).astype(np.float32))


def test_what_a_sequence_computes_after_its_end_is_left_out() -> None:
    recorder = Recorder()
    recorder.begin([2, 1])
    recorder.add(chosen(0, 1, -1, 2))
    recorder.add(chosen(3, 4))
    recorder.end(0)
    recorder.add(chosen(5, 6))
    recorder.finish()
    trace = recorder.trace(8)
    assert trace.experts.ravel().tolist() == [0, 1, 2, 3, 4, 6]
    assert trace.request.tolist() == [0, 0, 1, 0, 1, 1]
    assert trace.step.tolist() == [0, 0, 0, 1, 1, 2]
    assert (recorder.requests, recorder.tokens) == (2, 6)


def test_a_pass_of_padding_alone_is_none() -> None:
    recorder = Recorder()
    recorder.begin([1])
    for seen in (chosen(-1, -1), chosen(-1, 3), chosen(4)):
        recorder.add(seen)
    recorder.finish()
    trace = recorder.trace(8)
    assert trace.step.tolist() == [0, 1]
    assert trace.phase.tolist() == [PREFILL, DECODE]


def test_a_batch_that_was_not_finished_is_forgotten() -> None:
    recorder = Recorder()
    with pytest.raises(InputError, match="no request was recorded"):
        recorder.trace(8)
    recorder.begin([1])
    recorder.add(chosen(7))
    for request in range(2):
        recorder.begin([1])
        recorder.add(chosen(request))
        recorder.finish()
    recorder.begin([1])
    recorder.add(chosen(6))
    trace = recorder.trace(8)
    assert trace.experts.ravel().tolist() == [0, 1] and trace.request.tolist() == [0, 1]


@pytest.mark.parametrize(
    ("how", "problem"),
    [
        ({"max_tokens": 0}, "max-tokens 0 is out of range"),
        ({"batch": 0}, "batch 0 is out of range"),
        ({"batch": 5000}, "give 1 to 4096"),
        ({"seed": -1}, "seed -1 is out of range"),
    ],
)
def test_a_number_out_of_range_is_refused(how: dict[str, Any], problem: str) -> None:
    with pytest.raises(InputError, match=problem):
        Continuation(**how)


def test_progress_reaches_the_end(small: Small) -> None:
    shares: list[float] = []
    model = RecordingModel(*small, Recorder())
    record(model, PROMPTS, Continuation(max_tokens=NEW), on_progress=shares.append)
    assert shares[-1] == 1 and all(one < other for one, other in pairwise(shares))
