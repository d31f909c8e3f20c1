"""Top-k where a file only lists ids: the widest cut in which no token names an expert twice."""

from collections.abc import Sequence
from math import gcd

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
    top_k = next(width for width in widths if _fits(groups, width))
    return top_k, [
        f"top-k not recorded: taken as {top_k}, the most in which no token repeats an id"
    ]


def _fits(groups: Sequence[Sequence[int]], width: int) -> bool:
    """Whether no token names an expert twice when each has `width`; 1 always fits."""
    return all(
        len(set(group[at : at + width])) == width
        for group in groups
        for at in range(0, len(group), width)
    )
