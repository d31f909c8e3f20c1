"""Replace every missing expert by the best resident one, however far its score.

Source: SpecMD 3.1.2, "Substitution score", whose collapse in quality suggests no bound.
"""

from specmd_jax.core.types import Event, ModelShape
from specmd_jax.miss.substitute import swap
from specmd_jax.policy import PROBS, Miss, Plan, Row


def plan(params: tuple, row: Row, event: Event, shape: ModelShape) -> Plan:
    return swap(row, event, row.missing, row.resident & ~event.used)


policy = Miss(plan, reads=(PROBS,), lossless=False, doc=__doc__)
