"""The experts of that layer demanded most often so far.

Names: the ceil(overfetch |D|) experts of most demands, D being the running demand.

Source: popularity prefetch, as in EdgeMoE and in engines that pin "hot" experts.
"""

from typing import NamedTuple

from jaxtyping import Array, Int

from specmd_jax.core.arrays import row, with_row, zeros
from specmd_jax.core.types import Event, ModelShape
from specmd_jax.policies.base import Prefetch
from specmd_jax.policies.prefetch.next_gate import WidthParams, highest, width


class HottestState(NamedTuple):
    demands: Int[Array, "L N"]


def init(params: WidthParams, shape: ModelShape) -> HottestState:
    return HottestState(zeros(shape))


def select(
    params: WidthParams, state: HottestState, event: Event, layer: Int[Array, ""], ahead: int
) -> Int[Array, " N"]:
    return highest(row(state.demands, layer), width(params, event))


def observe(params: WidthParams, state: HottestState, event: Event) -> HottestState:
    demands = row(state.demands, event.layer) + event.used
    return HottestState(with_row(state.demands, event.layer, demands))


policy = Prefetch(init, select, observe, WidthParams(), doc=__doc__)
