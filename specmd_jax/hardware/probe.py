"""This machine, measured: link, memory, arithmetic and dispatch, in well under a minute.

Every figure is the median of repeats, taken after a first run that compiles or maps pages; other
load on the machine makes all of them worse. Rates are what programs reach, not what a data sheet
says: times from a measured profile are expectations, those from a preset are lower bounds.
"""

import os
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from specmd_jax.hardware.profiles import HardwareProfile

KIB, MIB = 1 << 10, 1 << 20
LAUNCHES = 2  # jitted calls of a MoE layer in a decode loop: to the gate, and from it


class Effort(NamedTuple):
    """How much is measured."""

    sizes: tuple[int, ...] = tuple(size * KIB for size in (64, 256, 1024, 4096, 16384, 65536))
    memory_bytes: int = 256 * MIB
    matrix: int = 2048  # rows and columns
    repeats: int = 9


class LinkFit(NamedTuple):
    """Copies from one kind of host memory to the device: latency + bytes / rate."""

    source: str
    latency_s: float
    bytes_per_s: float
    seconds: dict[int, float]  # by size


def measure(
    effort: Effort | None = None, on_progress: Callable[[float], None] = lambda share: None
) -> tuple[HardwareProfile, dict[str, Any]]:
    """Returns the profile of the first device and its host, and all that was measured."""
    effort = Effort() if effort is None else effort
    begun, device = time.perf_counter(), jax.devices()[0]
    links = [measure_link(kind, effort) for kind in _source_kinds(device)]
    link = max(links, key=lambda one: one.bytes_per_s)
    on_progress(0.4)
    flops = {kind: _matmul_rate(kind, effort) for kind in ("bfloat16", "float32")}
    on_progress(0.6)
    memory, host_memory = _memory_rate(effort), _host_memory_rate(effort)
    on_progress(0.8)
    call_s, hop_s = dispatch_times(effort)
    name = f"{device.platform}-{device.device_kind}".lower().replace(" ", "-")
    profile = HardwareProfile(
        name=name,
        device_memory_bytes=_device_bytes(device),
        hbm_bytes_per_s=memory,
        peak_flops_per_s=max(flops.values()),
        h2d_bytes_per_s=link.bytes_per_s,
        h2d_latency_s=link.latency_s,
        dispatch_s=LAUNCHES * call_s + hop_s,
        host_flops_per_s=_host_flops(effort),
        host_memory_bytes_per_s=host_memory,
        source=f"specmd calibrate, jax {jax.__version__}, copies from {link.source}",
    )
    about = {
        "links": [one._asdict() for one in links],
        "matmul_flops_per_s": flops,
        "call_s": call_s,
        "hop_s": hop_s,
        "seconds": time.perf_counter() - begun,
    }
    return profile, about


def _source_kinds(device: Any) -> list[str]:
    kinds = {memory.kind for memory in device.addressable_memories()}
    return ["numpy", *(["pinned_host"] if "pinned_host" in kinds else [])]


def measure_link(source: str, effort: Effort) -> LinkFit:
    """Returns what copies from `source` take: "numpy" (pageable) or "pinned_host"."""
    seconds = {}
    for size in effort.sizes:
        seconds[size] = median_s(_copier(source, size), effort.repeats)
    sizes = np.asarray(list(seconds), float)
    latency, slope = fit_link(sizes, np.asarray(list(seconds.values())))
    return LinkFit(source, latency, 1 / slope, seconds)


def fit_link(
    sizes: Float[np.ndarray, " S"], seconds: Float[np.ndarray, " S"]
) -> tuple[float, float]:
    """Returns latency and seconds a byte, with the least relative squared error; none negative."""
    rows = np.stack([np.ones_like(sizes), sizes], axis=1) / seconds[:, None]
    latency, slope = np.linalg.lstsq(rows, np.ones_like(seconds), rcond=None)[0]
    if latency < 0:
        latency, slope = 0.0, float(np.mean(seconds / sizes))
    return float(latency), float(max(slope, 1e-15))


def _copier(source: str, size: int) -> Callable[[], Any]:
    device, data = jax.devices()[0], np.ones(size, np.uint8)
    if source == "numpy":
        # Without a copy of its own the CPU device would only take the address.
        return lambda: jax.device_put(data, device, may_alias=False)
    pinned = jax.sharding.SingleDeviceSharding(device, memory_kind="pinned_host")
    there = jax.device_put(data, pinned)
    here = jax.sharding.SingleDeviceSharding(device)
    return lambda: jax.device_put(there, here)


def _matmul_rate(kind: str, effort: Effort) -> float:
    size = effort.matrix
    matrix = jnp.ones((size, size), kind)
    product = jax.jit(jnp.matmul)
    return 2 * size**3 / median_s(lambda: product(matrix, matrix), effort.repeats)


def _memory_rate(effort: Effort) -> float:
    """Bytes read a second, by summing up a large array: what reading weights is like."""
    values = jnp.ones(effort.memory_bytes // 4, jnp.float32)
    summed = jax.jit(jnp.sum)
    return effort.memory_bytes / median_s(lambda: summed(values), effort.repeats)


def _host_flops(effort: Effort) -> float:
    size = effort.matrix
    matrix = np.ones((size, size), np.float32)
    return 2 * size**3 / median_s(lambda: matrix @ matrix, effort.repeats)


def _host_memory_rate(effort: Effort) -> float:
    values = np.ones(effort.memory_bytes // 4, np.float32)
    return effort.memory_bytes / median_s(lambda: values.sum(), effort.repeats)


def dispatch_times(effort: Effort) -> tuple[float, float]:
    """Returns the seconds of a jitted call that does next to nothing, and of bringing it home."""
    value, step = jnp.zeros(8), jax.jit(lambda x: x + 1)
    call_s = median_s(lambda: step(value), 20 * effort.repeats)
    both_s = median_s(lambda: np.asarray(step(value)), 20 * effort.repeats)
    return call_s, max(both_s - call_s, 0.0)


def median_s(run: Callable[[], Any], repeats: int) -> float:
    """Returns the median seconds of some calls, each waited for, after one that compiles."""
    jax.block_until_ready(run())
    taken = []
    for _ in range(repeats):
        begun = time.perf_counter()
        jax.block_until_ready(run())
        taken.append(time.perf_counter() - begun)
    return max(float(np.median(taken)), 1e-9)


def _device_bytes(device: Any) -> int:
    stats = device.memory_stats() or {}
    if "bytes_limit" in stats:
        return int(stats["bytes_limit"])
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
