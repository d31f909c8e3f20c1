"""Picture and page of `run.py`: estimated against found, and the errors by kind."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import tyro
from matplotlib.axes import Axes

from experiments.predict_error.bands import band_of, measured
from experiments.shared.recordings import (
    RESULTS,
    ROOT,
    Rows,
    markdown_table,
    read_rows,
    where,
    write_page,
)
from specmd_jax.predict.forecast import ERRORS
from specmd_jax.report.plots import (
    BLUE,
    GREEN,
    ORANGE,
    PURPLE,
    SKY,
    VERMILION,
    house_style,
    in_milliseconds,
    panels,
    save_picture,
)

KINDS = {
    "published": "TPOT, from config.json alone",
    "trace": "TPOT, hits from other requests of the trace",
    "closed form": "TPOT of other strategies, given their hits",
    "closed form, prefetch": "TPOT with prefetch, given hits and foresight",
    "ttft": "TTFT of a cold prompt",
    "measured": "TPOT of the bundled model, given its hits",
}
CENTRED = "ttft"  # always found below the closed form: the forecast takes its median off
COLOURS = (BLUE, VERMILION, GREEN, ORANGE, PURPLE, SKY)


def write_all(rows: Rows, bands: Mapping[str, Mapping[str, Any]], results: Path) -> None:
    """Writes predict_error.png and predict_error.md into the folder `results`."""
    draw_scatter(rows, bands, results / "predict_error.png")
    write_page(page(rows, bands), results / "predict_error.md")


@house_style()
def draw_scatter(rows: Rows, bands: Mapping[str, Mapping[str, Any]], path: Path) -> None:
    """Draws what was found against what was estimated, a panel for each kind, with its band."""
    kinds = [kind for kind in KINDS if kind in bands]
    columns = 3
    lines = -(-len(kinds) // columns)
    figure, axes = panels(lines, columns, (3.3 * columns, 0.5 + 3.1 * lines))
    figure.suptitle("How far off is the forecast?", x=0.01, ha="left")
    rows = [row | {"model": row["model"].split("-it ")[0]} for row in rows]
    models = list(dict.fromkeys(row["model"] for row in rows))
    flat = [axis for line in axes for axis in line]
    for kind, axis in zip(kinds, flat, strict=False):
        _scatter(axis, where(rows, kind=kind), bands[kind], models)
        axis.set_title(f"{KINDS[kind]}\nmedian error {100 * bands[kind]['median_error']:.1f} %",
                       size=8.5)  # fmt: skip
    for axis in flat[len(kinds) :]:
        axis.set_axis_off()
    for number, model in enumerate(models):
        flat[0].annotate(model, (0.04, 0.94 - 0.075 * number), xycoords="axes fraction",
                         color=COLOURS[number % len(COLOURS)], size=7)  # fmt: skip
    save_picture(figure, path)


def _scatter(axis: Axes, rows: Rows, band: Mapping[str, Any], models: list[str]) -> None:
    estimated = np.asarray([row["estimated_s"] for row in rows]) * 1e3
    found = np.asarray([row["found_s"] for row in rows]) * 1e3
    both = np.concatenate([estimated, found])
    ends = np.asarray([both.min() / 1.3, both.max() * 1.3])
    low, high = (band["center"] * band[end] * ends for end in ("low", "high"))
    axis.fill_between(ends, low, high, color="#eeeeee", linewidth=0)
    axis.plot(ends, ends, color="#999999", linewidth=0.7)
    for number, model in enumerate(models):
        mine = [row["model"] == model for row in rows]
        colour = COLOURS[number % len(COLOURS)]
        axis.scatter(estimated[mine], found[mine], s=9, color=colour, alpha=0.65, linewidths=0)
    in_milliseconds(axis, (ends[0], ends[1]))
    axis.set_xlabel("ESTIMATED, ms")
    axis.set_ylabel(f"{rows[0]['against']}, ms")


def page(rows: Rows, bands: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Returns the page: errors by kind, and by model for the forecast from config.json alone."""
    lines = [
        "# How far off the forecast is",
        "",
        "Written by `experiments/predict_error/run.py`; `specmd predict` prints its bands from the "
        "same table. ESTIMATED is the closed form of `specmd_jax/predict/latency.py`; the error is "
        "that of the estimate, relative to what was found.",
        "",
        *markdown_table(
            ["estimate", "against", "runs", "median error", "95 % below", "band"],
            [_line(KINDS.get(kind, kind), band) for kind, band in bands.items()],
        ),
        "",
    ]
    if "measured" not in bands:
        lines += [
            "No MEASURED runs were there when this was written: put the runtime's rows into "
            "`results/runtime_runs.jsonl` and draw again.",
            "",
        ]
    published = where(rows, kind="published")
    traces = list(dict.fromkeys(row["trace"] for row in published))
    lines += [
        "From config.json alone, by trace: the error is that of the hit rate.",
        "",
        *markdown_table(
            ["trace", "model", "median error", "hits, estimated - found, points"],
            [_of_trace(name, where(published, trace=name)) for name in traces],
        ),
    ]
    return lines


def _line(name: str, band: Mapping[str, Any]) -> list[str]:
    errors = [f"{100 * band[key]:.1f} %" for key in ("median_error", "p95_error")]
    ends = f"{band['low']:.2f} .. {band['high']:.2f} x"
    name += "" if band["center"] == 1 else f", closed form x {band['center']:.2f}"
    return [name, band["against"], str(band["runs"]), *errors, ends]


def _of_trace(name: str, rows: Rows) -> list[str]:
    error = [abs(row["estimated_s"] / row["found_s"] - 1) for row in rows]
    off = [100 * (row["estimated_hit_rate"] - row["found_hit_rate"]) for row in rows]
    spread = f"{min(off):+.0f} .. {max(off):+.0f}"
    return [name, rows[0]["model"], f"{100 * float(np.median(error)):.1f} %", spread]


def draw(results: Path = RESULTS) -> None:
    """Draw the picture, write the page and the table from what the experiment kept."""
    rows = read_rows(results / "predict_error.parquet")
    runs = measured(results)
    if not runs:
        print("no runtime_runs.jsonl: the table has no MEASURED rows")
    kinds = list(dict.fromkeys(row["kind"] for row in rows + runs))
    bands = {
        kind: band_of(where(rows + runs, kind=kind), centred=kind == CENTRED) for kind in kinds
    }
    table = {
        "about": "ratios found / estimated, written by experiments/predict_error/run.py; the "
        "estimate is the closed form times `center`",
        "bands": bands,
    }
    if results == RESULTS:
        (ROOT / "specmd_jax" / "predict" / ERRORS).write_text(json.dumps(table, indent=1) + "\n")
    write_all(rows + runs, bands, results)


if __name__ == "__main__":
    tyro.cli(draw)
