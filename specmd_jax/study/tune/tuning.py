"""One tuning from end to end: search on half of the requests, judge on the other half."""

from collections.abc import Callable
from typing import Any

import numpy as np
from jaxtyping import Float

from specmd_jax.model_zoo import ModelSpec
from specmd_jax.study.metrics import OPEN_LOOP, SIMULATED
from specmd_jax.study.setup import Setup
from specmd_jax.study.tune.grid_check import check_grid
from specmd_jax.study.tune.knobs import Knob, places_of, values_at
from specmd_jax.study.tune.objective import Goal, Objective, split_requests
from specmd_jax.study.tune.search import Effort, Found, search
from specmd_jax.study.tune.surrogate import Surrogate, has_surrogate
from specmd_jax.traces import Trace, slice_passes

MOST_PASSES = 1024
TRAIN, HELD_OUT = "train", "held_out"


def tune(
    trace: Trace,
    setup: Setup,
    knobs: tuple[Knob, ...],
    goal: Goal,
    effort: Effort,
    spec: ModelSpec | None = None,
    with_grid: bool = False,
    on_progress: Callable[[float], None] = lambda share: None,
) -> dict[str, Any]:
    """Returns what tuning came to, ready for JSON; objectives are in seconds.

    Args:
      knobs: what is turned; the rest of `setup` stays.
      goal: what is to fall, and at which prices.
      effort: simulations that may be spent.
      spec: the model, for sizes and times.
      with_grid: whether a dense grid is simulated too, to compare with.
      on_progress: called with the share of the work that is done.

    Raises:
      InputError: the trace cannot be split, or has no pass of the kind that is timed.
    """
    train, held_out = (_shortened(part) for part in split_requests(trace))
    on_train, on_held = (Objective(part, setup, knobs, goal, spec) for part in (train, held_out))
    anchors = anchors_of(setup, knobs)
    default = anchors[0]
    surrogate = Surrogate(train, setup, knobs, spec) if has_surrogate(setup, knobs) else None
    found = search(on_train, anchors, effort, surrogate, on_progress)
    grid = check_grid(on_train) if with_grid else None
    judged = on_held(np.stack([default, found.place, found.place if grid is None else grid.place]))
    record: dict[str, Any] = {
        "model": trace.provenance.model or None,
        "strategy": setup.name,
        "hardware": None if setup.hardware is None else setup.hardware.name,
        "capacity": setup.capacity,
        "label": SIMULATED,
        "open_loop": setup.strategy.open_loop,
        "objective": goal.what,
        "quality_price": goal.quality_price,
        "bytes_price": goal.bytes_price,
        "objective_default": {TRAIN: found.default, HELD_OUT: float(judged[0])},
        "objective_tuned": {TRAIN: found.value, HELD_OUT: float(judged[1])},
        "evaluations": found.evaluations,
        "gradient": found.gradient,
        "gradient_agreement": found.agreement,
        "passes": {TRAIN: train.num_passes, HELD_OUT: held_out.num_passes},
        "knobs": _turned(knobs, default, found.place),
    }
    if grid is not None:
        record["grid_best"] = {TRAIN: grid.value, HELD_OUT: float(judged[2])}
        record["grid_evaluations"] = grid.evaluations
    left_out = trace.num_passes - train.num_passes - held_out.num_passes
    return record | {"warnings": _warnings(record, found, left_out)}


def _turned(
    knobs: tuple[Knob, ...], default: np.ndarray, place: np.ndarray
) -> dict[str, dict[str, float]]:
    """Returns from which value each knob was turned to which, and how far it goes."""
    before, after = values_at(knobs, default), values_at(knobs, place)
    return {
        knob.name: {
            "default": float(before[i]),
            "tuned": float(after[i]),
            "low": knob.low,
            "high": knob.high,
        }
        for i, knob in enumerate(knobs)
    }


def _shortened(trace: Trace) -> Trace:
    """Returns the first passes, as many as are worth replaying a hundred times."""
    return slice_passes(trace, 0, MOST_PASSES) if trace.num_passes > MOST_PASSES else trace


def anchors_of(setup: Setup, knobs: tuple[Knob, ...]) -> Float[np.ndarray, "A D"]:
    """Returns the defaults and, where there is a guard to turn, the defaults without prefetch."""
    default = places_of(knobs, setup.params)
    shut = default.copy()
    for number, knob in enumerate(knobs):
        if knob.name == "guard.margin":
            shut[number] = 1.0
    return np.stack([default, shut]) if (shut != default).any() else default[None]


def _warnings(record: dict[str, Any], found: Found, left_out: int) -> list[str]:
    notes = []
    if left_out > 0:
        notes.append(
            f"{left_out:,} passes are left out: {MOST_PASSES:,} at most are tuned or judged on"
        )
    if record["open_loop"]:
        notes.append(
            f"{OPEN_LOOP}: the objectives are raised by {record['quality_price']:g} times the "
            "share of the demand that is served otherwise than routed, which stands in for "
            "quality; only a run of the model knows that"
        )
    if found.agreement is not None and found.gradient != "surrogate":
        notes.append(
            f"the surrogate gradient is useless here (it is right about {found.agreement:.0%} of "
            "neighbouring settings): evolution strategies did the search"
        )
    if found.agreement is None:
        notes.append("these parameters have no surrogate: evolution strategies did the search")
    held = {name: record[f"objective_{name}"][HELD_OUT] for name in ("default", "tuned")}
    if held["tuned"] > held["default"]:
        notes.append(
            f"tuned is {held['tuned'] / held['default'] - 1:.1%} slower than the defaults on the "
            "held-out requests: it fits the others only, so keep the defaults or tune on more"
        )
    return notes
