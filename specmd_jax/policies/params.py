"""Parameters of policies as people write them, `eviction.decay=0.8`: found, typed and checked."""

import math
from collections.abc import Sequence
from contextlib import suppress
from typing import Any, NamedTuple

from specmd_jax.core.errors import InputError
from specmd_jax.core.names import near_names, same_name
from specmd_jax.policies.strategy import StrategyParams


class Range(NamedTuple):
    """The values that make sense; the ends belong to it, but for `low` where `above` is set."""

    low: float
    high: float
    above: bool = False

    def __contains__(self, value: object) -> bool:
        assert isinstance(value, int | float)
        return self.low <= value <= self.high and not (self.above and value == self.low)

    def __str__(self) -> str:
        return f"{'(' if self.above else '['}{self.low:g}, {self.high:g}]"


_SHARE = Range(0, 1)
_COUNT = Range(0, 4096)
_SEED = Range(0, 2**31 - 1)
_WEIGHT = Range(-255, 255)  # scores are fixed point and clipped at 1024: four weights must fit

# A parameter that is not in this table is checked for its type alone.
RANGES: dict[str, Range] = {
    "eviction.alpha": Range(0, 1, above=True),
    "eviction.decay": Range(0, 1, above=True),
    "eviction.ratio": _SHARE,
    "eviction.seed": _SEED,
    "eviction.top_p": Range(1, 4096),
    "eviction.w_fld": _WEIGHT,
    "eviction.w_frequency": _WEIGHT,
    "eviction.w_gate": _WEIGHT,
    "eviction.w_lfu": _WEIGHT,
    "eviction.w_lhu": _WEIGHT,
    "eviction.w_lru": _WEIGHT,
    "eviction.w_nearness": _WEIGHT,
    "eviction.w_recency": _WEIGHT,
    "eviction.window": Range(1, 64),
    "guard.margin": Range(-1, 1),
    "prefetch.mass": _SHARE,
    "prefetch.overfetch": Range(0, 4096, above=True),
    "prefetch.percentile": _SHARE,
    "prefetch.precision": Range(0, 1, above=True),
    "prefetch.quantile": _SHARE,
    "prefetch.recall": _SHARE,
    "prefetch.seed": _SEED,
    "miss.alpha": _SHARE,
    "miss.break_even": Range(0, 2**20),
    "miss.high": _SHARE,
    "miss.keep": _COUNT,
    "miss.low": _SHARE,
    "routing.lam": Range(0, 100),
    "routing.mass": _SHARE,
    "routing.max_rank": Range(1, 4096),
    "routing.top_j": _COUNT,
}
_BOOLEANS = {"true": True, "false": False, "yes": True, "no": False, "1": True, "0": False}


def list_params(params: StrategyParams) -> dict[str, Any]:
    """Returns the parameters of the four policies, as `family.name` and value."""
    return {
        f"{family}.{name}": value
        for family, values in params._asdict().items()
        for name, value in (values._asdict().items() if values else ())
    }


def split_assignment(text: str) -> tuple[str, str]:
    """Returns name and value of `family.name=value`.

    Raises:
      InputError: it is not of that form.
    """
    name, equals, value = (part.strip() for part in text.partition("="))
    if not equals or not value or name.count(".") != 1:
        raise InputError(
            f"parameter {text!r} is not of the form family.name=value: "
            "write it like eviction.decay=0.8"
        )
    return name, value


def set_params(params: StrategyParams, assignments: Sequence[tuple[str, str]]) -> StrategyParams:
    """Returns `params` with each named one set to the value that its text stands for.

    Raises:
      InputError: a name is unknown or given twice, or a value is of the wrong type or range.
    """
    names = [find_param(params, name) for name, _ in assignments]
    for name, (_, text) in zip(names, assignments, strict=True):
        if names.count(name) > 1:
            raise InputError(f"parameter {name} is given {names.count(name)} times: give it once")
        params = _set_one(params, name, text)
    return params


def find_param(params: StrategyParams, name: str) -> str:
    """Returns the parameter of a strategy that `name` spells, as `family.name`.

    Raises:
      InputError: the strategy has none of that name.
    """
    known = list_params(params)
    found = same_name(name, known)
    if found is None:
        near = ", ".join(near_names(name, known))
        raise InputError(
            f"no parameter is called {name!r} here: this strategy has {', '.join(known) or 'none'}"
            + (f"; try {near}" if near else "")
        )
    return found


def set_seed(params: StrategyParams, seed: int) -> StrategyParams:
    """Returns `params` with the seed of every policy that draws at random.

    Raises:
      InputError: the seed is negative or too large.
    """
    if seed not in _SEED:
        raise InputError(f"seed {seed} is outside {_SEED}: give a small whole number")
    seeded = [
        values._replace(seed=seed) if "seed" in getattr(values, "_fields", ()) else values
        for values in params
    ]
    return StrategyParams(*seeded)


def _set_one(params: StrategyParams, name: str, text: str) -> StrategyParams:
    family, field = name.split(".")
    value = _parse(name, text, type(list_params(params)[name]))
    return params._replace(**{family: getattr(params, family)._replace(**{field: value})})


def _parse(name: str, text: str, kind: type) -> bool | int | float:
    value = _parse_boolean(name, text) if kind is bool else _parse_number(name, text, kind)
    allowed = RANGES.get(name)
    if allowed is not None and value not in allowed:
        raise InputError(f"parameter {name} is {text}: give a value in {allowed}")
    return value


def _parse_boolean(name: str, text: str) -> bool:
    if text.lower() not in _BOOLEANS:
        raise InputError(f"parameter {name} is {text!r}: give true or false")
    return _BOOLEANS[text.lower()]


def _parse_number(name: str, text: str, kind: type) -> int | float:
    with suppress(ValueError, OverflowError):  # no number, or a whole one larger than any float
        value = kind(text)
        if math.isfinite(value):
            return value
    raise InputError(
        f"parameter {name} is {text!r}: give {'a whole number' if kind is int else 'a number'}"
    )
