"""When should a prefetch not fire? With and without a guard, from starved to idle links.

    python -m experiments.prefetch_guard.run      # minutes; goes on where it was stopped
    python -m experiments.prefetch_guard.report   # seconds; draws what `run` wrote

rho is the time of one transfer over that of a layer's compute, the number that decides. The guard's
margin is tuned on every second request with 32 simulations; what is shown is the other requests.
Writes prefetch_guard.parquet, prefetch_guard.png and prefetch_guard.md. All times are SIMULATED.
"""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import tyro

from experiments.prefetch_guard.plan import CAPACITY, MACHINE, PRECISION, PREDICTORS, RHOS, TRACES
from experiments.prefetch_guard.report import draw
from experiments.shared.recordings import RESULTS, Rows, finish, load
from specmd_jax.hardware.capacity import find_model
from specmd_jax.hardware.profiles import HardwareProfile, get_hardware
from specmd_jax.model_zoo import ModelSpec
from specmd_jax.predict.latency import pass_parts
from specmd_jax.study.choice import Choice
from specmd_jax.study.metrics import SIMULATED, summarise_result
from specmd_jax.study.run import compare
from specmd_jax.study.setup import Setup, make_setup
from specmd_jax.study.tune import Effort, Objective, anchors_of, knobs_of, search, split_requests
from specmd_jax.study.tune.knobs import values_at, with_values
from specmd_jax.traces import Trace

KEPT = ("tpot_s", "hit_rate", "prefetched", "prefetch_precision", "prefetch_late", "bytes_loaded")


def link_of(rho: float, spec: ModelSpec) -> HardwareProfile:
    """Returns the machine whose transfer takes rho times the compute of a layer of residents."""
    machine = get_hardware(MACHINE)
    parts = pass_parts(spec, machine, PRECISION, context=1025)
    layer = parts.attention + parts.shared + spec.top_k * parts.expert_memory
    rate = spec.expert_bytes(PRECISION) / (rho * float(layer))
    return replace(machine, h2d_bytes_per_s=rate, h2d_latency_s=0.0)


def setup_of(choice: Choice, guard: bool) -> Setup:
    params = (*choice.params, *((("guard.margin", "0.1"),) if guard else ()))
    chosen = replace(choice, guard=guard, params=params, capacity=CAPACITY, precision=(PRECISION,))
    return make_setup(chosen)


def guard_rows(trace: Trace, model: str, predictor: str) -> Rows:
    """Returns one row for each link and each way to prefetch."""
    spec = find_model(trace.provenance.model, trace.shape)
    assert spec is not None
    train, held_out = split_requests(trace)
    choice = PREDICTORS[predictor]
    loose, guarded = setup_of(choice, guard=False), setup_of(choice, guard=True)
    none = make_setup(Choice(capacity=CAPACITY, precision=(PRECISION,)))
    knobs = knobs_of(guarded.params, ("guard.margin",))
    setups: list[tuple[float, str, float | None, Setup]] = []
    for rho in RHOS:
        machine = link_of(rho, spec)
        mine = replace(guarded, hardware=machine)
        found = search(
            Objective(train, mine, knobs), anchors_of(mine, knobs), Effort(evaluations=32)
        )
        margin = values_at(knobs, found.place)
        tuned = replace(mine, params=with_values(mine.params, knobs, margin))
        setups += [
            (rho, "none", None, replace(none, hardware=machine)),
            (rho, "unguarded", None, replace(loose, hardware=machine)),
            (rho, "guarded", 0.1, mine),
            (rho, "tuned", float(margin[0]), tuned),
        ]
    answers = compare(held_out, [setup for *_, setup in setups])
    rows = []
    for (rho, way, margin, setup), answer in zip(setups, answers, strict=True):
        assert setup.hardware is not None
        summary = summarise_result(held_out, answer)
        about = {"model": model, "predictor": predictor, "rho": rho, "way": way, "margin": margin}
        about |= {"link_bytes_per_s": setup.hardware.h2d_bytes_per_s, "label": SIMULATED}
        rows.append(about | {name: summary[name] for name in KEPT})
    return rows


def run_experiment(
    traces: tuple[Path, ...] = TRACES, passes: int = 128, results: Path = RESULTS
) -> None:
    """Compare the ways to prefetch on the held-out half of each trace, and draw.

    Args:
      traces: of any known format, each of another model.
      passes: of each trace, both halves together.
      results: folder of the table, the picture and the page.
    """
    recorded = load(traces, passes)
    parts: dict[str, Callable[[], Rows]] = {
        f"{model}, {name}": partial(guard_rows, trace, model, name)
        for model, trace in recorded.items()
        for name in PREDICTORS
    }
    finish(parts, recorded, results / "prefetch_guard.parquet")
    draw(results)


if __name__ == "__main__":
    tyro.cli(run_experiment)
