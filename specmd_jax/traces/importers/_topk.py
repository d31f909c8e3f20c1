"""Top-k where a file only lists ids: the widest cut in which no token names an expert twice."""

from collections.abc import Sequence
from itertools import chain
from math import gcd

import numpy as np
from jaxtyping import Integer

from specmd_jax.core.errors import InputError
from specmd_jax.traces.trace import MAX_EXPERTS


def settle_top_k(groups: Sequence[Sequence[int]], given: int | None) -> tuple[int, list[str]]:
    """Experts a token, and what was assumed about it.

    Args:
      groups: each the ids of whole tokens, one token after another.
      given: what the user says; it must divide every group.

    Raises:
      InputError: `given` does not divide the groups, or there is nothing to divide.
    """
    common = gcd(*(len(group) for group in groups))
    if not common:
        raise InputError("no expert is listed: record at least one token")
    if given is not None:
        if common % given:
            raise InputError(
                f"top-k {given} does not divide the number of ids ({common} in common)"
            )
        return given, []
    widths = [width for width in range(min(common, MAX_EXPERTS), 0, -1) if common % width == 0]
    earlier, later = _repeats(groups)
    top_k = next(width for width in widths if not (earlier // width == later // width).any())
    return top_k, [
        f"top-k not recorded: taken as {top_k}, the most in which no token repeats an id"
    ]


def _repeats(
    groups: Sequence[Sequence[int]],
) -> tuple[Integer[np.ndarray, " R"], Integer[np.ndarray, " R"]]:
    """Where in its group an id stands, and where the same id stands next."""
    lengths = [len(group) for group in groups]
    ids = np.fromiter(chain(*groups), np.int64, sum(lengths))
    group = np.repeat(np.arange(len(groups)), lengths)
    place = np.arange(len(ids)) - np.repeat(np.cumsum([0, *lengths[:-1]]), lengths)
    order = np.lexsort((place, ids, group))
    before, after = order[:-1], order[1:]
    same = (ids[before] == ids[after]) & (group[before] == group[after])
    return place[before[same]], place[after[same]]
