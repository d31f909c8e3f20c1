"""Rows of the runtime's own runs beside the closed form, and the error bands of all rows."""

import json
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from experiments.shared.recordings import ROOT, Rows
from specmd_jax.hardware.profiles import HardwareProfile, read_profile
from specmd_jax.model_zoo import ModelSpec, from_config
from specmd_jax.predict.latency import pass_parts, pass_time


def measured(results: Path) -> Rows:
    """Returns the runs of the bundled model beside the closed form, given their hits."""
    runs = results / "runtime_runs.jsonl"
    if not runs.exists():
        return []
    spec = from_config(ROOT / "specmd_jax" / "models" / "bundled")
    machine = read_profile(results / "machine.json")
    return [
        _measured_row(json.loads(line), spec, machine)
        for line in runs.read_text().splitlines()
        if line.strip()
    ]


def _measured_row(one: dict[str, Any], spec: ModelSpec, machine: HardwareProfile) -> dict[str, Any]:
    rate = min(machine.h2d_bytes_per_s, float(one["link_bytes_per_s"]))
    machine = replace(machine, h2d_bytes_per_s=rate)
    precision = str(one.get("precision") or "bf16")
    parts = pass_parts(spec, machine, precision, context=int(one.get("context") or 128))
    time = pass_time(parts, spec.num_moe_layers, float(spec.top_k), float(one["hit_rate"]))
    return {
        "kind": "measured",
        "trace": "specmd-tiny",
        "model": "specmd-tiny",
        "hardware": machine.name,
        "strategy": one["strategy"],
        "capacity": str(one["capacity"]),
        "estimated_hit_rate": one["hit_rate"],
        "found_hit_rate": one["hit_rate"],
        "estimated_s": float(time.total),
        "found_s": float(one["tpot_s"]),
        "against": "MEASURED",
    }


def band_of(rows: Iterable[dict[str, Any]], *, centred: bool = False) -> dict[str, Any]:
    """Returns the band that holds 95 % of the rows, and the estimate's errors.

    Args:
      rows: of one kind.
      centred: whether the estimate is the closed form times its median ratio, as TTFT's is; else
        it is the closed form itself, and the band is stretched to hold it.
    """
    chosen = list(rows)
    closed_form = np.asarray([row["found_s"] / row["estimated_s"] for row in chosen])
    center = float(np.median(closed_form)) if centred else 1.0
    ratio = closed_form / center
    error = np.abs(1 / ratio - 1)
    return {
        "center": center,
        "low": min(1.0, float(np.quantile(ratio, 0.025, method="lower"))),
        "high": max(1.0, float(np.quantile(ratio, 0.975, method="higher"))),
        "median_error": float(np.median(error)),
        "p95_error": float(np.quantile(error, 0.95)),
        "runs": len(ratio),
        "against": chosen[0]["against"],
        "scope": _prompts(chosen) if centred else "",
    }


def _prompts(rows: Rows) -> str:
    """Returns what lengths the prompts of TTFT's rows had: their capacity is `64 tokens`."""
    lengths = [int(str(row["capacity"]).split()[0]) for row in rows]
    return f"prompts of {min(lengths)} to {max(lengths)} tokens"
