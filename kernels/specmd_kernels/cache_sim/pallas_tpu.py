"""The simulator on TPU: the cache in fast memory, the trace streaming past it.

The grid is (configuration, part of the trace). A configuration's cache and policy state stay in
VMEM from its first part to its last, while the next part of the trace is on its way.
"""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu
from jaxtyping import Array, Int

from specmd_kernels.cache_sim.kernel import Inputs, Setup, prepare, replay
from specmd_kernels.cache_sim.lowering import Buffer
from specmd_kernels.cache_sim.policy import CachePolicy
from specmd_kernels.cache_sim.serve import COLUMNS, Cache, empty

EVENTS = 512  # of a part


def cache_sim(
    policy: CachePolicy,
    params: Any,
    capacity: Int[Array, " C"],
    events: Int[Array, "P L N"],
    *,
    interpret: bool = False,
) -> Int[Array, "C L columns"]:
    """See `api.cache_sim`; here for a batch of configurations, counts in columns.

    Args:
      policy: whose functions are traced.
      params: of the policy, [C] along the first axis of each leaf.
      capacity: slots of each configuration.
      events: see `serve.packed`.
      interpret: run it without the device.
    """
    passes, layers, experts = events.shape
    setup, inputs = prepare(policy, params, capacity, events, lambda size: size)
    rows = events.reshape(-1, 1, experts)
    part = min(EVENTS, passes * layers)

    def own(leaf: Any) -> pl.BlockSpec:
        zeros = (0,) * (leaf.ndim - 1)
        return pl.BlockSpec((1, *leaf.shape[1:]), lambda config, part: (config, *zeros))

    scalars: Any = pl.BlockSpec(memory_space=pltpu.SMEM)
    whole = pl.BlockSpec(memory_space=pltpu.VMEM)
    specs: Any = Inputs(
        scalars,
        [scalars] * len(inputs.params),
        [own(leaf) for leaf in inputs.state],
        [whole] * len(inputs.score_constants),
        [whole] * len(inputs.update_constants),
    )
    cache = jax.tree.map(lambda leaf: pltpu.VMEM(leaf.shape, leaf.dtype), empty(layers, experts))
    counts = jax.ShapeDtypeStruct((capacity.shape[0], layers, COLUMNS), jnp.int32)
    return pl.pallas_call(
        partial(_kernel, setup, passes * layers, part),
        grid=(capacity.shape[0], -(-rows.shape[0] // part)),
        in_specs=[specs, pl.BlockSpec((part, 1, experts), lambda config, part: (part, 0, 0))],
        out_specs=own(counts),
        out_shape=counts,
        scratch_shapes=[
            cache._replace(copies=pltpu.SMEM((1,), jnp.int32)),
            [pltpu.VMEM((1, *leaf.shape[1:]), leaf.dtype) for leaf in inputs.state],
        ],
        compiler_params=pltpu.CompilerParams(dimension_semantics=("parallel", "arbitrary")),
        interpret=interpret,
        name="cache_sim",
    )(inputs, rows)


def _kernel(
    setup: Setup,
    events: int,
    size: int,
    inputs: Inputs,
    gate_ref,
    counts_ref,
    cache_refs: Any,
    state_refs: list[Any],
) -> None:
    config, part = pl.program_id(0), pl.program_id(1)

    @pl.when(part == 0)
    def _():
        cache = empty(setup.layers, setup.experts)
        _save(cache_refs, cache)
        for ref, first in zip(state_refs, inputs.state, strict=True):
            ref[...] = first[...]

    own = inputs._replace(
        capacity=inputs.capacity[config], params=[ref[config] for ref in inputs.params]
    )
    start = part * size
    clocks = start, jnp.minimum(start + size, events)
    cache = Cache(*[ref[...] for ref in cache_refs])._replace(copies=cache_refs.copies[0])
    state = [Buffer(ref, 0) if len(ref.shape) == 4 else ref[0] for ref in state_refs]
    cache, state = replay(setup, own, clocks, lambda clock: gate_ref[clock - start], cache, state)
    _save(cache_refs, cache)
    counts_ref[0] = cache.counts
    for ref, leaf in zip(state_refs, state, strict=True):
        if leaf is not None:
            ref[0] = leaf


def _save(cache_refs: Any, cache: Cache) -> None:
    for ref, value in zip(cache_refs, cache, strict=True):
        if ref is cache_refs.copies:
            ref[0] = value
        else:
            ref[...] = value
