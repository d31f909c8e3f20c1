"""What all pictures share: the style, a palette that colour-blind readers can tell apart, saving.

Colours are those of Okabe and Ito (2008). A policy has one colour in every picture; what a
picture does not single out is grey.
"""

from collections.abc import Sequence
from contextlib import ContextDecorator
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import rc_context, rc_params_from_file
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from specmd_jax.core.files import replace_file
from specmd_jax.core.printable import printable

STYLE = Path(__file__).with_name("specmd.mplstyle")

BLACK, GREY, PALE = "#222222", "#8c8c8c", "#cfcfcf"
ORANGE, SKY, GREEN, YELLOW = "#e69f00", "#56b4e9", "#009e73", "#f0e442"
BLUE, VERMILION, PURPLE = "#0072b2", "#d55e00", "#cc79a7"

POLICY_COLOURS = {
    "lru": BLUE,
    "lru per layer": SKY,
    "lfu": ORANGE,
    "least-stale": VERMILION,
    "score-based": PURPLE,
    "fld-cyclic": GREEN,
    "belady": BLACK,
}

MILLISECONDS = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000)


def house_style() -> ContextDecorator:
    """Returns the context, or decorator, in which a whole picture is drawn."""
    return rc_context(rc_params_from_file(STYLE, use_default_template=False))


def panels(
    rows: int, columns: int, size: tuple[float, float], **options: Any
) -> tuple[Figure, list[list[Axes]]]:
    """Returns a figure of `size` inches, and its axes row by row."""
    figure = Figure(figsize=size)
    axes = figure.subplots(rows, columns, squeeze=False, **options)
    return figure, [list(row) for row in np.asarray(axes)]


def in_milliseconds(axis: Axes, ends: tuple[float, float]) -> None:
    """Makes both axes logarithmic from one of `ends` to the other, with ticks at 1, 2 and 5."""
    axis.set(xscale="log", yscale="log", xlim=ends, ylim=ends)
    ticks = [tick for tick in MILLISECONDS if ends[0] <= tick <= ends[1]]
    for one in (axis.xaxis, axis.yaxis):
        one.set_major_locator(FixedLocator(ticks))
        one.set_major_formatter(FuncFormatter(lambda tick, _: f"{tick:g}"))
        one.set_minor_locator(NullLocator())


def drawable(text: str) -> str:
    """Returns a text from anywhere as a label: nothing in it acts, and a dollar is a dollar."""
    return printable(text).replace("$", r"\$")


def save_picture(figure: Figure, path: Path) -> None:
    """Writes the figure whole or not at all, with no date: PNG, or SVG or PDF by the suffix."""
    kind = path.suffix.lower().lstrip(".")
    undated = {"svg": {"Date": None}, "pdf": {"CreationDate": None}}
    with replace_file(path) as half:
        if kind in undated:
            figure.savefig(half, format=kind, metadata=undated[kind])
        else:
            figure.savefig(half, format="png", metadata={"Software": None})


def spread(positions: Sequence[float], least: float) -> list[float]:
    """Returns `positions` moved as little as needed to lie `least` apart, in their old order.

    Labels at the ends of lines are placed with it.
    """
    order = np.argsort(positions, kind="stable")
    wanted = np.asarray(positions, float)[order] - least * np.arange(len(positions))
    blocks: list[list[float]] = []  # each the places of labels that touch: they share a mean
    for value in wanted:
        blocks.append([float(value)])
        while len(blocks) > 1 and np.mean(blocks[-2]) > np.mean(blocks[-1]):
            blocks[-2:] = [blocks[-2] + blocks[-1]]
    level = np.concatenate([np.full(len(block), np.mean(block)) for block in blocks])
    placed = np.empty(len(positions))
    placed[order] = level + least * np.arange(len(positions))
    return placed.tolist()
