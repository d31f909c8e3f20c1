"""From a machine and a model to ticks: what each step of a replay takes.

The times come from `roofline`; here they become whole ticks of a size for which all that may happen
between two gates still fits the simulator's 32-bit clock.
"""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int

from specmd_jax.core.errors import InputError
from specmd_jax.hardware.capacity import BASE_PRECISION, Copies
from specmd_jax.hardware.profiles import HardwareProfile
from specmd_jax.hardware.roofline import (
    Roof,
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
COARSEST_TICK_S = 1e-5
MOST_TICKS = 1 << 30  # between two gates: twice as many still fit an int32
MOST_TOKENS = 1 << 21  # of a pass: times 1023 they still fit, see `timeline`


class Price(NamedTuple):
    """Costs, and what a tick is."""

    costs: Costs
    tick_s: float


class PassSizes(NamedTuple):
    """What the times of passes depend on."""

    tokens: Int[np.ndarray, " P"]
    sequences: Int[np.ndarray, " P"]  # that take part in each
    top_k: int

    @classmethod
    def of(cls, trace: Trace) -> "PassSizes":
        """Returns those of the passes of a trace."""
        requests = trace.request.astype(np.int64) - int(trace.request.min())
        seen = np.unique((trace.step.astype(np.int64) << 32) + requests)
        tokens, sequences = (np.bincount(step) for step in (trace.step, seen >> 32))
        return cls(tokens, sequences, trace.shape.top_k)


class _Kinds(NamedTuple):
    """The passes told apart: a long trace has few kinds of them."""

    tokens: list[int]
    sequences: list[int]
    of_pass: Int[np.ndarray, " P"]


class _Seconds(NamedTuple):
    """What everything takes, as `Costs`; of what depends on the pass, by kind of pass."""

    attention: list[float]
    shared: list[float]
    head: list[float]
    experts: list[Roof]  # by tier
    host: Roof
    load: np.ndarray  # [L, Q]


def price(
    trace: Trace,
    hardware: HardwareProfile,
    spec: ModelSpec,
    copies: Copies,
    *,
    context: int = 1024,
    overlap: bool = True,
) -> Price:
    """Returns what replaying `trace` costs on `hardware`, see `price_passes`.

    Args:
      copies: whose bytes go over the link.
      context: tokens in the KV cache of each request.
      overlap: whether residents compute while others load.
    """
    sizes = PassSizes.of(trace)
    return price_passes(sizes, hardware, spec, copies, context=context, overlap=overlap)


def price_passes(
    sizes: PassSizes,
    hardware: HardwareProfile,
    spec: ModelSpec,
    copies: Copies,
    *,
    context: int = 1024,
    overlap: bool = True,
) -> Price:
    """Returns what passes of some sizes cost on `hardware`.

    Args:
      context: tokens in the KV cache of each sequence beside those of the pass.
      overlap: whether resident experts compute while others load.

    Raises:
      InputError: the sizes of the copies are unknown, a pass is too long, or an event would take
        hours.
    """
    kinds = _kinds(sizes)
    if max(kinds.tokens) >= MOST_TOKENS:
        raise InputError(
            f"a pass of {max(kinds.tokens):,} tokens is too long to be timed: form passes of "
            f"fewer than {MOST_TOKENS:,}"
        )
    taken = _seconds(kinds, hardware, spec, copies, context)
    tick = _tick(_longest_s(sizes, taken, hardware, spec.num_experts))

    def ticks(seconds: float | list[float] | np.ndarray) -> Array:
        return jnp.asarray(np.rint(np.asarray(seconds) / tick), jnp.int32)

    def by_pass(seconds: list[float]) -> Array:
        return jnp.asarray(np.asarray(ticks(seconds))[kinds.of_pass])

    costs = Costs(
        attention=by_pass(taken.attention),
        shared=by_pass(taken.shared),
        head=by_pass(taken.head),
        expert_memory=ticks([roof.floor_s for roof in taken.experts]),
        expert_per_1024=ticks(taken.experts[0].per_token_s * 1024),
        host_memory=ticks(taken.host.floor_s),
        host_per_1024=ticks(taken.host.per_token_s * 1024),
        load=ticks(taken.load),
        overlap=jnp.asarray(overlap),
        arrive=ticks(hardware.arrive_s),
        decide=by_pass([hardware.decide_s] * len(kinds.tokens)),
    )
    return Price(costs, tick)


def _kinds(sizes: PassSizes) -> _Kinds:
    both = (sizes.tokens.astype(np.int64) << 32) + sizes.sequences
    kinds, of_pass = np.unique(both, return_inverse=True)
    return _Kinds((kinds >> 32).tolist(), (kinds & 0xFFFFFFFF).tolist(), of_pass.astype(np.int32))


def _seconds(
    kinds: _Kinds, hardware: HardwareProfile, spec: ModelSpec, copies: Copies, context: int
) -> _Seconds:
    if copies.nbytes is None:
        raise InputError("times need the experts' sizes: give --model")
    precisions = [p if p != "as recorded" else BASE_PRECISION for p in copies.precisions]
    pairs = list(zip(kinds.tokens, kinds.sequences, strict=True))
    host_many = host_expert_s(spec, hardware, 1 << 20, precisions[0]) / 1024
    return _Seconds(
        [
            attention_s(spec, hardware, tokens, context + -(-tokens // many), sequences=many)
            for tokens, many in pairs
        ],
        [shared_s(spec, hardware, tokens) for tokens in kinds.tokens],
        [head_s(spec, hardware, many) for many in kinds.sequences],
        [expert_roof(spec, hardware, precision) for precision in precisions],
        Roof(host_expert_s(spec, hardware, 1, precisions[0]), host_many / 1024),
        np.vectorize(lambda size: transfer_s(hardware, size))(copies.nbytes.astype(np.float64)),
    )


def _longest_s(
    sizes: PassSizes, taken: _Seconds, hardware: HardwareProfile, num_experts: int
) -> float:
    """Returns a bound on what lies between two gates, whatever is loaded, computed and queued."""
    routed = int(sizes.tokens.max()) * sizes.top_k
    floors = [*(roof.floor_s for roof in taken.experts), taken.host.floor_s]
    each = float(taken.load.max()) + hardware.arrive_s + sum(floors)
    by_token = taken.experts[0].per_token_s + taken.host.per_token_s
    longest = 2 * max(taken.attention) + max(taken.shared) + max(taken.head) + hardware.decide_s
    return longest + (num_experts + 2) * each + routed * by_token


def _tick(longest_s: float) -> float:
    tick = FINEST_TICK_S
    while longest_s / tick >= MOST_TICKS:
        tick *= 10
    if tick > COARSEST_TICK_S:
        raise InputError(
            f"one layer would take {longest_s:.0f} s on this link: check --link and the model"
        )
    return tick
