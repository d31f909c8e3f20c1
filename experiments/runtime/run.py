"""SIMULATED beside MEASURED: the bundled model, really offloaded over throttled links.

    python -m experiments.runtime.run      # ten minutes; goes on where it was stopped
    python -m experiments.runtime.report   # seconds; draws what `run` wrote

Each strategy is timed once on the machine's own link, which calibrates what computing takes under
it; from that and the rate alone the simulator then says what throttled links will take. Writes
runtime_runs.jsonl, machine.json, runtime_runs.md and runtime_runs.png.
"""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import tyro

from experiments.runtime.costs import (
    TICK_S,
    Costing,
    Own,
    PerPass,
    costing,
    costs_of,
    one_a_decision,
    shares,
)
from experiments.runtime.report import draw
from experiments.shared.recordings import RESULTS, Rows, measured_on
from specmd_jax.models import open_model, open_tokenizer
from specmd_jax.models.checkpoints.library import BUNDLED
from specmd_jax.runtime.engine import OffloadedModel
from specmd_jax.runtime.gates.scores import RecordOptions
from specmd_jax.runtime.options import RunOptions
from specmd_jax.runtime.record.recorder import Recorder
from specmd_jax.runtime.runs.generation import Generation, follow, summarise_run, warm_up
from specmd_jax.runtime.runs.offloading import Offloading
from specmd_jax.runtime.transfer.link import ThrottledLink
from specmd_jax.simulator.batch import SimConfig, SimResult, run_batch
from specmd_jax.simulator.timeline import Costs
from specmd_jax.study.choice import Choice
from specmd_jax.study.setup import make_setup
from specmd_jax.traces import Trace

PROMPT = "The old man went down to the river in the evening, and the children of the village"
TOKENS = 24
TURNS = 3  # of each run
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
KEPT = (
    "ttft_s",
    "tpot_s",
    "stall_s",
    "stall_late_s",
    "hit_rate",
    "collisions",
    "bytes_loaded",
    "link_busy_share",
    "seconds",
    "tokens",
    "prefetched",
    "prefetch_used",
    "prefetch_late",
)


class Bench:
    """The model, its prompt and the routing that both make."""

    def __init__(self) -> None:
        checkpoint = open_model(BUNDLED)
        self.offloading = Offloading(checkpoint)
        self.prompt = [open_tokenizer(checkpoint).encode(PROMPT).ids]
        self.spec = checkpoint.config.spec
        self.copy_bytes = self.offloading.store(("bf16",)).copy_bytes
        self.trace = self._record()
        self.common = self._common()

    def time(self, model: OffloadedModel) -> dict[str, Any]:
        """Returns one run from a cold cache."""
        model.reset()
        return self._go(model)

    def own(self, model: OffloadedModel) -> Own:
        """Returns what passes take on the machine's own link."""
        runs = [self.time(model) for _ in range(TURNS)]
        return Own(fastest(runs), self._arrivals(model), self._decisions(model))

    def costs(self, own: Own, link: float) -> Costs:
        """Returns what everything takes on a throttled link, see `costs_of`."""
        return costs_of(self.common, own, self.trace.num_passes, self.copy_bytes / link)

    def replay(self, model: OffloadedModel, costs: Sequence[Costs]) -> list[SimResult]:
        """Returns what its strategy comes to on the routing of the prompt."""
        setup, budget = model.setup, model.budget
        configs = [SimConfig(setup.params, budget.capacity.units, one) for one in costs]
        return run_batch(self.trace, setup.strategy, configs, budget.copies.units)

    def _decisions(self, model: OffloadedModel) -> PerPass:
        """Returns at how many gates of a pass something is to decide."""
        costs = one_a_decision(self.trace.num_passes, self.copy_bytes)
        (tally,) = self.replay(model, [costs])
        assert tally.times is not None
        return PerPass(float(tally.times.ticks[0]), float(tally.times.ticks[1:].mean()))

    def _arrivals(self, model: OffloadedModel) -> PerPass:
        """Returns how many experts a pass loads on demand."""
        model.reset()
        loads = [model.answer.tally.counts.loads.sum() for _ in follow(model, self.prompt, TOKENS)]
        return PerPass(float(loads[0]), float(np.mean(np.diff(loads))))

    def _go(self, model: OffloadedModel) -> dict[str, Any]:
        *_, made = follow(model, self.prompt, TOKENS)
        return summarise_run(model, made)

    def warm(self, model: OffloadedModel) -> None:
        warm_up(model, self.prompt, TOKENS)

    def _record(self) -> Trace:
        recorder = Recorder(RecordOptions(scores=True, lookahead=1))
        model = self.offloading.model(make_setup(Choice(capacity="100%")), recorder=recorder)
        made = Generation([[]])
        for made in follow(model, self.prompt, TOKENS):  # noqa: B007 - run for the recorder
            pass
        assert model.answer  # counts the last pass, which is then recorded
        recorder.finish()
        sizes = model.store.copy_bytes[:, 0]
        return recorder.trace(self.spec.num_experts, None, sizes)

    def _common(self) -> Costing:
        """Times passes, gate by gate, that find every expert in a slot, and such as find none."""
        full, scant = self._exact("100%"), self._exact("5%")
        self.time(full)  # loads them all
        resident = fastest([self._go(full) for _ in range(TURNS)])
        return costing(self.spec.num_moe_layers, resident, self.own(scant))

    def _exact(self, capacity: str) -> OffloadedModel:
        """Returns the model under LRU, which never goes through a pass as a whole."""
        setup = make_setup(Choice(capacity=capacity))
        model = self.offloading.model(setup, options=RunOptions(whole_passes=False))
        self.warm(model)
        return model


def fastest(runs: Rows) -> PerPass:
    """Returns the shortest times of some runs, in seconds."""
    first, rest = (min(run[name] for run in runs) for name in ("ttft_s", "tpot_s"))
    return PerPass(first, rest)


def simulate(bench: Bench, model: OffloadedModel, costs: list[Costs]) -> list[dict[str, float]]:
    """Returns TTFT and TPOT of a strategy on some links, SIMULATED."""
    made = []
    for tally in bench.replay(model, costs):
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


def measure(bench: Bench, name: str, capacity: str, links: tuple[float, ...]) -> Rows:
    """Returns a row for each link of one strategy and capacity: the medians of some runs."""
    setup = replace(make_setup(replace(STRATEGIES[name], capacity=capacity)), name=name)
    model = bench.offloading.model(setup)
    bench.warm(model)
    own = bench.own(model)
    costs = [bench.costs(own, link) for link in links]
    simulated = simulate(bench, model, costs)
    rows: Rows = []
    for link, said in zip(links, simulated, strict=True):
        model.link = ThrottledLink(link)
        runs = [bench.time(model) for _ in range(TURNS)]
        middle = {key: float(np.median([run[key] for run in runs])) for key in KEPT}
        rows.append(
            {
                "strategy": name,
                "capacity": capacity,
                "precision": "fp32",
                "context": 48,
                "link_bytes_per_s": link,
                **middle,
                **said,
                "compute_ttft_s": own.seconds.prefill,
                "compute_tpot_s": own.seconds.decode,
                "resident_tpot_s": bench.common.resident.decode,
                "arrive_s": bench.common.arrive_s,
                "decide_s": shares(bench.common, own)[1].decode,
                "label": "MEASURED",
                **measured_on(),
            }
        )
    model.close()
    return rows


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
    draw(results)


if __name__ == "__main__":
    tyro.cli(run)
