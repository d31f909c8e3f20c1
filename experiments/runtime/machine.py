"""The machine of the runtime's runs, as `specmd predict` takes one."""

import numpy as np

from experiments.shared.recordings import Rows
from specmd_jax.hardware.profiles import HardwareProfile
from specmd_jax.models import open_model
from specmd_jax.models.checkpoints.library import BUNDLED


def machine(rows: Rows) -> HardwareProfile:
    """Returns this machine as `specmd predict` takes it, by what its runs on demand took."""
    on_demand = [row for row in rows if not row["prefetched"]]
    layers = open_model(BUNDLED).config.spec.num_moe_layers
    layer_s, arrive_s, decide_s = (
        float(np.median([row[name] for row in on_demand]))
        for name in ("resident_tpot_s", "arrive_s", "decide_s")
    )
    return HardwareProfile(
        name="the machine of runtime_runs",
        device_memory_bytes=4 << 30,
        hbm_bytes_per_s=10e9,
        peak_flops_per_s=50e9,
        h2d_bytes_per_s=max(row["link_bytes_per_s"] for row in rows),
        h2d_latency_s=0.0,
        dispatch_s=0.0,
        host_flops_per_s=50e9,
        host_memory_bytes_per_s=10e9,
        source="experiments/runtime/run.py; layer_s, arrive_s and decide_s are measured, "
        "h2d_bytes_per_s is the fastest of its links, the rest is not used beside them",
        layer_s=layer_s / layers,
        arrive_s=arrive_s,
        decide_s=decide_s,
    )
