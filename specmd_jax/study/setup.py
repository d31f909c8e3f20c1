"""One configuration as the simulator takes it: a strategy, a capacity and, for times, a machine."""

from dataclasses import dataclass
from typing import Any

from specmd_jax.core.errors import InputError
from specmd_jax.hardware.capacity import (
    BASE_PRECISION,
    copies_of,
    find_model,
    free_device_bytes,
    parse_capacity,
)
from specmd_jax.hardware.profiles import HardwareProfile
from specmd_jax.model_zoo import ModelSpec
from specmd_jax.policies.params import list_params
from specmd_jax.policies.strategy import (
    FAMILIES,
    Strategy,
    StrategyParams,
    check_strategy,
    policy_name,
)
from specmd_jax.simulator.events import check_recorded
from specmd_jax.traces import Trace

STARTS = ("cold", "popular")


@dataclass(frozen=True)
class Setup:
    """One configuration, in the user's terms."""

    strategy: Strategy
    params: StrategyParams
    name: str = ""  # what the strategy is called in tables
    capacity: str = "5%"
    precisions: tuple[str, ...] = (BASE_PRECISION,)
    start: str = "cold"  # "popular": the experts this trace demands most, as far as they fit
    hardware: HardwareProfile | None = None  # None: counts only
    context: int = 1024  # tokens in the KV cache beside those of the pass
    overlap: bool = True  # residents compute while misses load
    with_scales: bool = False  # count the scales of quantised copies, as a run must


def check_setup(trace: Trace, setup: Setup, spec: ModelSpec | None) -> None:
    """Raises InputError if `setup` cannot be run on `trace`, before anything is compiled."""
    spec = spec or find_model(trace.provenance.model, trace.shape)
    check_strategy(setup.strategy, trace.shape)
    check_recorded(trace, setup.strategy.reads, setup.strategy.lookahead)
    copies = copies_of(trace.shape, setup.precisions, spec, trace.expert_bytes)
    free = None
    if setup.hardware is not None:
        if spec is None:
            raise InputError(
                f"times need a known model, and the trace names "
                f"{trace.provenance.model or 'none'!r}: give --model"
            )
        if setup.capacity == "auto":
            free = free_device_bytes(setup.hardware, spec, setup.context)
    capacity = parse_capacity(setup.capacity, copies, trace.shape, setup.strategy.scope, free)
    if capacity.slots < 1:
        raise InputError(f"capacity {setup.capacity!r} holds no expert: give room for at least one")


def describe(setup: Setup) -> dict[str, Any]:
    """Returns the decisions of a configuration by name, and the numbers they are tuned by."""
    hardware = setup.hardware
    return {
        **{family: policy_name(family, getattr(setup.strategy, family)) for family in FAMILIES},
        "lookahead": setup.strategy.lookahead if setup.strategy.prefetches else None,
        "guard": setup.strategy.guard if setup.strategy.prefetches else None,
        "params": list_params(setup.params),
        "link_bytes_per_s": hardware and hardware.h2d_bytes_per_s,
        "latency_s": hardware and hardware.h2d_latency_s,
        "context": hardware and setup.context,
        "overlap": hardware and setup.overlap,
    }
