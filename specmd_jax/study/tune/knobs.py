"""What can be tuned: each continuous parameter, its bounds, and the scale on which it is even.

A search moves in the unit cube: 0 and 1 are the ends of a knob's range.
"""

import math
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from specmd_jax.core.errors import InputError
from specmd_jax.core.names import find_name
from specmd_jax.policies.params import list_params
from specmd_jax.policies.strategy import StrategyParams


class Knob(NamedTuple):
    """A parameter and the values that are tried."""

    name: str  # family.name
    low: float
    high: float
    scale: str = "linear"  # "log": ratios count; "half-life": of a decay, in events, ratios count

    def to_value(self, place: Float[np.ndarray, "*B"]) -> Float[np.ndarray, "*B"]:
        """Returns the values at places in [0, 1] of the range."""
        low, high = self._ends()
        even = low + np.clip(place, 0, 1) * (high - low)
        if self.scale == "log":
            return np.asarray(np.exp(even))
        return np.asarray(0.5 ** np.exp(-even) if self.scale == "half-life" else even)

    def to_place(self, value: float) -> float:
        """Returns where in the range a value lies, in [0, 1]."""
        low, high = self._ends()
        value = min(max(value, self.low), self.high)
        even = value
        if self.scale == "log":
            even = math.log(value)
        elif self.scale == "half-life":
            even = -math.log(math.log(value) / math.log(0.5))
        return (even - low) / (high - low)

    def _ends(self) -> tuple[float, float]:
        if self.scale == "log":
            return math.log(self.low), math.log(self.high)
        if self.scale == "half-life":  # decay = 0.5 ** (1 / half-life)
            lives = [math.log(0.5) / math.log(decay) for decay in (self.low, self.high)]
            return math.log(lives[0]), math.log(lives[1])
        return self.low, self.high


# Decays from a half-life of one event of a layer to that of 300.
_DECAY = (0.5, 0.5 ** (1 / 300), "half-life")

KNOBS: dict[str, Knob] = {
    name: Knob(name, *bounds)
    for name, bounds in {
        "eviction.alpha": (0.01, 1.0, "log"),
        "eviction.decay": _DECAY,
        "eviction.w_fld": (0.0, 1.0),
        "eviction.w_frequency": (-1.0, 1.0),
        "eviction.w_gate": (-1.0, 1.0),
        "eviction.w_lfu": (0.0, 1.0),
        "eviction.w_lhu": (0.0, 1.0),
        "eviction.w_lru": (0.0, 1.0),
        "eviction.w_nearness": (-1.0, 1.0),
        "eviction.w_recency": (0.0, 1.0),
        "guard.margin": (-0.5, 1.0),
        "prefetch.mass": (0.05, 0.99),
        "prefetch.overfetch": (0.1, 4.0, "log"),
        "prefetch.percentile": (0.3, 0.99),
        "prefetch.quantile": (0.3, 0.99),
        "miss.alpha": (0.0, 1.0),
        "miss.high": (0.0, 1.0),
        "miss.low": (0.0, 1.0),
        "routing.lam": (0.0, 1.0),
        "routing.mass": (0.05, 0.99),
    }.items()
}


def knobs_of(params: StrategyParams, only: tuple[str, ...] = ()) -> tuple[Knob, ...]:
    """Returns the knobs of a strategy, or those of them that are named.

    Raises:
      InputError: the strategy has none, or not one that is named.
    """
    there = [KNOBS[name] for name in list_params(params) if name in KNOBS]
    if not there:
        raise InputError(
            "the strategy has no continuous parameter to tune: choose, for example, --eviction "
            "lfu-decay or linear, or --prefetch with --guard"
        )
    known = [knob.name for knob in there]
    only = tuple(find_name(name, known, f"no parameter {name!r} to tune here") for name in only)
    return tuple(knob for knob in there if not only or knob.name in only)


def with_values(
    params: StrategyParams, knobs: tuple[Knob, ...], values: Float[np.ndarray, " D"]
) -> StrategyParams:
    """Returns `params` with each knob at its value."""
    for knob, value in zip(knobs, values, strict=True):
        family, field = knob.name.split(".")
        changed = getattr(params, family)._replace(**{field: float(value)})
        params = params._replace(**{family: changed})
    return params


def values_at(
    knobs: tuple[Knob, ...], places: Float[np.ndarray, "*B D"]
) -> Float[np.ndarray, "*B D"]:
    """Returns the values of all knobs at places in the unit cube."""
    columns = [knob.to_value(places[..., i]) for i, knob in enumerate(knobs)]
    return np.stack(columns, axis=-1)


def places_of(knobs: tuple[Knob, ...], params: StrategyParams) -> Float[np.ndarray, " D"]:
    """Returns where in the unit cube a strategy's parameters lie."""
    known = list_params(params)
    return np.asarray([knob.to_place(float(known[knob.name])) for knob in knobs])
