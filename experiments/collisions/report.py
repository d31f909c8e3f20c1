"""Pictures of `run.py`: who misses, how much of it is collision, and in which layers."""

from collections.abc import Callable, Sequence
from pathlib import Path

import tyro
from matplotlib.axes import Axes

from experiments.collisions.page import LAYER_MODEL, page, percent_by_layer
from experiments.shared.recordings import RESULTS, Rows, read_rows, where, write_page
from specmd_jax.report.plots import (
    BLACK,
    PALE,
    POLICY_COLOURS,
    VERMILION,
    house_style,
    panels,
    save_picture,
    spread,
)

BY_LAYER = {
    "lru": POLICY_COLOURS["lru"],
    "score-based": POLICY_COLOURS["score-based"],
    "fld-cyclic": POLICY_COLOURS["fld-cyclic"],
    "least-stale R3": POLICY_COLOURS["least-stale"],
}


def draw_all(rows: Rows, results: Path) -> None:
    """Writes the three pictures and collisions.md into the folder `results`."""
    paper = where(rows, prefetch="oracle 0.9", copies="int4")
    demand = where(rows, prefetch="none", copies="bf16")
    draw_misses(
        paper, ("1%", "5%"), "A predictor of recall 0.9, int4 copies", results / "collisions.png"
    )
    draw_misses(
        demand, ("5%", "25%"), "No prefetch, bf16 copies", results / "collisions_demand.png"
    )
    draw_by_layer(paper, ("1%", "5%"), results / "collisions_by_layer.png")
    write_page(page(rows), results / "collisions.md")


@house_style()
def draw_misses(rows: Rows, shares: Sequence[str], title: str, path: Path) -> None:
    """Draws misses and, within them, collisions by policy: the paper's Figures 4 and 8."""
    models = list(dict.fromkeys(row["model"] for row in rows))
    size = (2.2 + 2.6 * len(models), 0.4 + 3.0 * len(shares))
    figure, axes = panels(len(shares), len(models), size, sharex="row")
    figure.suptitle(f"{title} · SIMULATED", x=0.01, ha="left")
    for share, line in zip(shares, axes, strict=True):
        for model, axis in zip(models, line, strict=True):
            part = where(rows, model=model, share=share)
            _bars(axis, part)
            slots = f"{part[0]['slots']} slots, C/Lk {part[0]['cycles']:.1f}"
            axis.set_title(f"{model}\n{share[:-1]} %: {slots}", size=8.5)
            if axis is not line[0]:
                axis.set_yticklabels([])
    for axis in axes[-1]:
        axis.set_xlabel("misses in 1000 accesses")
    _name_the_bars(axes[0][0], where(rows, model=models[0], share=shares[0])[0])
    save_picture(figure, path)


def _bars(axis: Axes, rows: Rows) -> None:
    places = range(len(rows))
    misses = [1000 * row["misses"] / row["accesses"] for row in rows]
    collisions = [1000 * row["collisions"] / row["accesses"] for row in rows]
    axis.barh(places, misses, color=PALE, height=0.72)
    axis.barh(places, collisions, color=VERMILION, height=0.72)
    for place, row, value in zip(places, rows, misses, strict=True):
        share = 100 * (row["collisions_per_miss"] or 0)
        axis.text(value, place, f" {share:.1f} %", va="center", size=6.5, color=VERMILION)
    axis.set_yticks(places, [row["policy"] for row in rows])
    for label in axis.get_yticklabels():
        if label.get_text().startswith("least-stale"):
            label.set(color=BLACK, weight="bold")
    axis.set_ylim(len(rows) - 0.5, -0.6)
    axis.margins(x=0.16)
    axis.tick_params(axis="y", length=0)
    axis.spines["left"].set_visible(False)


def _name_the_bars(axis: Axes, first: dict) -> None:
    """Writes into the first bar what grey is, and what the red number at its end."""
    end = 1000 * first["misses"] / first["accesses"]
    axis.text(end, 0, "misses, of which collisions:", ha="right", va="center", size=6.5)


@house_style()
def draw_by_layer(rows: Rows, shares: Sequence[str], path: Path) -> None:
    """Draws collisions among the misses of each layer, the paper's Figure 5, and its misses."""
    rows = where(rows, model=LAYER_MODEL) or where(rows, model=rows[0]["model"])
    figure, axes = panels(2, len(shares), (9.6, 5.6), sharey="row", sharex=True)
    about = f"{rows[0]['model']}, a predictor of recall 0.9, int4 copies"
    figure.suptitle(f"Layer by layer: {about} · SIMULATED", x=0.01, ha="left")
    for column, share in enumerate(shares):
        part = [row for row in where(rows, share=share) if row["policy"] in BY_LAYER]
        _curves(axes[0][column], part, percent_by_layer)
        _curves(axes[1][column], part, _misses_by_layer)
        slots = f"{part[0]['slots']} slots, C/Lk {part[0]['cycles']:.1f}"
        axes[0][column].set_title(f"{share[:-1]} % of the bytes: {slots}")
        axes[1][column].set_xlabel("layer")
    axes[0][0].set_ylabel("collisions among misses, %")
    axes[1][0].set_ylabel("misses among accesses, %")
    save_picture(figure, path)


def _curves(axis: Axes, rows: Rows, measure: Callable[[dict], list[float]]) -> None:
    curves = {row["policy"]: measure(row) for row in rows}
    for policy, curve in curves.items():
        axis.plot(curve, color=BY_LAYER[policy], marker="o", markersize=2.5)
    layers = len(next(iter(curves.values())))
    axis.set_ylim(bottom=0)
    axis.set_xlim(-0.5, 1.25 * layers)
    axis.set_xticks(range(0, layers, 3))
    axis.grid(axis="y")
    step = 0.075 * max(1e-9, *(max(curve) for curve in curves.values()))
    places = spread([curve[-1] for curve in curves.values()], step)
    for policy, place in zip(curves, places, strict=True):
        axis.annotate(policy, (layers - 0.6, place), color=BY_LAYER[policy], va="center", size=7.5)


def _misses_by_layer(row: dict) -> list[float]:
    return [100 * (1 - (rate or 0)) for rate in row["hit_rate_by_layer"]]


def draw(results: Path = RESULTS) -> None:
    """Draw the pictures and write the page from what the experiment kept."""
    draw_all(read_rows(results / "collisions.parquet"), results)


if __name__ == "__main__":
    tyro.cli(draw)
