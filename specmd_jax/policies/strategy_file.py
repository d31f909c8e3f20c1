"""Strategies in a file: what `specmd tune` writes and every `--strategy` reads.

A JSON object of the format `specmd.strategy/1`: the four policies by name, the switches, the
precisions and the parameters as `family.name`. Whatever else it holds is for people.
"""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from specmd_jax.core.errors import InputError
from specmd_jax.core.files import replace_file
from specmd_jax.policies.params import list_params, set_params
from specmd_jax.policies.published import StrategyPreset
from specmd_jax.policies.strategy import (
    FAMILIES,
    Strategy,
    StrategyParams,
    make_strategy,
    policy_name,
)

FORMAT = "specmd.strategy/1"
SWITCHES: dict[str, type] = {
    "scope": str,
    "admission": str,
    "lookahead": int,
    "guard": bool,
    "touch_on_prefetch_insert": bool,
    "touch_on_prefetch_hit": bool,
}


def is_file(name: str) -> bool:
    """Says whether a strategy's name is that of a file."""
    return name.endswith(".json") or os.sep in name


def write_strategy(
    path: Path,
    strategy: Strategy,
    params: StrategyParams,
    precisions: tuple[str, ...],
    start: str,
    about: Mapping[str, Any],
) -> None:
    """Writes a strategy with its parameters, and `about` how it was found.

    Raises:
      InputError: the file cannot be written, or a policy is not a registered one.
    """
    names = {family: _name(family, getattr(strategy, family)) for family in FAMILIES}
    record = {"format": FORMAT} | names
    record |= {name: getattr(strategy, name) for name in SWITCHES}
    record |= {"precision": list(precisions), "start": start}
    record |= {"params": {name: _plain(v) for name, v in list_params(params).items()}}
    with replace_file(path) as half:
        half.write_text(json.dumps(record | {"about": dict(about)}, indent=1) + "\n")


def read_strategy(path: Path) -> StrategyPreset:
    """Returns the strategy that a file describes.

    Raises:
      InputError: it cannot be read, is no strategy, or names what there is not.
    """
    try:
        record = json.loads(path.read_text())
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror}): name a strategy") from error
    except ValueError as error:
        raise InputError(f"{path} is no JSON: write a strategy with specmd tune") from error
    if not isinstance(record, dict) or record.get("format") != FORMAT:
        raise InputError(f"{path} is no {FORMAT}: write it with specmd tune")
    names = {family: _typed(path, record, family, str) for family in FAMILIES}
    switches = {name: _typed(path, record, name, kind) for name, kind in SWITCHES.items()}
    strategy = make_strategy(**names, **switches)
    given = _typed(path, record, "params", dict)
    precisions = _typed(path, record, "precision", list)
    return StrategyPreset(
        strategy,
        set_params(strategy.params, [(name, str(value)) for name, value in given.items()]),
        note=f"read from {path}",
        source="specmd tune",
        precisions=tuple(str(name) for name in precisions),
        start=_typed(path, record, "start", str),
    )


def _typed(path: Path, record: Mapping[str, Any], name: str, kind: type) -> Any:
    value = record.get(name)
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        raise InputError(f"{path}: {name} is {value!r}: write the file anew with specmd tune")
    return value


def _name(family: str, policy: Any) -> str:
    name = policy_name(family, policy)
    if name is None:
        raise InputError(f"the {family} policy has no name: register it before it is written")
    return name


def _plain(value: Any) -> bool | int | float:
    return value if isinstance(value, bool | int) else float(value)
