"""SIMULATED beside MEASURED: the bundled model, really offloaded over throttled links.

    python experiments/runtime_runs.py run     # a quarter of an hour; goes on where it was stopped
    python experiments/runtime_runs.py draw    # seconds; reads what `run` wrote

Each strategy is timed once on the machine's own link, which calibrates what computing takes under
it; from that and the rate alone the simulator then says what throttled links will take. Writes
runtime_runs.jsonl, machine.json, runtime_runs.md and runtime_runs.png.
"""

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import tyro
from recordings import RESULTS, Rows, measured_on
from runtime_report import draw

from specmd_jax.batch import Config, run_batch
from specmd_jax.choice import Choice, make_setup
from specmd_jax.hardware import HardwareProfile, write_profile
from specmd_jax.models import open_model, open_tokenizer
from specmd_jax.models.library import BUNDLED
from specmd_jax.runtime.engine import OffloadedModel
from specmd_jax.runtime.link import ThrottledLink
from specmd_jax.runtime.measured import Generation, follow, summarise_run, warm_up
from specmd_jax.runtime.offloading import Offloading
from specmd_jax.runtime.recorder import Recorder
from specmd_jax.runtime.seen import Wanted
from specmd_jax.runtime.staging import Staging
from specmd_jax.timeline import Costs
from specmd_jax.traces import PREFILL, Trace

PROMPT = "The old man went down to the river in the evening, and the children of the village"
TOKENS = 24
TURNS = 3  # of each calibration
TICK_S = 1e-6
LINKS = (25e6, 50e6, 100e6, 200e6, 400e6)
CAPACITIES = ("5%", "15%", "40%")
STRATEGIES = {
    "lru": Choice(eviction="lru"),
    "lru per layer": Choice(eviction="lru", scope="layer"),
    "lfu": Choice(eviction="lfu"),
    "least-stale": Choice(eviction="least-stale"),
    "lru + next-gate": Choice(eviction="lru", prefetch="next-gate"),
    "least-stale + next-gate": Choice(eviction="least-stale", prefetch="next-gate"),
    "least-stale + quantile": Choice(eviction="least-stale", prefetch="next-gate-quantile"),
}


@dataclass(frozen=True)
class Calibration:
    """What computing takes, in seconds."""

    prefill_s: float  # a pass over the prompt, on the machine's own link
    decode_s: float  # a pass of one token
    expert_s: float  # one expert that has just arrived


class Bench:
    """The model, its prompt and the routing that both make."""

    def __init__(self) -> None:
        checkpoint = open_model(BUNDLED)
        self.offloading = Offloading(checkpoint)
        self.prompt = [open_tokenizer(checkpoint).encode(PROMPT).ids]
        self.spec = checkpoint.config.spec
        self.trace = self._record()
        self.expert_s = self._expert()

    def time(self, model: OffloadedModel) -> dict[str, Any]:
        """Returns one run from a cold cache."""
        model.reset()
        *_, made = follow(model, self.prompt, TOKENS)
        return summarise_run(model, made)

    def warm(self, model: OffloadedModel) -> None:
        warm_up(model, self.prompt, TOKENS)

    def _record(self) -> Trace:
        recorder = Recorder(Wanted(scores=True, lookahead=1))
        model = self.offloading.model(make_setup(Choice(capacity="100%")), recorder=recorder)
        made = Generation([[]])
        for made in follow(model, self.prompt, TOKENS):  # noqa: B007 - run for the recorder
            pass
        assert model.answer  # counts the last pass, which is then recorded
        recorder.finish()
        sizes = model.store.copy_bytes[:, 0]
        return recorder.trace(self.spec.num_experts, None, sizes)

    def _expert(self) -> float:
        """Returns what an expert takes that arrives: from runs of many misses and of none."""
        exact = Staging(hopes=False)
        found = []
        for capacity in ("5%", "100%"):
            model = self.offloading.model(make_setup(Choice(capacity=capacity)), staging=exact)
            self.warm(model)
            runs = [self.time(model) for _ in range(TURNS)]
            tpot = min(run["tpot_s"] for run in runs)
            found.append((tpot, _misses_a_token(runs[0], self.trace)))
        (slow, many), (fast, few) = found
        return max(slow - fast, 0.0) / (many - few)


def _misses_a_token(run: dict[str, Any], trace: Trace) -> float:
    """Returns the loads of a decode pass; every expert of the prompt is loaded before."""
    prompt = trace.experts[trace.phase == PREFILL]
    distinct = sum(len(np.unique(prompt[:, layer])) for layer in range(prompt.shape[1]))
    return max(run["demand_loads"] - distinct, 0) / (TOKENS - 1)


def calibrate(bench: Bench, model: OffloadedModel) -> Calibration:
    """Returns what computing takes under a strategy: the fastest of some runs."""
    runs = [bench.time(model) for _ in range(TURNS)]
    first, rest = (min(run[name] for run in runs) for name in ("ttft_s", "tpot_s"))
    return Calibration(first, rest, bench.expert_s)


def simulate(
    bench: Bench, model: OffloadedModel, found: Calibration, links: tuple[float, ...]
) -> list[dict[str, float]]:
    """Returns TTFT and TPOT of a strategy on some links, SIMULATED from its calibration."""
    setup, budget = model.setup, model.budget
    configs = [
        Config(setup.params, budget.capacity.units, _costs(bench, found, link)) for link in links
    ]
    tallies = run_batch(bench.trace, setup.strategy, configs, budget.copies.units)
    made = []
    for tally in tallies:
        assert tally.times is not None
        seconds = np.asarray(tally.times.ticks) * TICK_S
        hits, accesses = tally.counts.hits.sum(), tally.counts.accesses.sum()
        made.append(
            {
                "simulated_ttft_s": float(seconds[0]),
                "simulated_tpot_s": float(seconds[1:].mean()),
                "simulated_hit_rate": float(hits / accesses),
            }
        )
    return made


def _costs(bench: Bench, found: Calibration, link: float) -> Costs:
    """Returns costs that come to the calibration where loads take no time.

    What is not the experts' own is attention's; each expert takes what one takes that arrives, or
    less, where all of them together would take longer than the pass that was calibrated.
    """
    trace, layers = bench.trace, bench.spec.num_moe_layers
    used = []
    for step in range(trace.num_passes):
        chosen = trace.experts[trace.step == step]
        used.append(sum(len(np.unique(chosen[:, layer])) for layer in range(layers)) / layers)
    whole = np.asarray([found.prefill_s, *[found.decode_s] * (len(used) - 1)]) / layers
    expert_s = min(found.expert_s, float((whole / used).min()))
    attention = whole - np.asarray(used) * expert_s

    def ticks(seconds: Any) -> Any:
        return jnp.asarray(np.rint(np.asarray(seconds) / TICK_S), jnp.int32)

    nothing = np.zeros(trace.num_passes)
    copies = bench.offloading.store(("bf16",)).copy_bytes
    return Costs(
        attention=ticks(attention),
        shared=ticks(nothing),
        head=ticks(nothing),
        expert_memory=ticks([expert_s]),
        expert_per_1024=ticks(0.0),
        host_memory=ticks(0.0),
        host_per_1024=ticks(0.0),
        load=ticks(copies / link),
        overlap=jnp.asarray(True),
    )


def measure(bench: Bench, name: str, capacity: str, links: tuple[float, ...]) -> Rows:
    """Returns a row for each link of one strategy and capacity."""
    setup = replace(make_setup(replace(STRATEGIES[name], capacity=capacity)), name=name)
    model = bench.offloading.model(setup)
    bench.warm(model)
    found = calibrate(bench, model)
    simulated = simulate(bench, model, found, links)
    rows: Rows = []
    for link, said in zip(links, simulated, strict=True):
        model.link = ThrottledLink(link)
        run = bench.time(model)
        kept = (
            "ttft_s",
            "tpot_s",
            "stall_s",
            "stall_late_s",
            "hit_rate",
            "collisions",
            "bytes_loaded",
        )
        kept += (
            "link_busy_share",
            "seconds",
            "tokens",
            "prefetched",
            "prefetch_used",
            "prefetch_late",
        )
        rows.append(
            {
                "strategy": name,
                "capacity": capacity,
                "precision": "fp32",
                "context": 48,
                "link_bytes_per_s": link,
                **{key: run[key] for key in kept},
                **said,
                "compute_ttft_s": found.prefill_s,
                "compute_tpot_s": found.decode_s,
                "label": "MEASURED",
                **measured_on(),
            }
        )
    model.close()
    return rows


def machine(rows: Rows) -> HardwareProfile:
    """Returns this machine as `specmd predict` takes it, by what computing took under strategies.

    That is so much a layer and so much an expert that arrives, fitted over the strategies that load
    on demand. Arriving experts are worked in one after the other, while the next is on the link: so
    they bound the link's rate.
    """
    checkpoint = open_model(BUNDLED)
    spec = checkpoint.config.spec
    nbytes = int(Offloading(checkpoint).store(("bf16",)).copy_bytes[0, 0])
    each = {(row["strategy"], row["capacity"]): row for row in rows if not row["prefetched"]}
    layers = spec.num_moe_layers
    work = [[layers, layers * spec.top_k * (1 - row["hit_rate"])] for row in each.values()]
    took = [row["compute_tpot_s"] for row in each.values()]
    (layer_s, load_s), *_ = np.linalg.lstsq(np.asarray(work), np.asarray(took))
    return HardwareProfile(
        name="the machine of runtime_runs",
        device_memory_bytes=4 << 30,
        hbm_bytes_per_s=10e9,
        peak_flops_per_s=50e9,
        h2d_bytes_per_s=float(nbytes / load_s),
        h2d_latency_s=0.0,
        dispatch_s=0.0,
        host_flops_per_s=50e9,
        host_memory_bytes_per_s=10e9,
        source="experiments/runtime_runs.py; layer_s and h2d_bytes_per_s are measured, the rest is "
        "not used beside them",
        layer_s=float(layer_s),
    )


def run(
    capacities: tuple[str, ...] = CAPACITIES,
    links: tuple[float, ...] = LINKS,
    results: Path = RESULTS,
) -> None:
    """Measure every strategy at every capacity on every link, then draw.

    Args:
      capacities: of the cache.
      links: bytes a second.
      results: folder of what is written.
    """
    results.mkdir(parents=True, exist_ok=True)
    path = results / "runtime_runs.jsonl"
    lines = path.read_text().splitlines() if path.exists() else []
    rows: Rows = [json.loads(line) for line in lines]
    done = {(row["strategy"], row["capacity"]) for row in rows}
    bench = Bench()
    for capacity in capacities:
        for name in STRATEGIES:
            if (name, capacity) in done:
                continue
            new = measure(bench, name, capacity, links)
            with path.open("a") as file:
                file.writelines(json.dumps(row) + "\n" for row in new)
            rows += new
            print(f"{capacity} {name}: TPOT {[round(1e3 * row['tpot_s'], 1) for row in new]} ms")
    redraw(results)


def redraw(results: Path = RESULTS) -> None:
    """Draw, and work out the machine, from what `run` kept.

    Args:
      results: folder of both.
    """
    rows: Rows = [json.loads(line) for line in (results / "runtime_runs.jsonl").open()]
    measured = {name: rows[0][name] for name in ("date", "machine", "commit")}
    write_profile(machine(rows), results / "machine.json", measured)
    draw(results)


if __name__ == "__main__":
    tyro.extras.subcommand_cli_from_dict({"run": run, "draw": redraw})
