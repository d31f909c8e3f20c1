"""On a clock of its own the runtime counts and takes what the simulator says, to the tick."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from specmd_jax.hardware.capacity import copies_of
from specmd_jax.hardware.profiles import HardwareProfile
from specmd_jax.model_zoo import ModelSpec
from specmd_jax.runtime.gates.scores import RecordOptions
from specmd_jax.simulator.pricing import price
from specmd_jax.study.metrics import count_summary
from specmd_jax.study.run import compare as simulate
from specmd_jax.traces import Trace
from tests.models.small import CONFIG
from tests.runtime.offloaded import PROMPTS, SHAPE, STORE, make_setup, offloaded, record, run
from tests.runtime.virtual import stage

pytestmark = pytest.mark.matrix

NEW = 8
SPEC: ModelSpec = CONFIG.spec
NBYTES = int(STORE.copy_bytes[0, 0])


def machine(rho: float) -> HardwareProfile:
    """Returns a machine on which a load takes `rho` times what a layer takes without any."""
    layer_s = 1e-3
    return HardwareProfile(
        name="tested",
        device_memory_bytes=1 << 30,
        hbm_bytes_per_s=1e9,
        peak_flops_per_s=1e9,
        h2d_bytes_per_s=NBYTES / (rho * layer_s),
        h2d_latency_s=0.0,
        dispatch_s=1e-4,
        host_flops_per_s=1e8,
        host_memory_bytes_per_s=1e8,
        source="made up",
        layer_s=layer_s,
    )


@pytest.fixture(scope="module")
def trace() -> Trace:
    """The routing of the model, which no lossless strategy changes."""
    return record(make_setup("24"), PROMPTS[:2], NEW, RecordOptions(scores=True, lookahead=2))[1]


@pytest.mark.parametrize(
    ("capacity", "decisions"),
    [
        ("6", {}),
        ("9", {"eviction": "lfu", "scope": "layer"}),
        ("7", {"eviction": "least-stale", "admission": "bypass"}),
        ("8", {"miss": "cpu"}),
        ("9", {"prefetch": "next-gate", "eviction": "least-stale"}),
        ("14", {"prefetch": "next-gate-quantile"}),
        ("12", {"prefetch": "transition", "lookahead": 2}),
        ("10", {"prefetch": "previous", "eviction": "fld"}),
        ("14", {"prefetch": "next-gate", "lookahead": 2, "eviction": "fld-cyclic"}),
        ("10", {"prefetch": "previous", "guard": True}),
        ("14", {"prefetch": "next-gate", "lookahead": 2, "guard": True}),
    ],
)
@pytest.mark.parametrize("rho", [0.13, 0.6, 4.0])
def test_counts_and_times_are_the_simulator_s(
    trace: Trace, capacity: str, decisions: dict[str, Any], rho: float
) -> None:
    hardware = machine(rho)
    setup = replace(make_setup(capacity, **decisions), hardware=hardware)
    copies = copies_of(SHAPE, ("bf16",), None, STORE.copy_bytes[:, 0])
    cost = price(trace, hardware, SPEC, copies)
    options, link, observer = stage(cost.costs, SHAPE.num_layers, NBYTES)
    model = offloaded(setup, link=link, options=options)
    run(model, PROMPTS[:2], NEW)
    observer.gate_fires()  # the simulator prefetches until a gate that would follow the last one
    model.close()
    (wanted,) = simulate(trace, [setup], SPEC)
    ran, simulated = count_summary(model.answer), count_summary(wanted)
    assert ran == simulated
    assert wanted.tally.times is not None and wanted.tick_s == cost.tick_s
    np.testing.assert_array_equal(np.rint(observer.passes), np.asarray(wanted.tally.times.ticks))
    stalls = np.rint(np.asarray(model.stalls_s))
    np.testing.assert_array_equal(stalls, np.asarray(wanted.tally.times.stall))
