"""Tuned parameters beside a dense grid: six pairs of trace and machine.

    python -m experiments.tuning.run                # half an hour; goes on where it was stopped
    python -m experiments.tuning.run --keep-grids   # minutes; searches anew beside those grids
    python -m experiments.tuning.report             # seconds; draws what `run` wrote

Each pair turns two knobs of one strategy. The grid has 31 x 31 settings; tuning gets a twentieth of
that. Both choose on every second request; the others are held out. Writes tuning.parquet,
tuning.png and tuning.md. All times are SIMULATED.
"""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import tyro

from experiments.shared.recordings import RECORDED, RESULTS, Rows, finish, load, read_rows, where
from experiments.tuning.report import draw
from specmd_jax.core.errors import InputError
from specmd_jax.study.choice import Choice
from specmd_jax.study.setup import Setup, make_setup
from specmd_jax.study.tune import (
    Effort,
    Objective,
    anchors_of,
    check_grid,
    knobs_of,
    search,
    split_requests,
)
from specmd_jax.study.tune.grid_check import GridBest, grid_places
from specmd_jax.study.tune.knobs import values_at
from specmd_jax.study.tune.search import CLEAR, FLAT, agreement_of, smoothed_gradient
from specmd_jax.study.tune.surrogate import Surrogate, has_surrogate
from specmd_jax.traces import Trace

POINTS = 31
BUDGET = POINTS * POINTS // 20
SIGMA = 0.12  # of the smoothing, in shares of a knob's range
SAMPLED = 48  # places at which gradients are compared with the grid's
PAIRS = 8  # antithetic, as many as a step of the search takes from two starts


class Pair(NamedTuple):
    """A trace, a machine and a strategy with two knobs."""

    trace: str  # short name of its model
    hardware: str
    choice: Choice
    knobs: tuple[str, str]

    @property
    def name(self) -> str:
        return f"{self.trace} on {self.hardware}, {make_setup(self.choice).name}"

    def setup(self) -> Setup:
        return make_setup(replace(self.choice, hardware=self.hardware))


def pairs(traces: dict[str, Trace]) -> list[Pair]:
    """Returns what is tuned."""
    linear = Choice(
        eviction="linear",
        capacity="3%",
        precision=("int4",),
        params=(("eviction.w_recency", "0.5"),),
    )
    weights = ("eviction.w_frequency", "eviction.w_nearness")
    return [
        Pair(name, hardware, linear, weights)
        for name in traces
        for hardware in ("rtx-3060", "h100-pcie")
    ]


def tune_pair(trace: Trace, pair: Pair, known: Rows | None = None) -> Rows:
    """Returns the result of one pair, the grid's landscape and the path through it.

    Args:
      known: rows of an earlier run, whose grid is taken; None: the grid is simulated.
    """
    setup = pair.setup()
    train, held_out = split_requests(trace)
    knobs = knobs_of(setup.params, pair.knobs)
    on_train, on_held = (Objective(part, setup, knobs) for part in (train, held_out))
    anchors = anchors_of(setup, knobs)
    surrogate = Surrogate(train, setup, knobs) if has_surrogate(setup, knobs) else None
    found = search(on_train, anchors, Effort(evaluations=BUDGET), surrogate)
    grid = check_grid(on_train, POINTS) if known is None else grid_of(known, pair)
    held = on_held(np.stack([anchors[0], found.place, grid.place]))
    table = grid.values.reshape(POINTS, POINTS)
    about = {
        "pair": pair.name,
        "trace": pair.trace,
        "hardware": pair.hardware,
        "label": "SIMULATED",
    }
    about |= {"x_knob": knobs[0].name, "y_knob": knobs[1].name}
    values = values_at(knobs, found.place)
    result = {
        "kind": "result", "x": float(values[0]), "y": float(values[1]),
        "default": found.default, "tuned": found.value, "grid_best": grid.value,
        "held_default": float(held[0]), "held_tuned": float(held[1]), "held_grid": float(held[2]),
        "evaluations": found.evaluations, "grid_evaluations": grid.evaluations,
        "gradient": found.gradient, "agreement": found.agreement,
        **compare_gradients(table, on_train, surrogate),
    }  # fmt: skip
    rows = [about | result]
    for place, value in zip(values_at(knobs, grid.places), grid.values, strict=True):
        rows.append(about | {"kind": "grid", "x": place[0], "y": place[1], "tuned": value})
    for step in found.path:
        for number, place in enumerate(values_at(knobs, step.centres)):
            point = {"kind": f"path {number}", "x": place[0], "y": place[1], "tuned": step.best}
            rows.append(about | point)
    columns = {name: None for row in rows for name in row}
    return [columns | row for row in rows]


def grid_of(known: Rows, pair: Pair) -> GridBest:
    """Returns the grid of one pair as an earlier run kept it."""
    values = np.asarray([row["tuned"] for row in where(known, pair=pair.name, kind="grid")])
    if len(values) != POINTS**2:
        raise InputError(f"no grid of {POINTS} x {POINTS} for {pair.name}: run the experiment")
    places, best = grid_places(2, POINTS), int(np.argmin(values))
    return GridBest(places[best], float(values[best]), len(places), places, values)


def compare_gradients(
    table: np.ndarray, objective: Objective, surrogate: Surrogate | None
) -> dict[str, float | None]:
    """Returns which share of signs agrees with differences of the grid, smoothed by a Gaussian."""
    places = np.random.default_rng(1).random((SAMPLED, 2))
    smooth = partial(smoothed, table)
    step = 0.5 / (POINTS - 1)
    slope = np.stack(
        [
            (
                smooth(np.clip(places + step * axis, 0, 1))
                - smooth(np.clip(places - step * axis, 0, 1))
            )
            / (2 * step)
            for axis in np.eye(2)
        ],
        axis=1,
    )
    matter = np.abs(slope) * 2 * SIGMA / table.min()  # share of the time that a knob moves
    before = objective.evaluations
    rng = np.random.default_rng(2)
    estimated = smoothed_gradient(objective, places, PAIRS, SIGMA, rng)
    objective.evaluations = before
    told = None if surrogate is None else surrogate(places)
    found: dict[str, float | None] = {}
    for name, least in (("", FLAT), ("_clear", CLEAR)):
        found[f"signed_share{name}"] = float((matter > least).mean())
        found[f"es_agreement{name}"] = agreement_of(estimated, slope, matter > least)
        found[f"surrogate_agreement{name}"] = (
            None if told is None else agreement_of(told, slope, matter > least)
        )
    return found


def smoothed(table: np.ndarray, places: np.ndarray) -> np.ndarray:
    """Returns the grid's objective smoothed by a Gaussian of SIGMA, at places in its range."""
    along = np.linspace(0, 1, len(table))
    weight = [np.exp(-(((places[:, i, None] - along) / SIGMA) ** 2) / 2) for i in range(2)]
    weight = [one / one.sum(axis=1, keepdims=True) for one in weight]
    return np.einsum("bx,by,xy->b", *weight, table)


def run_experiment(
    traces: tuple[Path, ...] = RECORDED,
    passes: int = 128,
    results: Path = RESULTS,
    keep_grids: bool = False,
) -> None:
    """Tune every pair, lay the grid beside it, and draw.

    Args:
      traces: of any known format, each of another model.
      passes: of each trace, both halves together.
      results: folder of the table, the picture and the page.
      keep_grids: search anew beside the grids of an earlier run of the same traces and passes.
    """
    recorded, table = load(traces, passes), results / "tuning.parquet"
    known, again = (read_rows(table), ", again") if keep_grids else (None, "")
    parts: dict[str, Callable[[], Rows]] = {
        f"{pair.name}{again}": partial(tune_pair, recorded[pair.trace], pair, known)
        for pair in pairs(recorded)
    }
    finish(parts, recorded, table)
    draw(results)


if __name__ == "__main__":
    tyro.cli(run_experiment)
