"""Questions put to a trace: each a strategy, a capacity and, if times are wanted, a machine.

`run` answers many at once: those that differ only in numbers share one compile and one vmap.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool

from specmd_jax.core.errors import InputError
from specmd_jax.core.names import find_name
from specmd_jax.hardware.capacity import (
    Capacity,
    Copies,
    copies_of,
    find_model,
    free_device_bytes,
    parse_capacity,
)
from specmd_jax.model_zoo import ModelSpec
from specmd_jax.simulator.batch import SimConfig, SimResult, run_batch
from specmd_jax.simulator.pricing import Price, price
from specmd_jax.study.setup import STARTS, Setup
from specmd_jax.traces import PAD, Trace


class RunResult(NamedTuple):
    """What a configuration came to."""

    setup: Setup
    capacity: Capacity
    copies: Copies
    tally: SimResult
    tick_s: float | None


class _Job(NamedTuple):
    setup: Setup
    capacity: Capacity
    copies: Copies
    price: Price | None


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
      InputError: a setup does not fit the trace, or needs what is not known of it.
    """
    spec = spec or find_model(trace.provenance.model, trace.shape)
    sizes = _priced_once(trace, spec)
    jobs = [_prepare(trace, setup, spec, *sizes(setup)) for setup in setups]
    groups: dict[tuple, list[int]] = {}
    for place, job in enumerate(jobs):
        groups.setdefault(_group_key(job), []).append(place)
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


def _priced_once(
    trace: Trace, spec: ModelSpec | None
) -> Callable[[Setup], tuple[Copies, Price | None]]:
    """Returns a function that says what a setup's copies take, working it out once for all alike.

    Thousands of settings that differ in a parameter alone ask the same.
    """
    known: dict[tuple, tuple[Copies, Price | None]] = {}

    def sizes(setup: Setup) -> tuple[Copies, Price | None]:
        alike = (
            setup.precisions, setup.with_scales, setup.hardware, setup.context, setup.overlap
        )  # fmt: skip
        if alike not in known:
            known[alike] = _price(trace, setup, spec)
        return known[alike]

    return sizes


def _price(trace: Trace, setup: Setup, spec: ModelSpec | None) -> tuple[Copies, Price | None]:
    copies = copies_of(
        trace.shape, setup.precisions, spec, trace.expert_bytes, with_scales=setup.with_scales
    )
    if setup.hardware is None:
        return copies, None
    if spec is None:
        raise InputError(
            "times need a known model, and the trace names "
            f"{trace.provenance.model or 'none'!r}: give --model"
        )
    cost = price(trace, setup.hardware, spec, copies, context=setup.context, overlap=setup.overlap)
    return copies, cost


def _prepare(
    trace: Trace, setup: Setup, spec: ModelSpec | None, copies: Copies, cost: Price | None
) -> _Job:
    find_name(setup.start, STARTS, f"start {setup.start!r} is unknown")
    free = None
    if setup.hardware is not None and spec is not None and setup.capacity == "auto":
        free = free_device_bytes(setup.hardware, spec, setup.context)
    capacity = parse_capacity(setup.capacity, copies, trace.shape, setup.strategy.scope, free)
    return _Job(setup, capacity, copies, cost)


def _group_key(job: _Job) -> tuple:
    # A warm start depends on the capacity: each such job starts from its own cache.
    warm = job.capacity.text if job.setup.start != "cold" else None
    return job.setup.strategy.structure, job.setup.precisions, job.price is None, warm


def _run_group(
    trace: Trace, jobs: list[_Job], on_progress: Callable[[float], None]
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
