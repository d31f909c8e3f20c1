"""Tuning: knobs, objectives, gradients and the search, on problems whose answer is known."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from specmd_jax.core.errors import InputError
from specmd_jax.core.types import ModelShape
from specmd_jax.model_zoo import get_model
from specmd_jax.policies.params import list_params
from specmd_jax.policies.strategy_file import read_strategy, write_strategy
from specmd_jax.study.choice import Choice
from specmd_jax.study.setup import make_setup
from specmd_jax.study.tune import (
    Effort,
    Goal,
    Objective,
    anchors_of,
    check_grid,
    knobs_of,
    search,
    split_requests,
)
from specmd_jax.study.tune import objective as objective_module
from specmd_jax.study.tune.knobs import KNOBS, places_of, values_at, with_values
from specmd_jax.study.tune.search import SURE, WORTH, agreement_of, smoothed_gradient
from specmd_jax.study.tune.surrogate import Surrogate, has_surrogate
from specmd_jax.traces import Trace, batch_prefill
from specmd_jax.traces.synthetic.generator import SyntheticSpec, generate

SPEC = get_model("granite-3.1-3b-a800m")
SHAPE = ModelShape(4, 16, 2)


@pytest.fixture(scope="module")
def trace() -> Trace:
    return generate(SyntheticSpec(SHAPE, requests=4, tokens=24, skew=1.2), seed=2)


class Bowl:
    """A smooth objective with its bottom at a known place, in the place of a simulator."""

    evaluations = 0

    def __init__(self, bottom: np.ndarray):
        self.bottom = bottom

    def __call__(self, places: np.ndarray) -> np.ndarray:
        self.evaluations += len(places)
        return 1 + ((places - self.bottom) ** 2).sum(axis=1)


def differences(value, centres: np.ndarray, sigma: float) -> np.ndarray:
    """Finite differences over +-sigma, knob by knob, clipped to the cube."""
    steps = sigma * np.eye(centres.shape[1])
    ahead, behind = (np.clip(centres[:, None] + way * steps, 0, 1) for way in (1, -1))
    up, down = (value(np.concatenate(places)).reshape(centres.shape) for places in (ahead, behind))
    return (up - down) / np.einsum("sii->si", ahead - behind)


@settings(deadline=None)
@given(st.sampled_from(sorted(KNOBS)), st.floats(0, 1))
def test_a_place_is_found_again_from_its_value(name: str, place: float):
    knob = KNOBS[name]
    (value,) = knob.to_value(np.asarray([place])).tolist()
    assert knob.low - 1e-9 <= value <= knob.high + 1e-9
    assert knob.to_place(value) == pytest.approx(place, abs=1e-6)


def test_half_lives_are_even_on_their_scale():
    knob = KNOBS["eviction.decay"]
    lives = np.log(0.5) / np.log(knob.to_value(np.asarray([0.0, 0.5, 1.0])))
    assert lives[1] / lives[0] == pytest.approx(lives[2] / lives[1])


def test_only_continuous_parameters_are_knobs_and_only_named_ones_if_any():
    linear = make_setup(Choice(eviction="linear"))
    assert len(knobs_of(linear.params)) == 4
    (one,) = knobs_of(linear.params, ("eviction.w_gate",))
    changed = list_params(with_values(linear.params, (one,), np.asarray([0.5])))
    assert changed["eviction.w_gate"] == 0.5 and changed["eviction.w_recency"] == 1.0
    with pytest.raises(InputError, match="no continuous parameter"):
        knobs_of(make_setup(Choice(eviction="score-based")).params)
    with pytest.raises(InputError, match=r"no parameter 'eviction.decay' to tune here"):
        knobs_of(linear.params, ("eviction.decay",))


def test_the_defaults_are_an_anchor_and_so_is_no_prefetch():
    setup = make_setup(Choice(prefetch="previous", guard=True))
    knobs = knobs_of(setup.params)
    anchors = values_at(knobs, anchors_of(setup, knobs))
    assert anchors[:, 0].tolist() == pytest.approx([0.1, 1.0])


def test_requests_are_split_without_overlap(trace: Trace):
    train, held_out = split_requests(trace)
    assert not set(train.request.tolist()) & set(held_out.request.tolist())
    assert train.num_passes + held_out.num_passes == trace.num_passes
    alone = generate(SyntheticSpec(SHAPE, tokens=9))
    assert [part.num_passes for part in split_requests(alone)] == [4, 5]
    with pytest.raises(InputError, match="one pass"):
        split_requests(generate(SyntheticSpec(SHAPE, tokens=1)))


@pytest.mark.parametrize("size", [1, 2, 4])
def test_the_search_finds_the_bottom_of_a_bowl_within_its_budget(size: int):
    bowl = Bowl(np.full(size, 0.3))
    found = search(bowl, np.full((1, size), 0.9), Effort(evaluations=128))
    assert found.evaluations == bowl.evaluations == 128
    assert found.value < 1 + 0.01 * size and found.gradient == "evolution strategies"


def test_a_thousand_starts_go_on_side_by_side():
    bowl = Bowl(np.asarray([0.3, 0.6]))
    found = search(bowl, np.full((1, 2), 0.9), Effort(evaluations=20_000, starts=1000))
    assert found.evaluations == bowl.evaluations == 20_000 and found.value < 1.0005
    assert found.path[0].centres.shape == found.path[1].centres.shape == (1000, 2)


def test_a_surrogate_leads_only_where_its_signs_are_right():
    bowl = Bowl(np.asarray([0.3, 0.6]))
    start, effort = np.full((1, 2), 0.9), Effort(evaluations=128)

    def right(places: np.ndarray) -> np.ndarray:
        return places - bowl.bottom

    led = search(bowl, start, effort, right)
    assert led.gradient == "surrogate" and led.value < 1.005
    assert led.agreement is not None and led.agreement >= SURE
    misled = search(bowl, start, effort, lambda places: -right(places))
    assert misled.gradient == "evolution strategies"
    assert misled.agreement is not None and misled.agreement <= 1 - SURE


def test_a_slope_s_own_gradient_is_right_about_every_neighbour():
    way, effort = np.asarray([1.0, -0.5]), Effort(evaluations=128)
    start = np.full((1, 2), 0.9)
    for sign, share in ((1, 1), (-1, 0)):
        found = search(
            lambda places: 2 + places @ way,
            start,
            effort,
            lambda places, sign=sign: np.broadcast_to(sign * way, places.shape),
        )
        assert found.agreement == share


def test_a_gain_that_the_dice_could_give_keeps_the_last_anchor():
    bowl = Bowl(np.asarray([0.5]))
    anchors = np.asarray([[0.9], [0.53]])
    found = search(bowl, anchors, Effort(evaluations=64))
    assert bowl(anchors)[1] - 1 < WORTH
    assert found.place.tolist() == [0.53] and found.default == pytest.approx(1.16)


def test_the_smoothed_gradient_and_differences_are_those_of_a_bowl():
    bowl, places = Bowl(np.asarray([0.2, 0.7])), np.asarray([[0.5, 0.5], [0.4, 0.9]])
    slope = 2 * (places - bowl.bottom)
    rng = np.random.default_rng(0)
    np.testing.assert_allclose(smoothed_gradient(bowl, places, 8, 0.05, rng), slope, rtol=0.02)
    np.testing.assert_allclose(differences(bowl, places, 0.05), slope, rtol=1e-6)


def test_agreement_counts_only_what_has_a_sign():
    told, slope = np.asarray([[1.0, -1.0]]), np.asarray([[2.0, 3.0]])
    assert agreement_of(told, slope, np.asarray([[True, True]])) == 0.5
    assert agreement_of(told, slope, np.asarray([[True, False]])) == 1.0
    assert agreement_of(told, slope, np.asarray([[False, False]])) == 0.0


@pytest.fixture(scope="module")
def objective(trace: Trace) -> Objective:
    spec = replace(SPEC, num_hidden_layers=4, num_experts=16, top_k=2)
    choice = Choice(eviction="linear", capacity="12", hardware="rtx-3060")
    setup = make_setup(choice)
    return Objective(trace, setup, knobs_of(setup.params), Goal(), spec)


def test_settings_replayed_together_are_settings_replayed_alone(objective: Objective):
    places = np.random.default_rng(0).random((3, 4))
    before = objective.evaluations
    together = objective(places)
    assert objective.evaluations - before == 3
    assert objective(places[1:2])[0] == together[1]
    assert len(set(together.tolist())) > 1


def test_wide_batches_find_what_narrow_ones_do(
    objective: Objective, monkeypatch: pytest.MonkeyPatch
):
    places = np.random.default_rng(1).random((11, 4))
    narrow = objective(places)
    monkeypatch.setattr(objective_module, "WIDE", 8)
    assert objective(places).tolist() == narrow.tolist()


def test_the_surrogate_points_up_the_simulated_time(objective: Objective):
    setup, knobs = objective.setup, objective.knobs
    assert has_surrogate(setup, knobs)
    surrogate = Surrogate(objective.trace, setup, knobs, objective.spec)
    places = np.random.default_rng(5).random((8, 4))
    slope = differences(objective, places, 0.25)
    counted = np.abs(slope) * 0.5 > 0.005 * objective(places).min()
    assert counted.sum() >= 8
    assert agreement_of(surrogate(places), slope, counted) >= 0.75


def test_the_grid_finds_nothing_below_all_its_points(objective: Objective):
    grid = check_grid(objective, points=2)
    assert grid.evaluations == 16 == len(grid.values)
    assert grid.value == grid.values.min()


def test_ttft_needs_a_prefill(trace: Trace, objective: Objective):
    setup, knobs = objective.setup, objective.knobs
    default = places_of(knobs, setup.params)[None]
    goal = Goal("ttft")
    with pytest.raises(InputError, match="needs prefill passes"):
        Objective(trace, setup, knobs, goal, objective.spec)(default)
    prompted = batch_prefill(trace, 8)
    assert Objective(prompted, setup, knobs, goal, objective.spec)(default)[0] > 0


def test_a_strategy_is_read_as_it_was_written(tmp_path: Path):
    choice = Choice(
        eviction="lfu-decay",
        prefetch="previous",
        guard=True,
        scope="layer",
        touch_on_prefetch_insert=False,
        precision=("int8", "int4"),
        params=(("eviction.decay", "0.75"), ("guard.margin", "0.25")),
    )
    setup = make_setup(choice)
    path = tmp_path / "s.json"
    write_strategy(path, setup.strategy, setup.params, setup.precisions, setup.start, {"by": "me"})
    preset = read_strategy(path)
    assert preset.strategy == setup.strategy and preset.precisions == setup.precisions
    again = make_setup(Choice(strategy=str(path)))
    assert again.strategy == setup.strategy and again.params == setup.params
    other = make_setup(Choice(strategy=str(path), params=(("guard.margin", "0.5"),)))
    assert list_params(other.params)["guard.margin"] == 0.5
    plain = make_setup(Choice(strategy=str(path), prefetch="none"))
    assert not plain.strategy.guard and plain.params.guard == ()
    assert json.loads(path.read_text())["about"] == {"by": "me"}
