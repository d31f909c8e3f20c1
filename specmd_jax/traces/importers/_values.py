"""Numbers read from other programs' files: each is checked before it is believed."""

import math
import re
from collections.abc import Sequence
from typing import Any

from specmd_jax.core.errors import InputError
from specmd_jax.core.json_files import shown

_INTEGER = re.compile(r"\s*([+-]?[0-9]{1,18})(\.0*)?\s*")
_LARGEST = 2**31 - 1  # of any id, position or step
_LARGEST_SCORE = 1e30  # a score beyond float32 is damage


def integer(value: object, what: str) -> int:
    """A whole number, given as one or as its decimal text.

    Raises:
      InputError: it is anything else, or outside 32 bits; `what` names it.
    """
    match = _INTEGER.fullmatch(value) if isinstance(value, str) else None
    if match is not None:
        value = int(match[1])
    if isinstance(value, float) and value.is_integer():  # as pandas writes a column with gaps
        value = int(value)
    if type(value) is not int or abs(value) > _LARGEST:
        raise InputError(f"{what} is {shown(value)}: expected a whole number below 2^31")
    return value


def real(value: object, what: str) -> float:
    """A finite number, given as one or as its decimal text.

    Raises:
      InputError: it is anything else, NaN or infinity among them; `what` names it.
    """
    try:
        number = float(value) if isinstance(value, int | float | str) else math.nan
    except (ValueError, OverflowError):
        number = math.nan
    if not abs(number) <= _LARGEST_SCORE:
        raise InputError(f"{what} is {shown(value)}: expected a finite number")
    return number


def integers(values: object, what: str) -> list[int]:
    """A list of whole numbers.

    Raises:
      InputError: it is no list, or an item is not a whole number.
    """
    items = _sequence(values, what)
    if all(type(item) is int and abs(item) <= _LARGEST for item in items):  # nearly always
        return list(items)
    return [integer(item, what) for item in items]


def reals(values: object, what: str) -> list[float]:
    """A list of finite numbers.

    Raises:
      InputError: it is no list, or an item is not a finite number.
    """
    items = _sequence(values, what)
    if all(type(item) is float and abs(item) <= _LARGEST_SCORE for item in items):
        return list(items)
    return [real(item, what) for item in items]


def log_probabilities(values: object, what: str) -> list[float]:
    """Router logits, up to a constant, from the probabilities of all experts.

    A probability of 0 (it underflowed) counts as the smallest float32.

    Raises:
      InputError: one is negative, or no finite number.
    """
    probabilities = reals(values, what)
    if any(p < 0 for p in probabilities):
        raise InputError(f"{what} is {min(probabilities)}: a probability cannot be negative")
    return [math.log(max(p, 1e-38)) for p in probabilities]


def text(value: object) -> str:
    """The value if it is a string, else "": names are worth having but not worth failing for."""
    return value if isinstance(value, str) else ""


def _sequence(values: object, what: str) -> Sequence[Any]:
    if not isinstance(values, list | tuple):
        raise InputError(f"{what} is {shown(values)}: expected a list")
    return values
