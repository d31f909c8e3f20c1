"""Everything that only an accelerator can tell, in one run of under ten minutes.

    python -m experiments.speed.gpu_check --trace olmoe.st      # on a GPU
    python -m experiments.speed.gpu_check --tiny                # anywhere, to see that it runs

Measures the link, whether a copy hides behind computing, what committing a copy to a slot costs,
OLMoE-1B-7B's shape in replay mode at 1, 5 and 25 % beside the simulator, the runtime's experts by
the kernel and by XLA, the simulator's own speed, the kernels, and the same shape offloaded by
transformers and accelerate where they are installed. Each part is written as soon as it is
measured: gpu_check.json and gpu_check.md.
"""

import json
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import tyro

from experiments.shared.recordings import RESULTS, measured_on, write_page
from experiments.speed import gpu_kernels
from experiments.speed.gpu_peers import accelerate_tpot
from specmd_jax.bench.simulator import bench_simulator
from specmd_jax.hardware.probe import Effort, measure, median_s
from specmd_jax.model_zoo import ModelSpec, get_model
from specmd_jax.runtime.offload.slots import Slots
from specmd_jax.runtime.offload.store import device_sharding, host_sharding
from specmd_jax.runtime.runs.trace_replay import (
    open_forced,
    replay_passes,
    summarise_replay,
    time_passes,
)
from specmd_jax.study.choice import Choice
from specmd_jax.study.run import compare as simulate
from specmd_jax.study.setup import make_setup
from specmd_jax.traces import Trace, import_trace, slice_passes
from specmd_jax.traces.synthetic.generator import SyntheticSpec, generate
from specmd_kernels import preferred

MODEL = "olmoe-1b-7b-0924"
CAPACITIES = ("1%", "5%", "25%")
STRATEGIES = {
    "lru": Choice(eviction="lru"),
    "least-stale": Choice(eviction="least-stale"),
    "least-stale + transition": Choice(eviction="least-stale", prefetch="transition"),
}


@dataclass(frozen=True)
class Options:
    """What is measured."""

    trace: Path | None = None  # of OLMoE; None: a synthetic one
    passes: int = 64
    tiny: bool = False
    output: Path = RESULTS


def link(options: Options) -> dict[str, Any]:
    """Bandwidth and latency by size and kind of source, and the machine as a profile."""
    effort = Effort((1 << 16, 1 << 18), 1 << 22, 128, 2) if options.tiny else Effort()
    profile, about = measure(effort)
    return {"profile": profile.name, "h2d_bytes_per_s": profile.h2d_bytes_per_s} | about


def overlap(options: Options) -> dict[str, Any]:
    """A copy and a product, each alone and the copy issued before the product."""
    size = 1 << (20 if options.tiny else 28)
    side = 256 if options.tiny else 8192
    there = jax.block_until_ready(_on_host(np.ones(size, np.uint8)))
    matrix = jnp.ones((side, side), jnp.bfloat16)
    product = jax.jit(jnp.matmul)
    copy = partial(jax.device_put, there, device_sharding())
    compute = partial(product, matrix, matrix)
    alone = {"copy_s": _median_s(copy), "compute_s": _median_s(compute)}
    first, behind = _median_s(lambda: (copy(), compute())), _median_s(lambda: (compute(), copy()))
    hidden = (sum(alone.values()) - first) / min(alone.values())
    return alone | {"put_first_s": first, "put_behind_s": behind, "hidden_share": hidden}


def commit(options: Options) -> dict[str, Any]:
    """What writing one arrived expert into its slot costs, in place."""
    model = _forced(options, "5%", STRATEGIES["lru"])
    packing = model.store.packings[0]
    before = _in_use()
    slots = Slots(8, (1, 8), model.store.packings)
    allocated = _in_use() - before
    slots.hold(np.zeros((1, 8), np.int8))
    row = jax.device_put(model.store[0, 0, 0], device_sharding())

    def write() -> Any:
        slots.fill(0, 3, row)
        with slots.reading() as weights:
            return weights

    seconds = _median_s(write)
    model.close()
    budget = {"budget_bytes": slots.nbytes, "allocated_bytes": allocated}
    return {"expert_bytes": packing.nbytes, "commit_s": seconds} | budget


def replay(options: Options) -> dict[str, Any]:
    """OLMoE's shape over the real link, beside what the simulator says of this machine."""
    profile, _ = measure(Effort((1 << 16, 1 << 20), 1 << 24, 256, 3) if options.tiny else Effort())
    trace, spec, rows = _trace(options), _spec(options), []
    base = _forced(options, "100%", STRATEGIES["lru"])
    seconds, _ = time_passes(base, trace)
    base.close()
    layer_s = float(np.median(seconds)) / spec.num_moe_layers
    machine = replace(profile, layer_s=layer_s)
    for capacity in CAPACITIES:
        for name, choice in STRATEGIES.items():
            model = _forced(options, capacity, choice)
            row = summarise_replay(model, trace, *time_passes(model, trace))
            setup = replace(model.setup, hardware=machine, with_scales=True)
            model.close()
            sized = replace(trace, expert_bytes=model.store.copy_bytes[:, 0])
            (said,) = simulate(sized, [setup], spec)
            assert said.tally.times is not None and said.tick_s is not None
            ticks = np.asarray(said.tally.times.ticks, np.float64) * said.tick_s
            kept = ("ttft_s", "tpot_s", "hit_rate", "stall_s", "bytes_loaded", "link_busy_share")
            row = {key: row[key] for key in kept} | {"simulated_mean_pass_s": float(ticks.mean())}
            rows.append({"strategy": name, "capacity": capacity, "layer_s": layer_s} | row)
    return {"rows": rows}


def experts(options: Options) -> dict[str, Any]:
    """The runtime with every expert in a slot: computed by the kernel, and by XLA's blocks."""
    trace, setup, rows = _trace(options), make_setup(Choice(capacity="100%")), []
    logits: list[np.ndarray] = []
    for implementation in (preferred() or "interpret", "xla"):
        model = open_forced(_spec(options), setup, "bfloat16", None, implementation)
        seconds, _ = time_passes(model, trace)
        model.reset()
        *_, (_, done) = replay_passes(model, trace)
        logits.append(np.asarray(done.logits, np.float32))
        model.close()
        rows.append({"experts by": implementation, "pass_s": float(np.median(seconds))})
    apart = np.abs(logits[0] - logits[1]).max() / np.abs(logits[1]).max()
    return {"rows": [row | {"logits_apart": float(apart)} for row in rows]}


def simulator(options: Options) -> dict[str, Any]:
    """Accesses a second on this device."""
    configs = (1, 16) if options.tiny else (256, 4096)
    rows = bench_simulator(("lru", "least-stale"), configs, lambda row: None)
    return {"rows": [row._asdict() for row in rows if row.engine == "specmd"]}


def kernels(options: Options) -> dict[str, Any]:
    """See gpu_kernels.py."""
    asked = gpu_kernels.Options(tiny=options.tiny)
    if options.tiny:
        asked = replace(asked, decode=(1,), prefill=(64,), configurations=2, passes=8, turns=1)
    return gpu_kernels.measure(asked)


def peers(options: Options) -> dict[str, Any]:
    """The same shape offloaded by transformers and accelerate on this machine."""
    return accelerate_tpot(_spec(options), tiny=options.tiny)


PARTS: dict[str, Callable[[Options], dict[str, Any]]] = {
    "link": link,
    "overlap": overlap,
    "commit": commit,
    "replay": replay,
    "experts": experts,
    "simulator": simulator,
    "kernels": kernels,
    "peers": peers,
}


def main(options: Options) -> None:
    """Runs every part; one that fails is told and does not stop the others."""
    found: dict[str, Any] = {"label": "MEASURED", "device": jax.devices()[0].device_kind}
    found |= measured_on() | {"tiny": options.tiny, "jax": jax.__version__}
    options.output.mkdir(parents=True, exist_ok=True)
    for name, part in PARTS.items():
        begun = time.perf_counter()
        try:
            found[name] = part(options)
        except Exception as error:
            found[name] = {"failed": f"{type(error).__name__}: {error}"[:500]}
            traceback.print_exc()
        found[name]["seconds"] = round(time.perf_counter() - begun, 1)
        print(f"{name}: {found[name]['seconds']} s")
        (options.output / "gpu_check.json").write_text(json.dumps(found, indent=1) + "\n")
    write_page(_page(found), options.output / "gpu_check.md")


def _page(found: dict[str, Any]) -> list[str]:
    small = " (tiny shapes: this only shows that it runs)" if found["tiny"] else ""
    lines = [
        f"# What only an accelerator can tell{small}",
        "",
        f"MEASURED {found['date']} on {found['device']}, jax {found['jax']}, commit "
        f"{found['commit']}, by `python -m experiments.speed.gpu_check`.",
    ]
    for name in PARTS:
        lines += ["", f"## {name}", ""]
        values = found[name]
        rows = values.get("rows")
        if rows:
            lines += ["| " + " | ".join(rows[0]) + " |", "|" + "---|" * len(rows[0])]
            lines += ["| " + " | ".join(map(_cell, row.values())) + " |" for row in rows]
        else:
            lines += [f"- {key}: {_cell(value)}" for key, value in values.items()]
    return lines


def _cell(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _spec(options: Options) -> ModelSpec:
    spec = get_model(MODEL)
    if not options.tiny:
        return spec
    small = {"num_hidden_layers": 2, "num_experts": 8, "top_k": 2, "hidden_size": 64}
    return replace(spec, moe_intermediate_size=64, vocab_size=128, **small)


def _trace(options: Options) -> Trace:
    if options.trace is not None and not options.tiny:
        return slice_passes(import_trace(options.trace), 0, options.passes)
    shape = _spec(options).shape
    tokens = 6 if options.tiny else options.passes
    return generate(SyntheticSpec(shape, requests=1, tokens=tokens, prompt_tokens=4))


def _forced(options: Options, capacity: str, choice: Choice) -> Any:
    setup = make_setup(replace(choice, capacity=capacity))
    if options.tiny and capacity != "100%":
        setup = replace(setup, capacity="3")
    return open_forced(_spec(options), setup, "bfloat16", None)


def _in_use() -> int:
    """Returns the bytes that the allocator says are taken; 0 where it does not say."""
    return int((jax.local_devices()[0].memory_stats() or {}).get("bytes_in_use", 0))


_median_s = partial(median_s, repeats=7)


def _on_host(data: np.ndarray) -> Any:
    sharding = host_sharding()
    return data if sharding is None else jax.device_put(data, sharding)


if __name__ == "__main__":
    main(tyro.cli(Options))
