"""Compute a missing expert on the host when few tokens need it, else load it.

Plan: on the host if at most `break_even` tokens chose the expert, else loaded.

Source: Fiddler (arXiv 2402.07033): host cost 7 a token against 70 for a transfer; lossless.
"""

from typing import NamedTuple

from jaxtyping import Array, Int

from specmd_jax.core.types import Event, ModelShape
from specmd_jax.policies.base import LayerView, Miss, MissPlan
from specmd_jax.policies.miss.fetch import load_all


class CpuParams(NamedTuple):
    break_even: Int[Array, ""] | int = 10  # tokens up to which the host is the faster way


def plan(params: CpuParams, row: LayerView, event: Event, shape: ModelShape) -> MissPlan:
    return load_all(row)._replace(on_host=row.missing & (event.routed <= params.break_even))


policy = Miss(plan, CpuParams(), doc=__doc__)
