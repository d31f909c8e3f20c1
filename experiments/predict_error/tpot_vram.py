"""TPOT against the memory budget of the device, strategy by strategy, on recorded traces.

    python -m experiments.predict_error.tpot_vram run     # minutes; goes on where it was stopped
    python -m experiments.predict_error.tpot_vram draw    # seconds; reads what `run` wrote

The budget also holds the weights that stay, a KV cache and a reserve, as `specmd predict` shares it
out. The linear eviction has the weights that `experiments.tuning.run` found for this trace on
another machine and another capacity. Writes tpot_vram.parquet and tpot_vram.png; SIMULATED, but
for the forecast.
"""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import tyro
from matplotlib.axes import Axes
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from experiments.shared.recordings import RECORDED, RESULTS, Rows, finish, load, read_rows, where
from specmd_jax.hardware.capacity import find_model
from specmd_jax.hardware.profiles import get_hardware
from specmd_jax.predict.forecast import decode_time
from specmd_jax.predict.hit_rates import published_locality
from specmd_jax.predict.memory import Question, bytes_for
from specmd_jax.report.plots import (
    BLACK,
    BLUE,
    GREEN,
    GREY,
    SKY,
    VERMILION,
    house_style,
    panels,
    save_picture,
)
from specmd_jax.study.choice import Choice
from specmd_jax.study.metrics import SIMULATED, summarise_result
from specmd_jax.study.run import compare
from specmd_jax.study.setup import make_setup
from specmd_jax.traces import Trace

MACHINE, PRECISION, CONTEXT = "laptop-pcie4-x8", "int4", 1024
ROOM = (0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.65, 0.8, 1.0)  # of all experts
FORECAST = "forecast"
STRATEGIES: dict[str, Choice] = {
    "LRU, one pool": Choice(eviction="lru"),
    "LRU per layer": Choice(eviction="lru", scope="layer"),
    "Least-Stale": Choice(eviction="least-stale"),
    "linear, tuned": Choice(eviction="linear"),
    "Belady": Choice(eviction="belady"),
}
TICKS = (5, 7, 10, 15, 20, 30, 40, 50, 70, 100)  # milliseconds
COLOURS = {
    "LRU, one pool": BLUE,
    "LRU per layer": SKY,
    "Least-Stale": VERMILION,
    "linear, tuned": GREEN,
    "Belady": BLACK,
    FORECAST: GREY,
}
NAMED = ("Least-Stale", "LRU, one pool", "LRU per layer", "linear, tuned", FORECAST, "Belady")


def measure(trace: Trace, model: str, strategy: str, tuned: dict[str, float]) -> Rows:
    """Returns one row for each budget."""
    spec = find_model(trace.provenance.model, trace.shape)
    assert spec is not None
    question = Question(spec, get_hardware(MACHINE), PRECISION, prompt=1, context=CONTEXT)
    slots = sorted({max(spec.top_k, round(share * spec.num_experts)) for share in ROOM})
    about = {"model": model, "strategy": strategy}
    budgets = [bytes_for(question, count) for count in slots]
    if strategy == FORECAST:
        locality = published_locality(spec.num_experts, spec.top_k)
        times = [float(decode_time(question, locality.at(count)).total) for count in slots]
        label = "ESTIMATED"
    else:
        params = tuple((name, str(value)) for name, value in tuned.items())
        choice = replace(
            STRATEGIES[strategy],
            precision=(PRECISION,),
            hardware=MACHINE,
            context=CONTEXT,
            params=params if STRATEGIES[strategy].eviction == "linear" else (),
        )
        setups = [
            make_setup(replace(choice, capacity=str(count * spec.num_moe_layers)))
            for count in slots
        ]
        times = [
            summarise_result(trace, answer)["tpot_s"] for answer in compare(trace, setups, spec)
        ]
        label = SIMULATED
    return [
        about | {"vram_bytes": budget, "slots_per_layer": count, "tpot_s": time, "label": label}
        for budget, count, time in zip(budgets, slots, times, strict=True)
    ]


def tuned_weights(model: str, results: Path) -> dict[str, float]:
    """Returns the weights that `experiments.tuning.run` found for a model's trace."""
    rows = where(read_rows(results / "tuning.parquet"), kind="result", trace=model)
    row = next(one for one in rows if one["x_knob"] == "eviction.w_frequency")
    return {"eviction.w_recency": 0.5, row["x_knob"]: row["x"], row["y_knob"]: row["y"]}


def run_experiment(
    traces: tuple[Path, ...] = RECORDED, passes: int = 256, results: Path = RESULTS
) -> None:
    """Replay each strategy at each budget, and draw.

    Args:
      traces: of any known format, each of another model that `experiments.tuning.run` has tuned on.
      passes: of each trace.
      results: folder of the table and the picture.
    """
    recorded = load(traces, passes)
    parts: dict[str, Callable[[], Rows]] = {
        f"{model}, {name}": partial(measure, trace, model, name, tuned_weights(model, results))
        for model, trace in recorded.items()
        for name in (*STRATEGIES, FORECAST)
    }
    finish(parts, recorded, results / "tpot_vram.parquet")
    draw(results)


def draw(results: Path = RESULTS) -> None:
    """Draw the picture from what `run` kept."""
    draw_budgets(read_rows(results / "tpot_vram.parquet"), results / "tpot_vram.png")


@house_style()
def draw_budgets(rows: Rows, path: Path) -> None:
    """Draws a panel for each model, a line for each strategy."""
    models = list(dict.fromkeys(row["model"] for row in rows))
    figure, axes = panels(1, len(models), (3.7 * len(models), 3.3))
    figure.suptitle(
        f"Time of a token over the memory budget, {MACHINE}, {PRECISION} experts · SIMULATED",
        x=0.01,
        ha="left",
    )
    for model, axis in zip(models, axes[0], strict=True):
        _curves(axis, where(rows, model=model))
        axis.set_title(model)
        axis.set_xlabel("device memory, GB")
    axes[0][0].set_ylabel("TPOT, ms")
    _name(axes[0][0])
    save_picture(figure, path)


def _curves(axis: Axes, rows: Rows) -> None:
    for strategy, colour in COLOURS.items():
        mine = where(rows, strategy=strategy)
        x = np.asarray([row["vram_bytes"] for row in mine]) / 1e9
        y = np.asarray([row["tpot_s"] for row in mine]) * 1e3
        axis.plot(x, y, color=colour, linestyle=":" if strategy == FORECAST else "-")
    axis.set_yscale("log")
    low, high = axis.get_ylim()
    axis.yaxis.set_major_locator(FixedLocator([tick for tick in TICKS if low <= tick <= high]))
    axis.yaxis.set_major_formatter(FuncFormatter(lambda tick, _: f"{tick:g}"))
    axis.yaxis.set_minor_locator(NullLocator())
    axis.grid(axis="y")


def _name(axis: Axes) -> None:
    """Says in the corner that no line crosses which colour is which strategy, slowest first."""
    for number, strategy in enumerate(NAMED):
        name = "forecast, ESTIMATED" if strategy == FORECAST else strategy
        place = (0.99, 0.94 - 0.075 * number)
        axis.annotate(name, place, xycoords="axes fraction", color=COLOURS[strategy], size=7.5,
                      ha="right")  # fmt: skip


if __name__ == "__main__":
    tyro.extras.subcommand_cli_from_dict({"run": run_experiment, "draw": draw})
