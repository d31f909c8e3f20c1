"""Experts computed on the host, where their weights are: Fiddler's answer to a miss."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from specmd_jax.core.interned import Interned
from specmd_jax.runtime.offload.ffn import Blocks, FfnSpec, InRow, compute_arrived
from specmd_jax.runtime.offload.store import ExpertStore
from specmd_kernels import Activation

Hosted = tuple[Float[Array, "blocks rows H"], Bool[np.ndarray, " N"]]  # and whose blocks they are


class HostExperts:
    """Computes beside the device: `begin` returns at once, `merge` brings the results over."""

    def __init__(self, activation: Activation, store: ExpertStore):
        # XLA, whatever the device runs.
        self._ffn = Interned(FfnSpec(store.packings[0], activation, "xla"))
        self._store = store
        self._host = jax.local_devices(backend="cpu")[0]
        self._device = jax.local_devices()[0]

    def begin(self, layer: int, blocks: Blocks, experts: Bool[np.ndarray, " N"]) -> Hosted | None:
        """Begins to compute some experts of a layer; None if there are none."""
        if not experts.any():
            return None
        there = jax.device_put(blocks, self._host)
        for expert in np.flatnonzero(experts):
            row = np.asarray(self._store[0, layer, int(expert)])
            there = _compute(self._ffn, there, InRow(row, np.int32(expert)))
        return there.rows.out, experts

    def merge(self, blocks: Blocks, hosted: Hosted | None) -> Blocks:
        """Returns the blocks with what the host computed of them."""
        if hosted is None:
            return blocks
        out, experts = hosted
        merged = _merge(blocks, jax.device_put(out, self._device), experts)
        return blocks._replace(rows=blocks.rows._replace(out=merged))


@partial(jax.jit, static_argnums=0)
def _compute(ffn: Interned[FfnSpec], blocks: Blocks, left: InRow) -> Blocks:
    return compute_arrived(ffn.value, blocks, left)


@jax.jit
def _merge(
    blocks: Blocks, out: Float[Array, "blocks rows H"], experts: Bool[Array, " N"]
) -> Float[Array, "blocks rows H"]:
    theirs = experts[blocks.plan.expert]
    return jnp.where(theirs[:, None, None], out, blocks.rows.out)
