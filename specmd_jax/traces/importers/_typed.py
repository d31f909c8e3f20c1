"""The values of a table's rows: each is checked before it is believed."""

import json
import re
from typing import Any

from specmd_jax.core.errors import InputError
from specmd_jax.traces.importers._columns import missing, usable
from specmd_jax.traces.importers._records import Row, listed
from specmd_jax.traces.importers._values import (
    integer,
    integers,
    log_probabilities,
    real,
    reals,
    text,
)
from specmd_jax.traces.trace import DECODE, PREFILL

_PHASES = {"prefill": PREFILL, "prompt": PREFILL} | dict.fromkeys(
    ("decode", "generate", "generated", "generation"), DECODE
)


def typed(row: Row) -> Row:
    """A row with experts whose values have been checked.

    Raises:
      InputError: a field is missing, or a value makes no sense.
    """
    held = {name: value for name, value in row.items() if value is not None}
    if not usable(held):
        raise InputError(missing(held, row.get("names", held)))
    experts = _experts(held["experts"])
    found: Row = {"layer": _layer(held["layer"]), "experts": experts}
    found["model"] = text(held.get("model"))
    if "request" in held:
        found["request"] = json.dumps(held["request"])
    if "phase" in held:
        found["phase"] = _phase(held["phase"])
    for name in ("token", "step"):
        if name in held:
            found[name] = integer(held[name], name)
    return found | _scores(held, experts)


def _experts(value: Any) -> int | list[int]:
    value = listed(value) if isinstance(value, str) else value
    return integers(value, "experts") if isinstance(value, list) else integer(value, "expert")


def _layer(value: Any) -> int:
    """A number, or the one number in a name such as `model.layers.3.mlp`."""
    if isinstance(value, str):
        numbers = re.findall(r"\d+", value)
        named = re.search(r"[a-z]", value) is not None
        value = numbers[0] if named and len(numbers) == 1 else value
    return integer(value, "layer")


def _phase(value: object) -> int:
    phase = _PHASES.get(value.strip().lower()) if isinstance(value, str) else None
    if phase is None:
        raise InputError(f"phase is {str(value)[:20]!r}: expected one of {', '.join(_PHASES)}")
    return phase


def _scores(row: Row, experts: int | list[int]) -> Row:
    """Weights of the chosen experts and logits of all; probabilities are of either."""
    found: Row = {}
    weights, of_all = row.get("weights"), row.get("probabilities")
    weights = listed(weights) if isinstance(weights, str) else weights
    if weights in (None, "", []):
        weights = None
    one = isinstance(experts, int)
    if weights is None and of_all is not None:
        alike = not isinstance(of_all, list) if one else _length(of_all) == len(experts)
        weights, of_all = (of_all, None) if alike else (None, of_all)
    if weights is not None:
        found["weights"] = real(weights, "weights") if one else reals(weights, "weights")
    if row.get("logits") is not None:
        found["logits"] = reals(row["logits"], "logits")
    elif of_all is not None:
        found["logits"] = log_probabilities(of_all, "probabilities")
    return found


def _length(value: object) -> int:
    return len(value) if isinstance(value, list) else -1
