"""What `specmd demo` found, as one HTML file that needs nothing else."""

import base64
import io
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from specmd_jax.core.files import replace_file
from specmd_jax.core.printable import printable_prose
from specmd_jax.core.quantities import nbytes, percent, seconds
from specmd_jax.report.plots import GREY, VERMILION, YELLOW, drawable, house_style, panels

STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 3rem auto; padding: 0 1rem;
  color: #222 }
h1 { font-size: 1.7rem; margin-bottom: .3rem } h2 { font-size: 1.2rem; margin-top: 2.2rem }
p.lead { color: #555; margin-top: 0 } img { max-width: 100% }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums }
th, td { text-align: right; white-space: nowrap; padding: .3rem .6rem }
th { font-weight: 600; border-bottom: 2px solid #222 } td { border-bottom: 1px solid #ddd }
th:first-child, td:first-child, th:last-child { text-align: left }
td.text { text-align: left; white-space: normal; width: 100%; color: #555; font-size: .85rem }
.label { background: #009e73; color: #fff; font-size: .75rem; padding: .1rem
  .5rem; border-radius: .3rem; vertical-align: middle } b.differs { color: #b35900 }
"""


def write_demo_page(shown: Mapping[str, Any], path: Path, settings: str) -> None:
    """Writes the page, whole or not at all, and in a comment the `settings` it is of."""
    with replace_file(path) as half:
        half.write_text(f"{_page(shown)}<!-- {settings} -->\n", encoding="utf-8")


def _page(shown: Mapping[str, Any]) -> str:
    whole, *rows = shown["rows"]
    capacities = list(dict.fromkeys(row["capacity"] for row in rows))
    sections = "".join(_section(capacity, rows) for capacity in capacities)
    return f"""<!doctype html>
<html lang="en"><meta charset="utf-8"><title>specmd demo</title><style>{STYLE}</style>
<h1>Experts on the host, strategies side by side <span class="label">MEASURED</span></h1>
<p class="lead">specmd-tiny with {shown["experts"]} experts in host memory, over a link
throttled to {nbytes(shown["link_bytes_per_s"])}/s. With every expert on the device a token takes
{seconds(whole["tpot_s"])}.</p>
<p><b>{_seen(shown["prompt"])}</b>{_seen(whole["text"])}</p>
<img alt="TPOT of each strategy" src="data:image/png;base64,{_picture(rows, whole)}">
{sections}</html>
"""


def _section(capacity: str, rows: Sequence[Mapping[str, Any]]) -> str:
    part = [row for row in rows if row["capacity"] == capacity]
    body = "".join(_line(row) for row in part)
    slots, cycles = part[-1]["capacity_slots"], part[-1]["cycles"]
    return f"""<h2>{capacity}: {slots} slots, {cycles:.1f} &times; what a token touches</h2>
<table><tr><th>strategy<th>hit rate<th>loaded<th>TTFT<th>TPOT<th>stalled<th>text</tr>
{body}</table>"""


def _line(row: Mapping[str, Any]) -> str:
    same = "identical" if row["same_text"] else f"<b class=differs>{_seen(row['text'])}</b>"
    cells = (
        percent(row["hit_rate"]),
        nbytes(row["bytes_loaded"]),
        seconds(row["ttft_s"]),
        seconds(row["tpot_s"]),
        seconds(row["stall_s"]),
    )
    figures = "".join(f"<td>{cell}" for cell in cells)
    return f"<tr><td>{_seen(row['strategy'])}{figures}<td class=text>{same}</tr>\n"


def _seen(text: str) -> str:
    """Returns a text that neither marks up the page nor acts in it."""
    return escape(printable_prose(text))


@house_style()
def _picture(rows: Sequence[Mapping[str, Any]], whole: Mapping[str, Any]) -> str:
    """Returns bars of TPOT as a PNG in base64."""
    capacities = list(dict.fromkeys(row["capacity"] for row in rows))
    figure, ((*axes,),) = panels(1, len(capacities), (9.0, 3.4), sharey=True)
    for ax, capacity in zip(axes, capacities, strict=True):
        part = [row for row in rows if row["capacity"] == capacity][::-1]
        exact = min(row["tpot_s"] for row in part if row["same_text"])
        colours = [
            VERMILION if row["tpot_s"] == exact else GREY if row["same_text"] else YELLOW
            for row in part
        ]
        names = [drawable(row["strategy"]) for row in part]
        bars = ax.barh(names, [1e3 * row["tpot_s"] for row in part], color=colours)
        ax.bar_label(bars, fmt="%.0f", padding=3)
        ax.axvline(1e3 * whole["tpot_s"], color="#222222", linewidth=1, linestyle=":")
        ax.set_title(f"capacity {capacity}")
        ax.set_xlabel("ms a token (TPOT); dotted: all on the device")
        ax.margins(x=0.15)
    figure.suptitle("grey: text identical, red: the fastest of them, yellow: text differs", size=9)
    return _encoded(figure)


def _encoded(figure: Figure) -> str:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", metadata={"Software": None})
    return base64.b64encode(buffer.getvalue()).decode("ascii")
