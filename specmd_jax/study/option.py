"""What an option is: how its value is written in a flag, in a sweep's axis and in Python.

Every field of a `Choice` is declared with one; flags, axes and checks are made from them.
"""

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import Field, field
from numbers import Integral, Real
from typing import Any, NamedTuple

import numpy as np

from specmd_jax.core.errors import InputError


class Kind(NamedTuple):
    """A kind of value."""

    example: str  # as a message shows it
    read: Callable[[Any], Any]  # a Python value as `Choice` keeps it; TypeError: it is none
    parse: Callable[[str], Any] = str  # one value of an axis; ValueError: it is none


class Option(NamedTuple):
    """How one field of a `Choice` is written down and when it has a say."""

    kind: Kind
    metavar: str
    help: str
    otherwise: str = ""  # what holds where nothing is asked for, as the help shows it
    needs: str = ""  # "prefetch" or "hardware": without it the option has no say
    of_machine: bool = False  # else of the cache


def option(
    kind: Kind,
    metavar: str,
    help: str,
    otherwise: str = "",
    *,
    default: Any = None,
    needs: str = "",
    of_machine: bool = False,
) -> Any:
    """Declares a field of a `Choice`.

    Args:
      kind, metavar, help, otherwise, needs, of_machine: of the `Option`.
      default: of the field.
    """
    declared = Option(kind, metavar, help, otherwise, needs, of_machine or needs == "hardware")
    return field(default=default, metadata={"option": declared})


def option_of(declared: Field) -> Option:
    """Returns what a field was declared with."""
    return declared.metadata["option"]


def flag_name(name: str) -> str:
    """Returns a field's name as a flag."""
    return f"--{name.replace('_', '-')}"


def read_value(name: str, kind: Kind, value: Any) -> Any:
    """Returns a Python value as a `Choice` keeps it.

    Raises:
      InputError: it is of a type that means nothing here.
    """
    try:
        return kind.read(value)
    except TypeError as error:
        given = f"{value!r} ({type(value).__name__})"
        raise InputError(f"{name} is {given}: give {kind.example}") from error


def split_values(what: str, text: str) -> list[str]:
    """Returns the values between the commas of `text`.

    Raises:
      InputError: one is empty or given twice.
    """
    values = [value.strip() for value in text.split(",")]
    if not all(values):
        raise InputError(f"{what} {text!r} has an empty value: write it like a,b,c")
    if len(set(values)) < len(values):
        raise InputError(f"{what} {text!r} names a value twice: give each once")
    return values


def parse_axis(name: str, kind: Kind, text: str) -> list[Any]:
    """Returns the values of a sweep's axis, as a `Choice` takes them.

    Raises:
      InputError: one is empty, given twice or not of its kind.
    """
    return [_parse_one(flag_name(name), kind, one) for one in split_values(flag_name(name), text)]


def _parse_one(flag: str, kind: Kind, text: str) -> Any:
    try:
        return kind.parse(text)
    except ValueError as error:
        raise InputError(f"{flag} {text!r} {error}") from error


def _name(value: Any) -> str:
    if isinstance(value, str | os.PathLike):
        return os.fspath(value)
    raise TypeError


def _whole(value: Any) -> int:
    if isinstance(value, Integral) and not isinstance(value, bool):
        return int(value)
    raise TypeError


def _parse_whole(text: str) -> int:
    try:
        return int(text)
    except ValueError as error:
        raise ValueError("is no whole number: write it like 1,2,4") from error


def _switch(value: Any) -> bool:
    if isinstance(value, bool | np.bool_):
        return bool(value)
    raise TypeError


def _parse_switch(text: str) -> bool:
    if text not in ("true", "false"):
        raise ValueError("is neither: write true, false or true,false")
    return text == "true"


def _number(value: Any, unit: str = "") -> str:
    """Writes a number without an exponent, as the parsers of sizes take it."""
    if isinstance(value, Real) and not isinstance(value, bool):
        whole = isinstance(value, Integral)
        plain = str(int(value)) if whole else np.format_float_positional(float(value))
        return plain + unit
    raise TypeError


def _capacity(value: Any) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, Sequence | np.ndarray) and len(value) > 0:
        return ",".join(str(_whole(quota)) for quota in value)
    return _number(value)


def _tiers(value: Any) -> tuple[str, ...]:
    if isinstance(value, str):
        return tuple(part.strip() for part in value.split(","))
    if isinstance(value, Sequence):
        return tuple(_name(tier) for tier in value)
    raise TypeError


def _assignments(value: Any) -> tuple[tuple[str, str], ...]:
    pairs = value.items() if isinstance(value, Mapping) else value
    if isinstance(pairs, str):
        raise TypeError
    try:
        return tuple((_name(name), _setting(one)) for name, one in pairs)
    except ValueError as error:  # no pair
        raise TypeError from error


def _setting(value: Any) -> str:
    if isinstance(value, bool | np.bool_):
        return str(bool(value)).lower()
    if isinstance(value, Integral):
        return str(int(value))
    return repr(float(value)) if isinstance(value, Real) else _name(value)


NAME = Kind("a name, for example 'lru'", _name)
WHOLE = Kind("a whole number", _whole, _parse_whole)
SWITCH = Kind("True or False", _switch, _parse_switch)
CAPACITY = Kind(
    "'5%', '0.6GB', a share such as 0.05, a number of slots or the quotas of the layers",
    _capacity,
    lambda text: text.replace("+", ","),
)
RATE = Kind("'5GB/s' or bytes a second", lambda v: v if isinstance(v, str) else _number(v, "B/s"))
TIME = Kind("'20us' or seconds", lambda v: v if isinstance(v, str) else _number(v, "s"))
TIERS = Kind("'int8,int4' or a tuple of such", _tiers, lambda text: tuple(text.split("+")))
PARAMS = Kind("{'eviction.decay': 0.8} or pairs of name and value", _assignments)
