"""The simulator on GPU, by Triton: a configuration is a program, its cache lies in registers.

The trace is read event by event, and shared by all programs through the second-level cache. What
a policy keeps in arrays of three axes lies in memory, and a barrier parts its events. Not by
Mosaic GPU, whose layouts know no minimum over a whole array.
"""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton as pltriton
from jaxtyping import Array, Int

from specmd_kernels.cache_sim.kernel import Inputs, Setup, prepare, replay
from specmd_kernels.cache_sim.lowering import Buffer
from specmd_kernels.cache_sim.policy import CachePolicy
from specmd_kernels.cache_sim.serve import COLUMNS, empty

MOST_COPIES = 1 << 14  # of a plane: beyond, what is carried no longer fits in registers
COPIES_A_WARP = 512


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
    rows, columns = pl.next_power_of_2(layers), pl.next_power_of_2(experts)
    if rows * columns > MOST_COPIES:
        raise NotImplementedError(f"{layers} x {experts} experts do not fit in registers")
    setup, inputs = prepare(policy, params, capacity, events, pl.next_power_of_2)
    padded = jnp.pad(events, [(0, 0), (0, 0), (0, columns - experts)]).reshape(-1, columns)
    large = [leaf for leaf in inputs.state if leaf.ndim == 4]
    small = [leaf if leaf.ndim < 4 else None for leaf in inputs.state]
    inputs = inputs._replace(state=small)
    ahead = len(jax.tree.leaves(inputs)) + 1
    counts = jax.ShapeDtypeStruct((capacity.shape[0], rows, COLUMNS), jnp.int32)
    found = pl.pallas_call(
        partial(_kernel, setup, passes * layers, interpret),
        grid=(capacity.shape[0],),
        out_shape=[counts, *[jax.ShapeDtypeStruct(leaf.shape, leaf.dtype) for leaf in large]],
        input_output_aliases={ahead + index: 1 + index for index in range(len(large))},
        compiler_params=pltriton.CompilerParams(
            num_warps=min(16, max(1, rows * columns // COPIES_A_WARP)), num_stages=1
        ),
        interpret=interpret,
        name="cache_sim",
    )(inputs, padded, large)
    return found[0][:, :layers]


def _kernel(
    setup: Setup,
    events: int,
    interpret: bool,
    inputs: Inputs,
    gate_ref,
    _: list[Any],
    counts_ref,
    *large_refs,
) -> None:
    config = pl.program_id(0)
    own = inputs._replace(
        capacity=inputs.capacity[config], params=[ref[config] for ref in inputs.params]
    )
    buffers = iter(large_refs)
    state = [Buffer(next(buffers), config) if ref is None else ref[config] for ref in inputs.state]

    def gate_of(clock: Int[Array, ""]) -> Int[Array, "1 N"]:
        if large_refs and not interpret:  # the last event's stores are there for all threads
            pltriton.debug_barrier()
        return gate_ref[pl.ds(clock, 1), :]

    cold = empty(counts_ref.shape[1], gate_ref.shape[1])
    cache, _ = replay(setup, own, (0, events), gate_of, cold, state)
    counts_ref[config] = cache.counts
