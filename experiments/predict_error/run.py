"""How far off is the forecast? ESTIMATED beside SIMULATED, and beside MEASURED where it ran.

    python -m experiments.predict_error.run      # minutes; goes on where it was stopped
    python -m experiments.predict_error.report   # seconds; draws what `run` wrote

Writes predict_error.parquet, predict_error.png and predict_error.md, and the error table that
`specmd predict` takes its band from, specmd_jax/predict/forecast_errors.json. MEASURED rows are
read from runtime_runs.jsonl, one JSON object a run of the bundled model: strategy, capacity,
precision, link_bytes_per_s, hit_rate, tpot_s; the machine is machine.json, a profile of `specmd
calibrate`.
"""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import tyro

from experiments.predict_error.report import draw
from experiments.shared.recordings import (
    RECORDINGS,
    RESULTS,
    Rows,
    finish,
    sample,
    short_name,
)
from specmd_jax.hardware.capacity import find_model
from specmd_jax.model_zoo import MODELS, ModelSpec
from specmd_jax.predict.forecast import decode_time, prefill_time
from specmd_jax.predict.hit_rates import Locality, published_locality, trace_locality
from specmd_jax.predict.latency import Foresight, pass_parts, pass_time
from specmd_jax.predict.memory import Question
from specmd_jax.study.choice import Choice
from specmd_jax.study.metrics import SIMULATED, summarise_result
from specmd_jax.study.run import RunResult, compare
from specmd_jax.study.setup import Setup, make_setup
from specmd_jax.study.tune import split_requests
from specmd_jax.traces import Trace, batch_prefill, import_trace, slice_passes, slice_requests

TRACES = tuple(
    RECORDINGS / "traces" / name
    for name in (
        "olmoe-sampled",
        "deepseek-v2-lite-intent",
        "gpt-oss-20b",
        "deepseek-v2-lite-workloads",
        "olmoe-workloads",
        "gemma-4-26b-a4b-phone",
    )
)
MACHINES = ("laptop-pcie4-x8", "rtx-3060", "rtx-4090", "h100-pcie")
ROOM = (0.15, 0.25, 0.4, 0.6, 0.8)  # of a layer's experts
PRECISION = "int4"
CONTEXT = 1024
PROMPTS = (32, 64, 128)
REQUESTS = 4
OTHERS: dict[str, Choice] = {  # strategies that the closed form is given the hits of
    "lru, one pool": Choice(eviction="lru", scope="global"),
    "lfu": Choice(eviction="lfu", scope="layer"),
    "lru + oracle of precision 0.8": Choice(
        eviction="lru",
        scope="layer",
        prefetch="noisy-oracle",
        params=(("prefetch.recall", "0.8"), ("prefetch.precision", "0.8")),
    ),
}


def setups(choice: Choice, spec: ModelSpec) -> list[Setup]:
    """Returns one configuration for each machine and each room for experts."""
    slots = sorted({max(spec.top_k, round(share * spec.num_experts)) for share in ROOM})
    return [
        make_setup(
            replace(
                choice,
                capacity=f"{count}/layer",
                precision=(PRECISION,),
                hardware=name,
                context=CONTEXT,
            )
        )
        for name in MACHINES
        for count in slots
    ]


def row_of(
    kind: str, name: str, trace: Trace, answer: RunResult, hits: float, estimated: float
) -> dict[str, Any]:
    """Returns one row: what was estimated, and what the simulator says."""
    summary = summarise_result(trace, answer)
    assert answer.setup.hardware is not None
    return {
        "kind": kind,
        "trace": name,
        "model": short_name(trace.provenance.model),
        "hardware": answer.setup.hardware.name,
        "strategy": answer.setup.name,
        "capacity": answer.setup.capacity,
        "estimated_hit_rate": hits,
        "found_hit_rate": summary["hit_rate"],
        "estimated_s": estimated,
        "found_s": summary["tpot_s"],
        "against": SIMULATED,
    }


def forecasts(trace: Trace, name: str) -> Rows:
    """Returns TPOT of the forecast's own strategy, with hits of other requests and as published."""
    spec = model_of(trace)
    other, trace = split_requests(trace)
    answers = compare(trace, setups(Choice(eviction="lru", scope="layer"), spec), spec)
    known: dict[str, Locality] = {
        "trace": trace_locality(other, name),
        "published": published_locality(spec.num_experts, spec.top_k),
    }
    rows = []
    for answer in answers:
        assert answer.setup.hardware is not None
        question = Question(spec, answer.setup.hardware, PRECISION, prompt=1, context=CONTEXT + 1)
        for kind, locality in known.items():
            hits = locality.at(answer.capacity.slots / spec.num_moe_layers)
            estimated = float(decode_time(question, hits).total)
            rows.append(row_of(kind, name, trace, answer, hits, estimated))
    return rows


def closed_form(trace: Trace, name: str) -> Rows:
    """Returns TPOT of other strategies, the closed form being given their hits and foresight."""
    spec, rows = model_of(trace), []
    for choice in OTHERS.values():
        answers = compare(trace, setups(choice, spec), spec)
        plain = compare(trace, setups(replace(choice, prefetch="none", params=()), spec), spec)
        for answer, without in zip(answers, plain, strict=True):
            hits = summarise_result(trace, without)["hit_rate"]
            foresight = foresight_of(summarise_result(trace, answer), hits)
            assert answer.setup.hardware is not None
            parts = pass_parts(spec, answer.setup.hardware, PRECISION, context=CONTEXT + 1)
            time = pass_time(parts, spec.num_moe_layers, float(spec.top_k), hits, foresight)
            kind = "closed form" if choice.prefetch is None else "closed form, prefetch"
            rows.append(row_of(kind, name, trace, answer, hits, float(time.total)))
    return rows


def foresight_of(summary: dict[str, Any], hits: float) -> Foresight | None:
    """Returns how good a prefetcher was on what it really fetched."""
    if not summary["prefetched"]:
        return None
    precision = summary["prefetch_precision"]
    misses = (1 - hits) * summary["accesses"]
    return Foresight(min(1.0, summary["prefetch_queued"] * precision / misses), precision)


def prompts(trace: Trace, name: str) -> Rows:
    """Returns the TTFT of single prompts through an empty cache."""
    spec, rows = model_of(trace), []
    locality = published_locality(spec.num_experts, spec.top_k)
    long_enough = [
        int(request)
        for request, tokens in zip(*np.unique(trace.request, return_counts=True), strict=True)
        if tokens >= max(PROMPTS)
    ]
    for request in long_enough[:: max(1, len(long_enough) // REQUESTS)][:REQUESTS]:
        for length in PROMPTS:
            prompt = slice_passes(batch_prefill(slice_requests(trace, [request]), length), 0, 1)
            wanted = [
                replace(setup, context=0)
                for setup in setups(Choice(eviction="lru", scope="layer"), spec)[:: len(ROOM)]
            ]
            for answer in compare(prompt, wanted, spec):
                assert answer.setup.hardware is not None
                question = Question(spec, answer.setup.hardware, PRECISION, length, length)
                estimated = float(prefill_time(question, locality).total)
                row = row_of("ttft", name, prompt, answer, 0.0, estimated)
                found = summarise_result(prompt, answer)["ttft_s"]
                rows.append(row | {"found_s": found, "capacity": f"{length} tokens"})
    return rows


def model_of(trace: Trace) -> ModelSpec:
    """Returns the trace's model: the zoo's of that name, else the first of that shape."""
    alike = (spec for spec in MODELS.values() if spec.shape[:2] == trace.shape[:2])
    spec = find_model(trace.provenance.model, trace.shape) or next(alike)
    return replace(spec, top_k=trace.shape.top_k)


def run_experiment(
    traces: tuple[Path, ...] = TRACES, passes: int = 320, results: Path = RESULTS
) -> None:
    """Compare, draw, and write the table that `specmd predict` reads.

    Args:
      traces: of any known format.
      passes: of each trace.
      results: folder of the table, the picture and the page.
    """
    recorded = {path.name: sample(import_trace(path), passes) for path in traces}
    whole = {path.name: import_trace(path) for path in traces[:3]}
    parts: dict[str, Callable[[], Rows]] = {}
    for name, trace in recorded.items():
        parts[f"forecasts, {name}"] = partial(forecasts, trace, name)
    for name, trace in whole.items():
        parts[f"prompts, {name}"] = partial(prompts, trace, name)
    for name in whole:
        parts[f"closed form, {name}"] = partial(closed_form, recorded[name], name)
    finish(parts, recorded, results / "predict_error.parquet")
    draw(results)


if __name__ == "__main__":
    tyro.cli(run_experiment)
