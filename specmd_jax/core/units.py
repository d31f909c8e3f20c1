"""Sizes, rates and times as people write them ("0.6GB", "5GB/s", "20us"), read into numbers."""

import math
import re

from specmd_jax.core.errors import InputError

_PREFIXES = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12}
_BINARY = {"ki": 2**10, "mi": 2**20, "gi": 2**30, "ti": 2**40}
_SCALE = _PREFIXES | _BINARY
_SECONDS = {"s": 1.0, "ms": 1e-3, "us": 1e-6, "ns": 1e-9}

_QUANTITY = re.compile(r"(?P<number>\d+(?:\.\d*)?(?:[eE][+-]?\d+)?)\s*(?P<unit>[A-Za-z]*)")
_UNIT = re.compile(r"(?P<prefix>(?:[kmgt]i?)?)(?P<base>b|bits?|bytes?)", re.IGNORECASE)


def parse_bytes(text: str) -> int:
    """Returns the bytes that `text` names, e.g. "0.6GB" (decimal) or "4000MiB" (binary).

    Letter case is free, but for "Gb" and the like: it is commonly bits and commonly a slip, so
    it has to be spelled GB or Gbit.

    Raises:
      InputError: no number, no unit, an unknown unit or an ambiguous one.
    """
    return round(_parse(text, what="size", example="0.6GB or 4000MiB"))


def parse_rate(text: str) -> float:
    """Returns the bytes per second that `text` names, e.g. "5GB/s" or "40Gbit/s".

    Raises:
      InputError: not a size followed by "/s", or a rate of zero.
    """
    example = "5GB/s or 40Gbit/s"
    size, slash, second = text.strip().partition("/")
    if not slash or second.strip().lower() not in ("s", "sec"):
        raise InputError(f"rate {text!r} does not end in /s: write it like {example}")
    rate = _parse(size, what="rate", example=example)
    if rate == 0:
        raise InputError(f"rate {text!r} is zero: nothing would ever arrive")
    return rate


def parse_seconds(text: str) -> float:
    """Returns the seconds that `text` names, e.g. "20us" or "0.5ms".

    Raises:
      InputError: no number, or no unit of time behind it.
    """
    match = re.fullmatch(r"(\d+(?:\.\d*)?(?:e[+-]?\d+)?)\s*(s|ms|us|ns)", text.strip().lower())
    if match is None:
        raise InputError(f"cannot read time {text!r}: write it like 20us or 0.5ms")
    return float(match[1]) * _SECONDS[match[2]]


def _parse(text: str, *, what: str, example: str) -> float:
    match = _QUANTITY.fullmatch(text.strip())
    if match is None:
        raise InputError(f"cannot read {what} {text!r}: write it like {example}")
    value = float(match["number"]) * _bytes_of_unit(match["unit"], text, what, example)
    if math.isinf(value):
        raise InputError(f"{what} {text!r} is no finite number: write it like {example}")
    return value


def _bytes_of_unit(unit: str, text: str, what: str, example: str) -> float:
    match = _UNIT.fullmatch(unit)
    if match is None:
        raise InputError(f"{what} {text!r} has no known unit: write it like {example}")
    prefix, base = match["prefix"], match["base"]
    if base == "b" and prefix != prefix.lower():
        raise InputError(
            f"unit {unit!r} of {what} {text!r} may mean bits or bytes: "
            f"write {prefix}B or {prefix}bit"
        )
    bits = base.lower().startswith("bit")
    return _SCALE[prefix.lower()] / (8 if bits else 1)
