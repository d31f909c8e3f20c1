"""What a setup comes to on a trace or in a model: can it be done, in what room, at what price."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Integer

from specmd_jax.core.errors import InputError
from specmd_jax.core.names import find_name
from specmd_jax.core.types import ModelShape
from specmd_jax.hardware.capacity import (
    Capacity,
    Copies,
    copies_of,
    find_model,
    free_device_bytes,
    parse_capacity,
)
from specmd_jax.model_zoo import ModelSpec
from specmd_jax.policies.base import FUTURE
from specmd_jax.policies.strategy import check_strategy
from specmd_jax.simulator.events import check_recorded
from specmd_jax.simulator.pricing import Price, price
from specmd_jax.study.setup import STARTS, Setup
from specmd_jax.traces import Trace


class Resolved(NamedTuple):
    """A setup with its sizes."""

    setup: Setup
    copies: Copies
    capacity: Capacity
    price: Price | None = None  # of the trace's passes on the setup's machine, where it has one


class Refusal(NamedTuple):
    """A setup that cannot be run."""

    name: str
    reason: str


def resolve(
    setup: Setup,
    on: Trace | ModelSpec,
    spec: ModelSpec | None = None,
    *,
    expert_bytes: Integer[np.ndarray, " L"] | None = None,
) -> Resolved:
    """Returns what `setup` comes to, before anything is compiled.

    Args:
      setup: strategy, capacity and, for times, a machine.
      on: the trace that is to be replayed, or the model that is to be run.
      spec: the trace's model, for sizes and times; None: the zoo's, if the trace names one.
      expert_bytes: of a model's experts where they are stored otherwise than its spec says.

    Raises:
      InputError: it cannot be replayed or run, or needs what is not known.
    """
    if isinstance(on, Trace):
        return resolver(on, spec)(setup)
    check_live(setup, on.shape)
    known = None if expert_bytes is not None else on
    copies = copies_of(
        on.shape, setup.precisions, known, expert_bytes, with_scales=setup.with_scales
    )
    return Resolved(setup, copies, _capacity(setup, copies, on.shape))


def resolver(trace: Trace, spec: ModelSpec | None = None) -> Callable[[Setup], Resolved]:
    """Returns `resolve` for one trace; what setups have in common is worked out once.

    Thousands of settings that differ in a parameter alone ask the same.
    """
    spec = spec or find_model(trace.provenance.model, trace.shape)
    known: dict[tuple, tuple[Copies, Price | None]] = {}

    def resolve_one(setup: Setup) -> Resolved:
        find_name(setup.start, STARTS, f"start {setup.start!r} is unknown")
        check_strategy(setup.strategy, trace.shape)
        check_recorded(trace, setup.strategy.reads, setup.strategy.lookahead)
        alike = (
            setup.precisions, setup.with_scales, setup.hardware, setup.context, setup.overlap
        )  # fmt: skip
        if alike not in known:
            known[alike] = _copies_and_price(setup, trace, spec)
        copies, cost = known[alike]
        free = _free_bytes(setup, spec)
        return Resolved(setup, copies, _capacity(setup, copies, trace.shape, free), cost)

    return resolve_one


def sort_out(
    trace: Trace, setups: Sequence[Setup], spec: ModelSpec | None = None
) -> tuple[list[Resolved], list[Refusal]]:
    """Returns the setups that can be run on `trace`, and those that cannot with the reason."""
    resolve_one = resolver(trace, spec)
    possible, refused = [], []
    for setup in setups:
        try:
            possible.append(resolve_one(setup))
        except InputError as error:
            refused.append(Refusal(f"{setup.name} at {setup.capacity}", str(error)))
    return possible, refused


def check_live(setup: Setup, shape: ModelShape) -> None:
    """Raises InputError if a running model cannot do what `setup` asks for."""
    check_strategy(setup.strategy, shape)
    if setup.strategy.reads & FUTURE:
        raise InputError(
            "the strategy looks into the future, which a run does not know: choose another than "
            "belady and oracle, or replay a recorded trace with specmd simulate"
        )
    if setup.start != "cold":
        raise InputError(
            f"start {setup.start} places experts by a recorded trace: a run starts cold"
        )


def _copies_and_price(
    setup: Setup, trace: Trace, spec: ModelSpec | None
) -> tuple[Copies, Price | None]:
    copies = copies_of(
        trace.shape, setup.precisions, spec, trace.expert_bytes, with_scales=setup.with_scales
    )
    if setup.hardware is None:
        return copies, None
    if spec is None:
        named = trace.provenance.model or "none"
        raise InputError(f"times need a known model, and the trace names {named!r}: give --model")
    machine, context, overlap = setup.hardware, setup.context, setup.overlap
    return copies, price(trace, machine, spec, copies, context=context, overlap=overlap)


def _free_bytes(setup: Setup, spec: ModelSpec | None) -> int | None:
    """Returns the device memory that `capacity auto` gives the experts; None: not asked for."""
    if setup.capacity != "auto" or setup.hardware is None or spec is None:
        return None
    return free_device_bytes(setup.hardware, spec, setup.context)


def _capacity(
    setup: Setup, copies: Copies, shape: ModelShape, free_bytes: int | None = None
) -> Capacity:
    capacity = parse_capacity(setup.capacity, copies, shape, setup.strategy.scope, free_bytes)
    if capacity.slots < 1:
        size = "" if copies.nbytes is None else f" of {int(copies.nbytes.max()):,} bytes"
        raise InputError(
            f"capacity {setup.capacity!r} holds no expert{size}: give room for at least one"
        )
    return capacity
