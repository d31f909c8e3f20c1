"""The configurations of a batch as one: what they share stays one array, the rest is stacked."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Integer

from specmd_jax.policies.strategy import StrategyParams
from specmd_jax.simulator.timeline import Costs


class SimConfig(NamedTuple):
    """One configuration of a strategy."""

    params: StrategyParams
    capacity: Integer[np.ndarray, " W"]  # units of each pool
    costs: Costs | None = None


def stack(configs: Sequence[SimConfig]) -> tuple[SimConfig, SimConfig]:
    """Returns the configurations as one, batched only where they differ, and where they do."""
    leaves = [jax.tree.leaves(config) for config in configs]
    structure = jax.tree.structure(configs[0])
    batched, differs = [], []
    for values in zip(*leaves, strict=True):
        arrays = [as_array(value) for value in values]
        same = all(np.array_equal(arrays[0], other) for other in arrays[1:])
        batched.append(jnp.asarray(arrays[0] if same else np.stack(arrays)))
        differs.append(not same)
    # The capacity is always batched, so that a batch of one is a batch too.
    batch = jax.tree.unflatten(structure, batched)._replace(
        capacity=jnp.asarray(np.stack([config.capacity for config in configs]), jnp.int32)
    )
    return batch, jax.tree.unflatten(structure, differs)._replace(capacity=True)


def vmap_axes(differs: Any) -> Any:
    """Returns the axes for `jax.vmap` of a pytree that says where configurations differ."""
    return jax.tree.map(lambda differ: 0 if differ else None, differs)


def as_array(value: Any) -> np.ndarray:
    """Returns a number or an array in the 32 bits that the simulator computes in."""
    array = np.asarray(value)
    if array.dtype == np.float64:
        return array.astype(np.float32)
    return array.astype(np.int32) if array.dtype == np.int64 else array


def with_costs(batch: SimConfig, differs: SimConfig, start: int, length: int) -> SimConfig:
    """Returns `batch` with the costs of `length` passes from `start`, and of the next one.

    Args:
      differs: whether configurations do in each array of `batch`.
      start, length: in passes of the trace.
    """
    if batch.costs is None:
        return batch

    def part(name: str) -> jax.Array:
        values, differ = getattr(batch.costs, name), getattr(differs.costs, name)
        index = np.minimum(np.arange(start, start + length + 1), values.shape[-1] - 1)
        return values[:, index] if differ else values[index]

    names = ["attention", "shared", "head", *(["decide"] if batch.costs.decide is not None else [])]
    by_pass = {name: part(name) for name in names}
    return batch._replace(costs=batch.costs._replace(**by_pass))
