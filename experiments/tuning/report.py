"""Pictures and page of `run.py`: the landscapes with the path of the search, and the gaps."""

from pathlib import Path

import numpy as np
import tyro
from matplotlib.axes import Axes

from experiments.shared.recordings import (
    RESULTS,
    Rows,
    markdown_table,
    read_rows,
    where,
    write_page,
)
from specmd_jax.report.plots import BLACK, VERMILION, house_style, panels, save_picture

SHORT = {
    "eviction.w_frequency": "weight of frequency",
    "eviction.w_nearness": "weight of nearness",
}
COLUMNS = 3


def write_all(rows: Rows, results: Path) -> None:
    """Writes tuning.png and tuning.md into the folder `results`."""
    draw_landscapes(rows, results / "tuning.png")
    write_page(page(rows), results / "tuning.md")


@house_style()
def draw_landscapes(rows: Rows, path: Path) -> None:
    """Draws the objective of each pair over its two knobs, and where the search went."""
    results = where(rows, kind="result")
    lines = -(-len(results) // COLUMNS)
    figure, axes = panels(lines, COLUMNS, (2.75 * COLUMNS, 0.5 + 2.6 * lines))
    figure.suptitle(
        "Time of a token over two parameters, and the way the search took · SIMULATED",
        x=0.01,
        ha="left",
    )
    flat = [axis for line in axes for axis in line]
    for result, axis in zip(results, flat, strict=False):
        _landscape(axis, where(rows, pair=result["pair"]), result)
    for axis in flat[len(results) :]:
        axis.set_axis_off()
    _name(flat[0])
    save_picture(figure, path)


def _landscape(axis: Axes, rows: Rows, result: dict) -> None:
    grid = where(rows, kind="grid")
    side = round(len(grid) ** 0.5)
    x, y, value = (
        np.asarray([row[name] for row in grid]).reshape(side, side) for name in ("x", "y", "tuned")
    )
    above = 100 * (value / value.min() - 1)  # percent
    levels = np.quantile(above, np.linspace(0, 1, 13))
    levels = np.unique(np.round(levels, 6))
    axis.contourf(x, y, above, levels=levels, cmap="Blues")
    best = np.unravel_index(np.argmin(value), value.shape)
    kinds = sorted({row["kind"] for row in rows if row["kind"].startswith("path")})
    for kind in kinds:
        way = where(rows, kind=kind)
        places = [(row["x"], row["y"]) for row in way]
        axis.plot(*zip(*places, strict=True), color=BLACK, linewidth=0.9)
        axis.plot(*places[0], "o", color=BLACK, markersize=2.6)
    axis.plot(x[best], y[best], "o", color="white", markersize=7, markeredgecolor=BLACK)
    axis.plot(result["x"], result["y"], "*", color=VERMILION, markersize=9)
    gap = 100 * (result["held_tuned"] / result["held_grid"] - 1)
    axis.set_title(f"{result['trace']}\n{result['hardware']}, gap {gap:+.1f} %", size=8)
    axis.annotate(f"worst: +{above.max():.0f} %", (0.04, 0.05), xycoords="axes fraction",
                  color="white", size=7)  # fmt: skip
    axis.set_xlabel(SHORT[result["x_knob"]])
    axis.set_ylabel(SHORT[result["y_knob"]])


def _name(axis: Axes) -> None:
    """Says in the first panel what the marks are."""
    marks = (("start", BLACK), ("tuned", VERMILION), ("grid's best", "white"))
    for number, (name, colour) in enumerate(marks):
        place = (0.05, 0.94 - 0.075 * number)
        (shown,) = axis.plot(*place, "o", color=colour, transform=axis.transAxes)
        shown.set_marker("*" if name == "tuned" else "o")
        shown.set_markersize({"start": 2.6, "tuned": 9, "grid's best": 7}[name])
        shown.set_markeredgecolor(VERMILION if name == "tuned" else BLACK)
        axis.annotate(name, (place[0] + 0.05, place[1]), xycoords="axes fraction", size=7,
                      va="center")  # fmt: skip


def page(rows: Rows) -> list[str]:
    """Returns the page: the gap to the grid, pair by pair, and how good gradients were."""
    results = where(rows, kind="result")
    gaps = [result["held_tuned"] / result["held_grid"] - 1 for result in results]
    near = sum(gap <= 0.01 for gap in gaps)
    share = results[0]["evaluations"] / results[0]["grid_evaluations"]
    led = [_led_by(result) for result in results]
    signs = {
        name: [r[name] for r in results if r[name] is not None]
        for name in results[0]
        if "_agreement" in name
    }
    return [
        "# Tuned parameters beside a dense grid",
        "",
        "Written by `experiments/tuning/run.py`. All times are SIMULATED, in milliseconds a token, "
        "on requests that neither search nor grid had seen.",
        "",
        f"- On {near} of {len(results)} pairs tuning is within 1 % of what the grid's best setting "
        f"comes to on held-out requests, with {share:.1%} of its simulations; the largest gap is "
        f"{100 * max(gaps):+.2f} %, the median {100 * float(np.median(gaps)):+.2f} %.",
        "- Signs that agree with differences of the objective, smoothed by a Gaussian over an "
        "eighth of each range, at 48 places: where a knob moves the time by 1 % or more, surrogate "
        f"{_range(signs['surrogate_agreement_clear'])}, evolution strategies with eight antithetic "
        f"pairs {_range(signs['es_agreement_clear'])}; where it moves it by 0.1 % or more, "
        f"{_range(signs['surrogate_agreement'])} and {_range(signs['es_agreement'])}.",
        "- Of the gradient that led the search, the surrogate where it could be trusted and "
        f"evolution strategies elsewhere: {_range(led)} where a knob clearly matters.",
        "",
        *markdown_table(
            ["pair", "default", "tuned", "grid's best", "gap", "led by", "signs right"],
            [_line(result, gap) for result, gap in zip(results, gaps, strict=True)],
        ),
        "",
        "A gap below zero means that the setting found does better on the held-out requests than "
        "the one that is best on the others. Signs right, where they are clear: of the "
        "surrogate, then of evolution strategies. Picture: `tuning.png`; white the grid's best, "
        "red what tuning chose, black the ways of the search; the darker the slower.",
    ]


def _line(result: dict, gap: float) -> list[str]:
    told = result["surrogate_agreement_clear"]
    signs = f"{100 * result['es_agreement_clear']:.0f} %"
    if told is not None:
        signs = f"{100 * told:.0f} %, {signs}"
    times = [f"{1e3 * result[f'held_{name}']:.3f}" for name in ("default", "tuned", "grid")]
    return [result["pair"], *times, f"{100 * gap:+.2f} %", result["gradient"], signs]


def _led_by(result: dict) -> float:
    """Returns the share of right signs, where they are clear, of the gradient that was followed."""
    kind = "surrogate" if result["gradient"] == "surrogate" else "es"
    return result[f"{kind}_agreement_clear"]


def _range(shares: list[float]) -> str:
    if not shares:
        return "(none)"
    low, high = 100 * min(shares), 100 * max(shares)
    return f"{low:.0f} to {high:.0f} % (mean {100 * float(np.mean(shares)):.0f} %)"


def draw(results: Path = RESULTS) -> None:
    """Draw the landscapes and write the page from what the experiment kept."""
    write_all(read_rows(results / "tuning.parquet"), results)


if __name__ == "__main__":
    tyro.cli(draw)
