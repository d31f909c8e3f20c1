"""The roofline of a device with what `slot_ffn` reaches under it (Williams et al. 2009)."""

from itertools import cycle
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np

matplotlib.use("Agg")
import matplotlib.pyplot as plt

INK, GREY = "#222222", "#9a9a9a"
COLOURS = ("#1b6ca8", "#c8553d", "#3a7d44", "#7b4fa3", "#b8860b")


def draw_roofline(found: dict[str, Any], path: Path) -> None:
    """Draws arithmetic rate over arithmetic intensity.

    Args:
      found: `copy_bytes_per_s` and `dense_flops_per_s` of the device, and rows `ffn` with model,
        tokens, bytes_per_s and flops_per_s.
      path: of the picture.
    """
    memory, peak = found["copy_bytes_per_s"], found["dense_flops_per_s"]
    figure, axes = plt.subplots(figsize=(7, 4.2), layout="constrained")
    points = [(row["flops_per_s"] / row["bytes_per_s"], row) for row in found["ffn"]]
    reach = [intensity for intensity, _ in points] + [peak / memory]
    span = np.geomspace(min(reach) / 3, max(reach) * 3, 200)
    axes.plot(span, np.minimum(span * memory, peak) / 1e12, color=INK, linewidth=1.5)
    axes.annotate(
        f"copy, {memory / 1e9:,.0f} GB/s", (span[12], span[12] * memory / 1e12), color=INK,
        xytext=(8, -2), textcoords="offset points", fontsize=8, ha="left", va="top",
    )  # fmt: skip
    axes.annotate(
        f"dense bf16 product, {peak / 1e12:,.2f} TFLOP/s", (span[-1], peak / 1e12), color=INK,
        xytext=(0, 5), textcoords="offset points", fontsize=8, ha="right",
    )  # fmt: skip
    models = dict.fromkeys(row["model"] for _, row in points)
    for colour, model in zip(cycle(COLOURS), models, strict=False):
        own = [(intensity, row) for intensity, row in points if row["model"] == model]
        rates = [row["flops_per_s"] / 1e12 for _, row in own]
        axes.plot([intensity for intensity, _ in own], rates, "o", color=colour, label=model)
        for (intensity, row), rate in zip(own, rates, strict=True):
            axes.annotate(
                f"{row['tokens']:,}", (intensity, rate), color=GREY, fontsize=7,
                xytext=(5, -9), textcoords="offset points",
            )  # fmt: skip
    axes.set(xscale="log", yscale="log", xlabel="FLOP per byte that must be read or written")
    axes.set_ylabel("TFLOP/s")
    small = "small shapes: shows only that it runs" if found["tiny"] else "tokens beside each point"
    axes.set_title(f"slot_ffn on {found['device']}, MEASURED; {small}", loc="left", fontsize=10)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, fontsize=8, loc="lower right")
    figure.savefig(path, dpi=160)
    plt.close(figure)
