"""The search for victims: the lowest-ranked copies, as many as it takes to free enough units.

Ranks are total: ascending (score, event of last use, layer, expert). One pass over all copies finds
the lowest of each layer; after that a victim costs one layer's row, not the whole cache, so
the search is as exact as sorting and far cheaper.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Int8, Real

SMALLEST_NORMAL = 1 << 23  # as float bits: below it lie denormals, which the CPU flushes to zero
LARGEST = jnp.inf


class Victims(NamedTuple):
    chosen: Bool[Array, "R N"]
    copies: Int[Array, ""]
    units: Int[Array, ""]
    broken: Bool[Array, ""]  # a candidate's score was not a number


def no_victims(shape: tuple[int, int]) -> Victims:
    return Victims(jnp.zeros(shape, bool), jnp.int32(0), jnp.int32(0), jnp.bool_(False))


class _Search(NamedTuple):
    lowest: Float[Array, " R"]  # lowest score left in each row
    oldest: Float[Array, " R"]  # of those, the lowest stamp (last use, expert)
    bound: "_Rank"  # of the latest victim
    copies: Int[Array, ""]
    units: Int[Array, ""]


class _Rank(NamedTuple):
    score: Float[Array, ""]
    last_used: Int[Array, ""]
    row: Int[Array, ""]
    expert: Int[Array, ""]


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
    broken = jnp.bool_(False)
    if score is None:
        score = jnp.zeros(last_used.shape, jnp.float32)
        lowest_scores = jnp.zeros(last_used.shape[0], jnp.float32)
    else:
        if jnp.issubdtype(score.dtype, jnp.integer):
            score = orderable(score)
        else:
            broken = jnp.any(candidates & jnp.isnan(score))
        lowest_scores = jnp.min(jnp.where(candidates, score, LARGEST), axis=1)
    num_experts = last_used.shape[1]
    expert = jnp.arange(num_experts, dtype=jnp.int32)
    stamp = orderable(last_used * num_experts + expert)
    tied = candidates & (score == lowest_scores[:, None])
    start = _Search(
        lowest_scores,
        jnp.min(jnp.where(tied, stamp, LARGEST), axis=1),
        _Rank(jnp.float32(-LARGEST), jnp.int32(-2), jnp.int32(-1), jnp.int32(-1)),
        jnp.int32(0),
        jnp.int32(0),
    )

    def goes_on(search: _Search) -> Bool[Array, ""]:
        return (search.units < needed) & jnp.any(search.oldest < LARGEST)

    def take_one(search: _Search) -> _Search:
        return _take_one(search, score, stamp, candidates, tier, units)

    end = jax.lax.while_loop(goes_on, take_one, start)
    chosen = candidates & _up_to(end.bound, score, last_used, stamp)
    return Victims(chosen, end.copies, end.units, broken)


def _take_one(
    search: _Search,
    score: Float[Array, "R N"],
    stamp: Float[Array, "R N"],
    candidates: Bool[Array, "R N"],
    tier: Int8[Array, "R N"],
    units: Int[Array, "R Q"],
) -> _Search:
    num_rows, num_experts = stamp.shape
    rows = jnp.arange(num_rows, dtype=jnp.int32)
    some = search.oldest < LARGEST
    stamps = jnp.where(some, _integer(search.oldest), 0)
    worst = jnp.min(jnp.where(some, search.lowest, LARGEST))
    at_worst = some & (search.lowest == worst)
    event = jnp.where(at_worst, jnp.floor_divide(stamps, num_experts), _never())
    last_used = jnp.min(event)
    row = jnp.min(jnp.where(event == last_used, rows, num_rows - 1))
    oldest = search.oldest[row]
    expert = _integer(oldest) - last_used * num_experts

    beyond = (score[row] > worst) | ((score[row] == worst) & (stamp[row] > oldest))
    left = candidates[row] & beyond
    next_score = jnp.min(jnp.where(left, score[row], LARGEST))
    tied = left & (score[row] == next_score)
    next_stamp = jnp.min(jnp.where(tied, stamp[row], LARGEST))
    return _Search(
        jnp.where(rows == row, next_score, search.lowest),
        jnp.where(rows == row, next_stamp, search.oldest),
        _Rank(worst, last_used, row, expert),
        search.copies + 1,
        search.units + units[row, tier[row, expert]],
    )


def _never() -> Int[Array, ""]:
    return jnp.int32(jnp.iinfo(jnp.int32).max)


def _up_to(
    bound: _Rank,
    score: Float[Array, "R N"],
    last_used: Int[Array, "R N"],
    stamp: Float[Array, "R N"],
) -> Bool[Array, "R N"]:
    num_rows, num_experts = last_used.shape
    row = jnp.arange(num_rows, dtype=jnp.int32)[:, None]
    own = orderable(bound.last_used * num_experts + bound.expert)
    earlier_row = (row < bound.row) | ((row == bound.row) & (stamp <= own))
    older = (last_used < bound.last_used) | ((last_used == bound.last_used) & earlier_row)
    return (score < bound.score) | ((score == bound.score) & older)
