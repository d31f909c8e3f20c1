"""Bringing a copy over: the act itself, whatever a link makes of how long it takes."""

from functools import cache

import jax
from jax.stages import Wrapped
from jaxtyping import Array, Shaped

from specmd_jax.runtime.offload.store import Packed, device_sharding

SMALL_BYTES = 512 << 10  # the Python of `device_put` takes as long as copying so much


def carry(expert: Packed) -> Shaped[Array, " P"]:
    """Begins to copy an expert to the device, and returns it at once.

    Where the device is a CPU, a compiled `device_put` copies a small expert in a tenth of the time
    that `device_put` itself takes to begin. From a large one it would not return at once.
    """
    copied = _copied()
    if copied is None or expert.nbytes > SMALL_BYTES:
        return jax.device_put(expert, device_sharding())
    return copied(expert)


@cache
def _copied() -> Wrapped | None:
    if jax.local_devices()[0].platform != "cpu":
        return None  # elsewhere programs run one after the other: it would wait for what computes
    sharding = device_sharding()
    return jax.jit(lambda row: jax.device_put(row, sharding))
