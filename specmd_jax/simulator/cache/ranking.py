"""The search for victims: the lowest-ranked copies, as many as it takes to free enough units.

Ranks are total: ascending (score, event of last use, layer, expert). One pass over all copies finds
the lowest of each layer; after that a victim costs one layer's row, not the whole cache, so
the search is as exact as sorting and far cheaper.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Int8, Real

from specmd_jax.core.arrays import zeros
from specmd_jax.core.types import ModelShape

SMALLEST_NORMAL = 1 << 23  # as float bits: below it lie denormals, which the CPU flushes to zero
LARGEST = jnp.inf


class Victims(NamedTuple):
    chosen: Bool[Array, "R N"]
    copies: Int[Array, ""]
    units: Int[Array, ""]
    broken: Bool[Array, ""]  # a candidate's score was not a number


def no_victims(shape: ModelShape) -> Victims:
    """Returns the choice of nobody."""
    return Victims(zeros(shape, bool), jnp.int32(0), jnp.int32(0), jnp.bool_(False))


class _Search(NamedTuple):
    """The candidates not chosen yet, each layer's row by its lowest: victims are below it."""

    lowest: Float[Array, " R"] | None  # score
    oldest: Float[Array, " R"]  # stamp (last use, expert), infinite when the row is empty
    copies: Int[Array, ""]  # chosen so far
    units: Int[Array, ""]


def orderable(values: Int[Array, "..."]) -> Float[Array, "..."]:
    """Returns floats in the same order as the integers, exactly (not as the same numbers).

    XLA vectorises float minima on CPU and integer ones not: this halves the time of the search.
    Integers must lie within +-(2**31 - 2**24).
    """
    bits = jnp.abs(values) + SMALLEST_NORMAL
    return jnp.copysign(jax.lax.bitcast_convert_type(bits, jnp.float32), values.astype(jnp.float32))


def _integer(ordered: Float[Array, "..."]) -> Int[Array, "..."]:
    """Undoes `orderable`."""
    magnitude = jax.lax.bitcast_convert_type(jnp.abs(ordered), jnp.int32) - SMALLEST_NORMAL
    return jnp.where(ordered < 0, -magnitude, magnitude)


def lowest(
    score: Real[Array, "R N"] | None,
    last_used: Int[Array, "R N"],
    candidates: Bool[Array, "R N"],
    needed: Int[Array, ""],
    tier: Int8[Array, "R N"],
    units: Int[Array, "R Q"],
) -> Victims:
    """Chooses the lowest-ranked candidates, one by one, until `needed` units are free.

    Args:
      score: the first key; None if recency alone ranks.
      needed: units to free; if all candidates together have less, all are chosen.
      tier, units: a candidate's size is `units[row, tier]`.
    """
    num_experts = last_used.shape[1]
    stamp = orderable(last_used * num_experts + jnp.arange(num_experts, dtype=jnp.int32))
    broken = jnp.bool_(False)
    if score is not None:
        if jnp.issubdtype(score.dtype, jnp.integer):
            score = orderable(score)
        else:
            broken = jnp.any(candidates & jnp.isnan(score))
    none = jnp.int32(0)
    start = _Search(*_first(score, stamp, candidates), none, none)

    def goes_on(search: _Search) -> Bool[Array, ""]:
        return (search.units < needed) & jnp.any(search.oldest < LARGEST)

    def take_one(search: _Search) -> _Search:
        return _take_one(search, score, stamp, candidates, tier, units)

    end = jax.lax.while_loop(goes_on, take_one, start)
    below = stamp < end.oldest[:, None]
    if score is not None:
        assert end.lowest is not None
        bound = end.lowest[:, None]
        below = (score < bound) | ((score == bound) & below)
    return Victims(candidates & below, end.copies, end.units, broken)


def _first(
    score: Float[Array, "*R N"] | None,
    stamp: Float[Array, "*R N"],
    candidates: Bool[Array, "*R N"],
) -> tuple[Float[Array, "*R"] | None, Float[Array, "*R"]]:
    """Returns score and stamp of the first candidate in rank of each row."""
    if score is None:
        return None, jnp.min(jnp.where(candidates, stamp, LARGEST), axis=-1)
    lowest = jnp.min(jnp.where(candidates, score, LARGEST), axis=-1)
    tied = candidates & (score == lowest[..., None])
    return lowest, jnp.min(jnp.where(tied, stamp, LARGEST), axis=-1)


def _take_one(
    search: _Search,
    score: Float[Array, "R N"] | None,
    stamp: Float[Array, "R N"],
    candidates: Bool[Array, "R N"],
    tier: Int8[Array, "R N"],
    units: Int[Array, "R Q"],
) -> _Search:
    num_rows, num_experts = stamp.shape
    rows = jnp.arange(num_rows, dtype=jnp.int32)
    some, worst = search.oldest < LARGEST, jnp.float32(LARGEST)
    if search.lowest is not None:
        worst = jnp.min(jnp.where(some, search.lowest, LARGEST))
        some = some & (search.lowest == worst)
    event = jnp.floor_divide(_integer(search.oldest), num_experts)
    event = jnp.where(some, event, jnp.iinfo(jnp.int32).max)
    row = jnp.min(jnp.where(event == jnp.min(event), rows, num_rows - 1))
    oldest = search.oldest[row]

    left, own_score = candidates[row] & (stamp[row] > oldest), None
    if score is not None:
        own_score, beyond = score[row], stamp[row] > oldest
        beyond = (own_score > worst) | ((own_score == worst) & beyond)
        left = candidates[row] & beyond
    next_score, next_stamp = _first(own_score, stamp[row], left)
    size = units[row, 0]
    if units.shape[1] > 1:
        size = units[row, tier[row, _integer(oldest) % num_experts]]
    lowest = search.lowest
    if lowest is not None and next_score is not None:
        lowest = jnp.where(rows == row, next_score, lowest)
    return _Search(
        lowest,
        jnp.where(rows == row, next_stamp, search.oldest),
        search.copies + 1,
        search.units + size,
    )
