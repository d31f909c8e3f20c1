"""Replace every missing expert by the best resident one, however far its score.

Plan: every miss is replaced by a resident not demanded, the highest of both first, one for one.

Source: SpecMD 3.1.2, "Substitution score", whose collapse in quality suggests no bound.
"""

from specmd_jax.core.types import Event, ModelShape
from specmd_jax.policies.base import PROBS, LayerView, Miss, MissPlan
from specmd_jax.policies.miss.substitute import swap


def plan(params: tuple, row: LayerView, event: Event, shape: ModelShape) -> MissPlan:
    return swap(row, event, row.missing, row.resident & ~event.used)


policy = Miss(plan, reads=(PROBS,), lossless=False, doc=__doc__)
