"""Load every missing expert at full precision and wait for it.

Source: the baseline of SpecMD, 3.1.2; lossless.
"""

import jax.numpy as jnp

from specmd_jax.core.types import Event, ModelShape
from specmd_jax.policies.base import LayerView, Miss, MissPlan


def load_all(row: LayerView) -> MissPlan:
    """Returns the plan that loads every miss at tier 0: the others start from it."""
    nobody = jnp.zeros(row.hit.shape, bool)
    return MissPlan(jnp.zeros(row.hit.shape, jnp.int8), nobody, nobody, nobody, nobody)


def plan(params: tuple, row: LayerView, event: Event, shape: ModelShape) -> MissPlan:
    return load_all(row)


policy = Miss(plan, doc=__doc__)
