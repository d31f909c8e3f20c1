"""Pictures and page of `run.py`: what prefetching gains or loses over the link."""

from pathlib import Path

import numpy as np
import tyro
from matplotlib.axes import Axes

from experiments.prefetch_guard.plan import RHOS
from experiments.shared.recordings import (
    RESULTS,
    Rows,
    markdown_table,
    read_rows,
    where,
    write_page,
)
from specmd_jax.report.plots import (
    BLUE,
    GREY,
    VERMILION,
    house_style,
    panels,
    save_picture,
)

WAYS = {"unguarded": VERMILION, "guarded": GREY, "tuned": BLUE}
NAMES = {"guarded": "guard, margin 0.1", "tuned": "guard, tuned"}


def write_all(rows: Rows, results: Path) -> None:
    """Writes prefetch_guard.png and prefetch_guard.md into the folder `results`."""
    draw_links(rows, results / "prefetch_guard.png")
    write_page(page(rows), results / "prefetch_guard.md")


@house_style()
def draw_links(rows: Rows, path: Path) -> None:
    """Draws the time saved against rho: a line for each way to prefetch."""
    models = list(dict.fromkeys(row["model"] for row in rows))
    predictors = list(dict.fromkeys(row["predictor"] for row in rows))
    size = (0.8 + 3.0 * len(predictors), 0.6 + 2.5 * len(models))
    figure, axes = panels(len(models), len(predictors), size, sharex=True, sharey="row")
    figure.suptitle(
        "What prefetching saves of a token's time, from starved to idle links · SIMULATED",
        x=0.01,
        ha="left",
    )
    saved = gains(rows)
    for model, line in zip(models, axes, strict=True):
        for predictor, axis in zip(predictors, line, strict=True):
            _lines(axis, {w: [100 * saved[model, predictor, r, w] for r in RHOS] for w in WAYS})
            axis.set_title(f"{model}, {predictor}", size=8.5)
        line[0].set_ylabel("time saved, %")
    for axis in axes[-1]:
        axis.set_xlabel("rho: transfer / compute of a layer")
    _name(axes[0][0])
    save_picture(figure, path)


def _lines(axis: Axes, curves: dict[str, list[float]]) -> None:
    axis.axhline(0, color="#999999", linewidth=0.7)
    for way, curve in curves.items():
        axis.plot(RHOS, curve, color=WAYS[way], marker="o", markersize=2.5)
    axis.set_xscale("log", base=2)
    axis.set_xlim(1.2 * max(RHOS), min(RHOS) / 1.2)  # from starved to idle
    axis.set_xticks(RHOS, [f"{rho:g}" for rho in RHOS])
    axis.minorticks_off()
    axis.grid(axis="y")


def _name(axis: Axes) -> None:
    """Says in the first panel, where no line runs, which colour is which way."""
    for number, (way, colour) in enumerate(WAYS.items()):
        place = (0.97, 0.22 - 0.08 * number)
        axis.annotate(NAMES.get(way, way), place, xycoords="axes fraction", color=colour,
                      size=7.5, ha="right")  # fmt: skip


def page(rows: Rows) -> list[str]:
    """Returns the page: the worst and best of each way, and every figure."""
    saved = gains(rows)
    losing = [key for key, gain in saved.items() if key[3] == "tuned" and gain < -0.01]
    best = max(gain for key, gain in saved.items() if key[3] == "tuned")
    held = (
        "A tuned guard never loses more than 1 %"
        if not losing
        else f"A tuned guard loses more than 1 % in {len(losing)} cases"
    )
    idle = [gain for key, gain in saved.items() if key[2] <= 1 and key[3] == "unguarded"]
    starved = [gain for key, gain in saved.items() if key[2] >= 4 and key[3] == "unguarded"]
    return [
        "# When a prefetch should not fire",
        "",
        "Written by `experiments/prefetch_guard/run.py`. All times are SIMULATED, on requests "
        "that the margin was not tuned on; a saving is a share of the time a token takes "
        "without prefetch.",
        "",
        f"- {held} against no prefetch (worst {100 * worst(rows, 'tuned'):+.2f} %), and saves up "
        f"to {100 * best:.1f} %. With the margin at its default the worst is "
        f"{100 * worst(rows, 'guarded'):+.2f} %, unguarded "
        f"{100 * worst(rows, 'unguarded'):+.2f} %.",
        f"- Unguarded prefetching loses in {_losing(starved)} cases of rho 4 and above, and in "
        f"{_losing(idle)} of rho 1 and below.",
        f"- An oracle of nominal precision 0.8 is right about {_precision(rows)} of what it "
        "fetches.",
        "",
        *markdown_table(
            ["model", "predictor", "rho", *WAYS, "margin", "fetched", "right"],
            [_line(row, saved) for row in where(rows, way="tuned")],
        ),
    ]  # fmt: skip


def _losing(shares: list[float]) -> str:
    return f"{sum(share < 0 for share in shares)} of {len(shares)}"


def _precision(rows: Rows) -> str:
    part = [
        row["prefetch_precision"]
        for row in where(rows, predictor="oracle of precision 0.8", way="unguarded")
        if row["prefetch_precision"] is not None
    ]
    return f"{100 * min(part):.0f} to {100 * max(part):.0f} %" if part else "an unknown share"


def _line(row: dict, saved: dict) -> list[str]:
    key = (row["model"], row["predictor"], row["rho"])
    cells = [f"{100 * saved[(*key, way)]:+.2f} %" for way in WAYS]
    right = row["prefetch_precision"]
    return [
        row["model"], row["predictor"], f"{row['rho']:g}", *cells, f"{row['margin']:.2f}",
        f"{row['prefetched']:,}", "-" if right is None else f"{100 * right:.0f} %",
    ]  # fmt: skip


def gains(rows: Rows) -> dict[tuple[str, str, float, str], float]:
    """Returns the share of the time that each way saves, by model, predictor, rho and way."""
    times = {(r["model"], r["predictor"], r["rho"], r["way"]): r["tpot_s"] for r in rows}
    return {key: 1 - value / times[(*key[:3], "none")] for key, value in times.items()}


def worst(rows: Rows, way: str) -> float:
    """Returns the smallest share that a way of prefetching saves, negative where it loses."""
    return float(np.min([gain for key, gain in gains(rows).items() if key[3] == way]))


def draw(results: Path = RESULTS) -> None:
    """Draw the picture and write the page from what the experiment kept."""
    write_all(read_rows(results / "prefetch_guard.parquet"), results)


if __name__ == "__main__":
    tyro.cli(draw)
