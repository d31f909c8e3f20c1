"""Load every missing expert at full precision and wait for it.

Plan: every miss at tier 0.

Source: the baseline of SpecMD, 3.1.2; lossless.
"""

import jax.numpy as jnp

from specmd_jax.policies.base import LayerView, Miss, MissPlan


def load_all(row: LayerView) -> MissPlan:
    """Returns the plan that loads every miss at tier 0, from which the other policies start."""
    nobody = jnp.zeros(row.hit.shape, bool)
    return MissPlan(jnp.zeros(row.hit.shape, jnp.int8), nobody, nobody, nobody, nobody)


policy = Miss(None, doc=__doc__)
