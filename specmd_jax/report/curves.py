"""Miss-ratio curves as a table for the terminal and as a picture."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullLocator
from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from specmd_jax.core.quantities import percent
from specmd_jax.core.types import ModelShape
from specmd_jax.report.plots import (
    GREY,
    ORANGE,
    POLICY_COLOURS,
    house_style,
    save_picture,
)

PICTURES = (".png", ".svg", ".pdf")
SHARES = (0.01, 0.02, 0.05, 0.10, 0.15, 0.25, 0.50)  # of all routed experts, in the table
MARKED = (0.01, 0.05, 0.25)  # in the picture
OTHERS = (ORANGE, GREY)  # of policies without a colour of their own, in turn

Record = Mapping[str, Any]


def show_curves(result: Record, console: Console) -> None:
    """Prints each policy's hit rate at some capacities, and what a token touches."""
    shape, records = ModelShape(*result["shape"]), result["curves"]
    slots = _slots(shape)
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style="bold cyan")
    table.add_column("hit rate at", no_wrap=True)
    for share in slots:
        table.add_column(f"{100 * share:g} %", justify="right", no_wrap=True)
    table.add_row("slots", *[Text(f"{count:,}", style="dim") for count in slots.values()])
    for record in records:
        rates = [_hit_rate(record, count) for count in slots.values()]
        table.add_row(Text(record["eviction"]), *[percent(rate) for rate in rates])
    console.print()
    console.print(Padding(Text(_title(records, shape)), (0, 0, 0, 2)))
    console.print(Padding(table, (1, 0, 1, 2), expand=False))
    touched = f"A token touches L x k = {shape.num_layers * shape.top_k:,} experts."
    console.print(Padding(Text(touched, style="dim"), (0, 0, 1, 2)))


def _title(records: Sequence[Record], shape: ModelShape) -> str:
    pool = "one pool" if records[0]["scope"] == "global" else "a pool a layer"
    size = f"{shape.num_layers} x {shape.num_experts} experts, top-{shape.top_k}"
    return f"SIMULATED, {size}, {pool}, on demand, {records[0]['accesses']:,} accesses"


def _slots(shape: ModelShape) -> dict[float, int]:
    whole = shape.num_layers * shape.num_experts
    return {share: max(1, int(share * whole)) for share in SHARES}


def _hit_rate(record: Record, slots: int) -> float | None:
    return record["hits"][slots - 1] / record["accesses"] if record["accesses"] else None


@house_style()
def draw_curves(records: Sequence[Record], shape: ModelShape, path: Path) -> None:
    """Draws the misses of each policy against its share of the experts.

    Args:
      records: of `curve_record`.
      path: .png, .svg or .pdf.
    """
    figure = Figure(figsize=(6.4, 4.2))
    axis = figure.subplots()
    whole = shape.num_layers * shape.num_experts
    others = [record["eviction"] for record in records if record["eviction"] not in POLICY_COLOURS]
    for record in records:
        name = record["eviction"]
        colour = POLICY_COLOURS.get(name) or OTHERS[others.index(name) % len(OTHERS)]
        share = [100 * slots / whole for slots in record["capacity"]]
        misses = [100 * count / max(record["accesses"], 1) for count in record["misses"]]
        axis.plot(share, misses, color=colour, lw=2.0 if name == "belady" else 1.4, label=name)
    axis.set(xscale="log", xlim=(100 / whole, 100), ylim=(0, 100))
    _mark(axis, shape)
    axis.legend(loc="lower left", labelcolor="linecolor", fontsize=8)
    axis.set_xlabel("slots, % of all experts")
    axis.set_ylabel("misses among accesses, %")
    axis.set_title(f"Misses by capacity · {_title(records, shape)}", size=8)
    save_picture(figure, path)


def _mark(axis: Axes, shape: ModelShape) -> None:
    """Marks some capacities, and the one below which a pool cannot hold what a token touches."""
    cliff = 100 * shape.top_k / shape.num_experts
    axis.axvline(cliff, color=GREY, lw=0.8, ls=":", zorder=0)
    axis.text(cliff, 2, "L·k ", size=7.5, color=GREY, ha="right")
    axis.set_xticks([100 * share for share in MARKED] + [100])
    axis.xaxis.set_major_formatter(FuncFormatter(lambda tick, _: f"{tick:g}"))
    axis.xaxis.set_minor_locator(NullLocator())
    axis.grid(axis="x", color="#e6e6e6", lw=0.7)
