"""From a machine and a model to ticks: what each step of a replay takes.

The times come from `roofline`; here they become whole ticks of a size for which the longest event
still fits the simulator's 32-bit clock.
"""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from specmd_jax.core.errors import InputError
from specmd_jax.hardware.capacity import BASE_PRECISION, Copies
from specmd_jax.hardware.profiles import HardwareProfile
from specmd_jax.hardware.roofline import (
    attention_s,
    expert_roof,
    head_s,
    host_expert_s,
    shared_s,
    transfer_s,
)
from specmd_jax.model_zoo import ModelSpec
from specmd_jax.simulator.timeline import Costs
from specmd_jax.traces import Trace

FINEST_TICK_S = 1e-8
LONGEST_EVENT_TICKS = 1 << 29


class Price(NamedTuple):
    """Costs as numpy arrays, and what a tick is."""

    costs: Costs
    tick_s: float


def price(
    trace: Trace,
    hardware: HardwareProfile,
    spec: ModelSpec,
    copies: Copies,
    *,
    context: int = 1024,
    overlap: bool = True,
) -> Price:
    """Returns what replaying `trace` costs on `hardware`.

    Args:
      context: tokens in the KV cache of each sequence beside those of the pass.
      overlap: whether resident experts compute while others load.

    Raises:
      InputError: the sizes of the copies are unknown, or an event would take hours.
    """
    if copies.nbytes is None:
        raise InputError("times need the experts' sizes: give --model")
    tokens = np.bincount(trace.step, minlength=trace.num_passes)
    sequences = _sequences(trace)
    precisions = [p if p != "as recorded" else BASE_PRECISION for p in copies.precisions]
    roofs = [expert_roof(spec, hardware, precision) for precision in precisions]
    loads = np.vectorize(lambda size: 0.0 if hardware.unified else transfer_s(hardware, size))(
        copies.nbytes.astype(np.float64)
    )
    kinds = sorted(set(zip(tokens.tolist(), sequences.tolist(), strict=True)))
    attention = {
        kind: attention_s(spec, hardware, kind[0], _context(context, *kind), sequences=kind[1])
        for kind in kinds
    }
    per_pass = [attention[kind] for kind in zip(tokens.tolist(), sequences.tolist(), strict=True)]
    shared = {count: shared_s(spec, hardware, count) for count in set(tokens.tolist())}
    head = {count: head_s(spec, hardware, count) for count in set(sequences.tolist())}
    host_one = host_expert_s(spec, hardware, 1, precisions[0])
    host_many = host_expert_s(spec, hardware, 1 << 20, precisions[0]) / 1024
    longest = max(attention.values()) + hardware.decide_s
    longest += trace.num_experts * (float(loads.max()) + hardware.arrive_s)
    product = int(tokens.max()) * max(host_many, roofs[0].per_token_s * 1024)
    tick = _tick(max(longest, product))

    def ticks(seconds: float | list[float] | np.ndarray) -> Array:
        return jnp.asarray(np.rint(np.asarray(seconds) / tick), jnp.int32)

    costs = Costs(
        attention=ticks(per_pass),
        shared=ticks([shared[count] for count in tokens.tolist()]),
        head=ticks([head[count] for count in sequences.tolist()]),
        expert_memory=ticks([roof.floor_s for roof in roofs]),
        expert_per_1024=ticks(roofs[0].per_token_s * 1024),
        host_memory=ticks(host_one),
        host_per_1024=ticks(host_many),
        load=ticks(loads),
        overlap=jnp.asarray(overlap),
        arrive=ticks(hardware.arrive_s),
        decide=ticks([hardware.decide_s] * trace.num_passes),
    )
    return Price(costs, tick)


def _sequences(trace: Trace) -> np.ndarray:
    """Returns how many requests take part in each pass."""
    pairs = np.unique(np.stack([trace.step, trace.request]), axis=1)
    return np.bincount(pairs[0], minlength=trace.num_passes)


def _context(context: int, tokens: int, sequences: int) -> int:
    return context + -(-tokens // sequences)


def _tick(longest_s: float) -> float:
    tick = FINEST_TICK_S
    while longest_s / tick >= LONGEST_EVENT_TICKS:
        tick *= 10
    if tick > 1e-5:
        raise InputError(
            f"one layer would take {longest_s:.0f} s on this link: check --link and the model"
        )
    return tick
