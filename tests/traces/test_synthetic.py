"""Synthetic traces: what each knob does, and that calibration finds the knobs again."""

from dataclasses import replace

import numpy as np
import pytest

from specmd_jax.core.errors import InputError
from specmd_jax.core.types import ModelShape
from specmd_jax.traces import analysis
from specmd_jax.traces.synthetic.calibration import calibrate, noise_for_recall
from specmd_jax.traces.synthetic.generator import SyntheticSpec, generate
from specmd_jax.traces.trace import DECODE, PREFILL
from tests.helpers.recorded import needs_recorded, recorded

SMALL = ModelShape(4, 32, 4)
PLAIN = SyntheticSpec(SMALL, tokens=2000, skew=0.0, rho=0.0, topic_share=0.0)


def test_the_same_seed_gives_the_same_trace_and_recording_does_not_change_it():
    spec = SyntheticSpec(SMALL, requests=3, tokens=20)
    bare = replace(spec, record_weights=False)
    full = replace(spec, record_logits=True, lookahead=2)
    first = generate(spec, 5)
    assert first.weights is not None and generate(bare, 5).weights is None
    for other in (spec, bare, full):
        assert np.array_equal(generate(other, 5).experts, first.experts)
    assert not np.array_equal(generate(spec, 6).experts, first.experts)


def test_prompts_are_one_prefill_pass_a_request():
    trace = generate(SyntheticSpec(SMALL, requests=2, tokens=3, prompt_tokens=4))
    assert trace.step.tolist() == [0, 0, 0, 0, 1, 2, 3, 4, 4, 4, 4, 5, 6, 7]
    assert trace.request.tolist() == [0] * 7 + [1] * 7
    assert trace.phase.tolist() == ([PREFILL] * 4 + [DECODE] * 3) * 2


def test_weights_and_experts_are_those_of_the_logits():
    trace = generate(SyntheticSpec(SMALL, tokens=50, record_logits=True))
    assert trace.logits is not None and trace.weights is not None
    best = np.argsort(-trace.logits, axis=-1)[..., :4]
    assert np.array_equal(trace.experts, best)
    weight = np.exp(trace.logits.astype(np.float64))
    weight /= weight.sum(-1, keepdims=True)
    assert trace.weights == pytest.approx(np.take_along_axis(weight, best, -1), rel=1e-4)


def test_without_knobs_routing_is_uniform_and_forgets():
    trace = generate(PLAIN)
    entropy = analysis.popularity_entropy(analysis.expert_counts(trace))
    assert entropy == pytest.approx(np.full(4, 5.0), abs=0.01)
    assert analysis.overlap(trace) == pytest.approx(np.full(4, 4 / 32), abs=0.015)


@pytest.mark.parametrize(
    ("knob", "values"), [("rho", (0.0, 0.4, 0.8)), ("topic_share", (0.0, 0.3, 0.6))]
)
def test_memory_and_topics_raise_overlap_and_leave_popularity_alone(knob, values):
    spec = replace(PLAIN, requests=20, tokens=150, skew=0.6)
    traces = [generate(replace(spec, **{knob: value})) for value in values]
    overlaps = [analysis.overlap(trace).mean() for trace in traces]
    entropies = [analysis.popularity_entropy(analysis.expert_counts(t)).mean() for t in traces]
    assert np.diff(overlaps).min() > 0.05
    assert np.ptp(entropies) < 0.1


def test_a_change_of_topic_ends_what_a_topic_holds():
    spec = replace(PLAIN, tokens=3000, topic_share=0.6)
    steady, restless = (generate(replace(spec, topic_rate=rate)) for rate in (0.0, 0.05))
    chance = 4 / 32
    assert analysis.overlap(steady, 100).mean() > chance + 0.2
    assert analysis.overlap(restless, 100).mean() == pytest.approx(chance, abs=0.03)
    assert analysis.overlap(restless).mean() > chance + 0.2


def test_skew_concentrates_and_a_flat_head_spreads():
    skewed, flat = (generate(replace(PLAIN, skew=1.2, flat=cut)) for cut in (0.0, 5.0))
    shares = [
        analysis.top_share(analysis.expert_counts(trace), 0.1).mean() for trace in (skewed, flat)
    ]
    assert shares[0] > shares[1] > 0.1


def test_layers_may_differ():
    trace = generate(replace(PLAIN, skew=(0.0, 0.5, 1.0, 2.0), rho=(0.8, 0.0, 0.0, 0.0)))
    entropy = analysis.popularity_entropy(analysis.expert_counts(trace))
    assert (np.diff(entropy) < -0.1).all()
    excess = analysis.overlap(trace) - analysis.chance_overlap(trace)
    assert excess[0] > 0.2 and np.abs(excess[1:]).max() < 0.03


def _echo(coupling: float) -> float:
    """How much more than by chance the experts of two neighbouring layers go together."""
    chosen = np.zeros((2, PLAIN.tokens, 32))
    trace = generate(replace(PLAIN, coupling=coupling))
    for layer in (0, 1):
        np.put_along_axis(chosen[layer], trace.experts[:, layer].astype(int), 1, axis=1)
    return float((chosen[0].T @ chosen[1] / PLAIN.tokens).max())


def test_coupled_layers_go_together():
    assert _echo(0.0) < 0.04 < 0.08 < _echo(0.9)


def test_predictions_are_perfect_without_noise_and_fade_with_distance():
    spec = SyntheticSpec(SMALL, tokens=300, lookahead=4)
    clear = generate(replace(spec, predictor_noise=0.0))
    recall = analysis.foreseen_recall(clear)
    assert recall[:3].tolist() == [1, 1, 1] and np.isnan(recall[3])  # past the last layer
    assert clear.predicted is not None and not clear.predicted[:, 3].any()
    blurred = analysis.foreseen_recall(generate(replace(spec, predictor_noise=0.5)))
    assert (np.diff(blurred[:3]) < -0.02).all()


@pytest.mark.parametrize("recall", [0.9, 0.6])
def test_noise_can_be_chosen_by_the_recall_it_leaves(recall):
    spec = SyntheticSpec(SMALL, tokens=600)
    noise = noise_for_recall(spec, recall)
    trace = generate(replace(spec, predictor_noise=noise, lookahead=1), seed=9)
    assert analysis.foreseen_recall(trace)[0] == pytest.approx(recall, abs=0.03)
    with pytest.raises(InputError, match=r"recall 0\.05 cannot be had"):
        noise_for_recall(spec, 0.05)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"shape": ModelShape(4, 8, 9)}, "no router has the shape"),
        ({"requests": 0}, "requests is 0"),
        ({"rho": 1.0}, "rho must lie in 0"),
        ({"topic_share": -0.1}, "topic_share must lie in 0..1"),
        ({"skew": (0.1, 0.2)}, "skew has 2 values for 4 layers"),
        ({"predictor_noise": float("nan")}, "predictor_noise must lie"),
    ],
)
def test_bad_specs_are_named(change, message):
    with pytest.raises(InputError, match=message):
        replace(PLAIN, **change)


def test_calibration_finds_the_knobs_again():
    truth = SyntheticSpec(
        ModelShape(6, 64, 8), requests=24, tokens=256, skew=0.7, rho=0.5, topic_share=0.3
    )
    fit = calibrate(generate(truth, seed=3))
    assert np.mean(fit.spec.skew) == pytest.approx(0.7, abs=0.05) and fit.spec.flat == 0
    assert np.mean(fit.spec.rho) == pytest.approx(0.5, abs=0.05)
    assert np.mean(fit.spec.topic_share) == pytest.approx(0.3, abs=0.05)
    assert fit.spec.topic_rate < 0.001
    assert max(abs(error) for error in fit.errors.values()) < 0.02


def test_calibration_finds_changes_of_topic():
    truth = SyntheticSpec(
        ModelShape(6, 64, 8), requests=4, tokens=1500, topic_share=0.5, topic_rate=0.01
    )
    fit = calibrate(generate(truth, seed=3))
    assert 0.006 < fit.spec.topic_rate < 0.016
    assert np.mean(fit.spec.topic_share) == pytest.approx(0.5, abs=0.08)


def test_calibration_needs_neighbouring_tokens():
    with pytest.raises(InputError, match="needs 64 pairs of successive tokens"):
        calibrate(generate(replace(PLAIN, requests=100, tokens=1)))
    with pytest.raises(InputError, match="one expert has no routing"):
        calibrate(generate(SyntheticSpec(ModelShape(2, 1, 1))))


@needs_recorded
@pytest.mark.parametrize("name", ["olmoe-workloads", "deepseek-v2-lite-law"])
def test_recorded_traces_are_matched_in_entropy_and_overlap(name):
    fit = calibrate(recorded(name))
    assert abs(fit.errors["entropy"]) < 0.02
    assert abs(fit.errors["overlap_lag_1"]) < 0.02
