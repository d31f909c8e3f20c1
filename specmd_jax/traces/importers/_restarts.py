"""Token indices that begin anew within a request: each time another pass, or another request.

Loggers inside an engine count the rows of a forward pass, not of a request, and files of several
runs are often one after another. A stretch is what lies between two such beginnings.
"""

from collections import defaultdict
from collections.abc import Hashable, Sequence
from typing import NamedTuple

from specmd_jax.core.errors import InputError

AGAIN = "give --restarts pass or --restarts request if the index begins anew"


class Place(NamedTuple):
    """Where a row of a table belongs."""

    request: Hashable
    layer: int
    token: int
    whole: bool  # the row lists all experts of the token there


def stretches(places: Sequence[Place], restarts: str | None) -> list[int]:
    """For each row the stretch of its request that it is in, from 0.

    Args:
      restarts: given where the user says that indices begin anew: then wherever they fall.

    Raises:
      InputError: rows are out of order or given twice, and do not begin anew either; the argument
        says at which row.
    """
    try:
        return _in_order(places, restarts is not None)
    except RowError:
        found = _sorted(places)
        if found is None:
            raise
        return found


class RowError(InputError):
    """Something is wrong with one row."""

    def __init__(self, at: int, message: str) -> None:
        super().__init__(message)
        self.at = at


def _in_order(places: Sequence[Place], told: bool) -> list[int]:
    """A row whose place its stretch has already begins another one."""
    found: list[int] = []
    state: dict[Hashable, _Request] = defaultdict(_Request)
    for at, place in enumerate(places):
        request = state[place.request]
        request.take(at, place, told)
        found.append(request.stretch)
    return found


class _Request:
    """The rows of one request so far."""

    def __init__(self) -> None:
        self.stretch = 0
        self._begin: int | None = None  # the token that the first stretch begins with
        self._seen: set[tuple[int, int]] = set()  # of this stretch
        self._last: dict[int, int] = {}  # token, by layer
        self._before: tuple[int, int] | None = None

    def take(self, at: int, place: Place, told: bool) -> None:
        """Takes the next row; a new stretch begins where it must."""
        here = (place.layer, place.token)
        going_on = here == self._before and not place.whole
        falls = place.token < self._last.get(place.layer, place.token)
        if self._begin is None:
            self._begin = place.token
        if not going_on and (here in self._seen or falls):
            anew = place.token == self._begin or (falls and self.stretch > 0)
            if not (told or anew):
                raise RowError(at, self._complaint(place, here in self._seen))
            self.stretch += 1
            self._seen.clear()
            self._last.clear()
        self._seen.add(here)
        self._last[place.layer] = place.token
        self._before = here

    def _complaint(self, place: Place, twice: bool) -> str:
        if twice:
            return (
                f"token {place.token} of request {place.request} is given layer {place.layer} "
                f"twice: was a part of the file copied in again? If not, {AGAIN}"
            )
        return (
            f"request {place.request}: token {place.token} comes after "
            f"{self._last[place.layer]}: sort the rows by token, or {AGAIN}"
        )


def _sorted(places: Sequence[Place]) -> list[int] | None:
    """Rows that were sorted by token: the n-th of a place is of the n-th stretch.

    None where tokens are out of order, that leaves a token without one of its layers, or rows
    list one expert each.
    """
    if not all(place.whole for place in places):
        return None
    count: dict[tuple[Hashable, int, int], int] = defaultdict(int)
    layers: dict[tuple[Hashable, int, int], set[int]] = defaultdict(set)
    last: dict[tuple[Hashable, int], int] = {}
    found = []
    for place in places:
        if place.token < last.get(place[:2], place.token):
            return None
        last[place[:2]] = place.token
        stretch = count[place[:3]]
        count[place[:3]] += 1
        layers[place.request, stretch, place.token].add(place.layer)
        found.append(stretch)
    every = set().union(*layers.values())
    if max(found, default=0) == 0 or any(held != every for held in layers.values()):
        return None
    return found
