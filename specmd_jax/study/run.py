"""Questions put to a trace: each a strategy, a capacity and, if times are wanted, a machine.

`run` answers many at once: those that differ only in numbers share one compile and one vmap.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool

from specmd_jax.core.errors import InputError
from specmd_jax.hardware.capacity import Capacity, Copies
from specmd_jax.model_zoo import ModelSpec
from specmd_jax.simulator.batch import SimConfig, SimResult, run_batch
from specmd_jax.study.resolve import Refusal, Resolved, sort_out
from specmd_jax.study.setup import Setup
from specmd_jax.traces import PAD, Trace


class RunResult(NamedTuple):
    """What a configuration came to."""

    setup: Setup
    capacity: Capacity
    copies: Copies
    tally: SimResult
    tick_s: float | None


def compare(
    trace: Trace,
    setups: Sequence[Setup],
    spec: ModelSpec | None = None,
    on_progress: Callable[[float], None] = lambda share: None,
) -> list[RunResult]:
    """Replays `trace` under each of `setups` and returns the answers in the same order.

    Args:
      spec: the model, for sizes and times; None: the zoo's, if the trace names one.
      on_progress: called with the share of the work done.

    Raises:
      InputError: a setup does not fit the trace, or needs what is not known of it; all are
        checked before the first is run, and all such are named.
    """
    jobs, refused = sort_out(trace, setups, spec)
    if refused:
        raise InputError(name_refusals(refused, len(setups)))
    groups: dict[tuple, list[int]] = {}
    for place, job in enumerate(jobs):
        groups.setdefault(compile_key(job.setup), []).append(place)
    answers: dict[int, RunResult] = {}
    for number, places in enumerate(groups.values()):

        def progress(share: float, done: int = number) -> None:
            on_progress((done + share) / len(groups))

        members = [jobs[place] for place in places]
        for place, job, tally in zip(
            places, members, _run_group(trace, members, progress), strict=True
        ):
            tick = job.price.tick_s if job.price else None
            answers[place] = RunResult(job.setup, job.capacity, job.copies, tally, tick)
    return [answers[place] for place in range(len(jobs))]


def name_refusals(refused: Sequence[Refusal], size: int) -> str:
    """Returns each of `size` setups that cannot be run, with its reason, in one line."""
    if size == 1:
        return refused[0].reason
    names: dict[str, list[str]] = {}
    for refusal in refused:
        names.setdefault(refusal.reason, []).append(refusal.name)
    told = "; ".join(f"{', '.join(alike)}: {reason}" for reason, alike in names.items())
    return f"{len(refused)} of {size} setups cannot be run: {told}"


def compile_key(setup: Setup) -> tuple:
    """Returns what setups must have in common to share one compile and one vmap."""
    # A warm start depends on the capacity: each such setup starts from its own cache.
    warm = setup.capacity if setup.start != "cold" else None
    return setup.strategy.structure, setup.precisions, setup.hardware is None, warm


def _run_group(
    trace: Trace, jobs: list[Resolved], on_progress: Callable[[float], None]
) -> list[SimResult]:
    first = jobs[0]
    resident = None
    if first.setup.start == "popular":
        resident = most_popular(trace, first.capacity, first.copies)
    configs = [
        SimConfig(job.setup.params, job.capacity.units, job.price.costs if job.price else None)
        for job in jobs
    ]
    return run_batch(
        trace,
        first.setup.strategy,
        configs,
        first.copies.units,
        resident=resident,
        on_progress=on_progress,
    )


def most_popular(trace: Trace, capacity: Capacity, copies: Copies) -> Bool[np.ndarray, "L N"]:
    """Returns the experts that the trace demands most, as many as fit each pool at tier 0.

    It is the future that is counted: a bound on what profiling could place.
    """
    num_layers, num_experts, _ = trace.shape
    layer = np.broadcast_to(np.arange(num_layers)[None, :, None], trace.experts.shape)
    chosen = trace.experts != PAD
    uses = np.bincount(
        layer[chosen] * num_experts + trace.experts[chosen], minlength=num_layers * num_experts
    )
    resident = np.zeros(num_layers * num_experts, bool)
    free = capacity.units.astype(np.int64).copy()
    for place in np.argsort(-uses, kind="stable"):
        pool = place // num_experts if len(free) > 1 else 0
        size = copies.units[place // num_experts, 0]
        if uses[place] and size <= free[pool]:
            resident[place] = True
            free[pool] -= size
    return resident.reshape(num_layers, num_experts)
