"""Compiles every kernel at real sizes for an H100 or a TPU v5e, on a machine with neither.

    python -m experiments.speed.compile_kernels gpu    # with jax[cuda13] installed
    python -m experiments.speed.compile_kernels tpu    # with libtpu installed

Lowering, which the tests do, is half of the way: here the vendor's compiler has its say on
layouts, registers and memory. Best in an environment of its own (`pip install jax[cuda13]`, or
`pip install jax libtpu`, with absl-py, jaxtyping and this package). Prints a line for each kernel:
the seconds it took and the temporary memory it will take, or why it failed.
"""

import os
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, Literal

os.environ |= {
    "JAX_PLATFORMS": "cpu",
    "TPU_SKIP_MDS_QUERY": "1",
    "TPU_ACCELERATOR_TYPE": "v5litepod-4",
    "TPU_WORKER_HOSTNAMES": "localhost",
}

import jax
import jax.numpy as jnp
import numpy as np
import tyro
from jax.experimental import topologies
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from specmd_kernels import CachePolicy, Implementation, cache_sim, gate_topk, slot_ffn
from specmd_kernels.cache_sim import arg_specs as sim_specs
from specmd_kernels.gate_topk import arg_specs as gate_specs
from specmd_kernels.sizes import MODELS
from specmd_kernels.slot_ffn import arg_specs as ffn_specs

# What a driver would tell of an H100 SXM.
H100 = """
gpu_device_info {
  threads_per_block_limit: 1024 threads_per_warp: 32 threads_per_core_limit: 2048
  shared_memory_per_block: 49152 shared_memory_per_block_optin: 232448
  shared_memory_per_core: 233472 registers_per_core_limit: 65536 registers_per_block_limit: 65536
  core_count: 132 fpus_per_core: 128 clock_rate_ghz: 1.98 l2_cache_size: 52428800
  block_dim_limit_x: 2147483647 block_dim_limit_y: 65535 block_dim_limit_z: 65535
  memory_bandwidth: 3352320000000 device_memory_size: 84978434048
  cuda_compute_capability { major: 9 }
}
runtime_version { major: 13 }
dnn_version_info { major: 9 minor: 8 }
platform_name: "CUDA"
device_description_str: "NVIDIA H100 80GB HBM3"
"""
FORMATS = {"bf16": None, "int8": 8, "int4": 4}
LRU = CachePolicy(lambda params: (), None, lambda params, state, view, outcome: state)
Kind = Literal["gpu", "tpu"]


def device_of(kind: Kind) -> Any:
    """Returns a device that is only described."""
    if kind == "gpu":
        found = topologies.get_topology_desc(
            platform="cuda", topology_name="one", target_config=H100, topology="1x1x1"
        )
    else:
        found = topologies.get_topology_desc(platform="tpu", topology_name="v5e:2x2")
    return found.devices[0]


def calls(implementation: Implementation) -> Iterator[tuple[str, Callable[..., Any], tuple]]:
    """Yields a name, a function and the shapes of its arguments."""
    for name, sizes in MODELS.items():
        activation = ffn_specs.activation_of(sizes)
        call = partial(slot_ffn, activation=activation, implementation=implementation)
        for tokens in (1, 32, 4096):
            for form, bits in FORMATS.items():
                args = ffn_specs.shapes(sizes, tokens, jnp.bfloat16, bits)
                yield f"slot_ffn {name} {form} {tokens} tokens", call, tuple(args)
    for name, sizes in gate_specs.REAL.items():
        call = partial(gate_topk, top_k=sizes.top_k, top_j=1, implementation=implementation)
        args = gate_specs.shapes(sizes, 4096, jnp.float32)
        yield f"gate_topk {name} 4096 tokens", call, tuple(args)
    for name, sizes in sim_specs.REAL.items():
        one = partial(cache_sim, LRU, (), implementation=implementation)
        of: Any = jax.ShapeDtypeStruct
        gate = of((1000, sizes.layers, sizes.experts), jnp.int32)
        capacity = of((16,), jnp.int32)
        yield f"cache_sim {name} lru", jax.vmap(one, in_axes=(0, None)), (capacity, gate)


def main(kind: tyro.conf.Positional[Kind], only: str = "") -> None:
    """Compiles what has `only` in its name."""
    mesh = Mesh(np.array([device_of(kind)]), ("one",))
    here = NamedSharding(mesh, PartitionSpec())
    platform = "cuda" if kind == "gpu" else "tpu"
    for name, call, args in calls("pallas_gpu" if kind == "gpu" else "pallas_tpu"):
        if only not in name:
            continue
        placed = jax.tree.map(
            lambda one: jax.ShapeDtypeStruct(one.shape, one.dtype, sharding=here), args
        )
        start = time.perf_counter()
        try:
            lowered = jax.jit(call).trace(*placed).lower(lowering_platforms=(platform,))
            memory: Any = lowered.compile().memory_analysis()
            told = f"temporary memory {memory.temp_size_in_bytes / 1e6:.2f} MB"
        except Exception as error:
            told = f"FAILED: {type(error).__name__}: {str(error)[:300]}"
        print(f"{name}: {time.perf_counter() - start:.1f} s, {told}", flush=True)


if __name__ == "__main__":
    tyro.cli(main)
