"""Strategies in a file: what `specmd tune` writes and every `--strategy` reads.

A JSON object of the format `specmd.strategy/1`: the four policies by name, the switches, the
precisions and the parameters as `family.name`. Whatever else it holds is for people.
"""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from msgspec import Meta, defstruct

from specmd_jax.core.errors import InputError
from specmd_jax.core.files import replace_file
from specmd_jax.core.json_files import read_object
from specmd_jax.core.schema import read_record
from specmd_jax.policies.params import list_params, set_params
from specmd_jax.policies.published import StrategyPreset
from specmd_jax.policies.strategy import (
    FAMILIES,
    SWITCHES,
    Strategy,
    StrategyParams,
    make_strategy,
    policy_name,
)

FORMAT = "specmd.strategy/1"

_Name = Annotated[str, Meta(max_length=100)]
_KINDS = SWITCHES | {"lookahead": Annotated[int, Meta(ge=1, le=4096)]}
_Decisions: Any = defstruct(
    "_Decisions",
    [
        (name, _Name if kind is str else kind)
        for name, kind in (dict.fromkeys(FAMILIES, str) | _KINDS).items()
    ],
)


class StrategyRecord(_Decisions):
    """What the file holds, beside what is for people."""

    precision: list[_Name]
    start: _Name
    params: dict[_Name, bool | int | float]


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
    written = read_object(path, "write a strategy with specmd tune")
    if written.get("format") != FORMAT:
        raise InputError(f"{path} is no {FORMAT}: write it with specmd tune")
    record = read_record(written, StrategyRecord, str(path), "write it anew with specmd tune")
    strategy = make_strategy(**{name: getattr(record, name) for name in (*FAMILIES, *SWITCHES)})
    return StrategyPreset(
        strategy,
        set_params(strategy.params, [(name, str(value)) for name, value in record.params.items()]),
        note=f"read from {path}",
        source="specmd tune",
        precisions=tuple(record.precision),
        start=record.start,
    )


def _name(family: str, policy: Any) -> str:
    name = policy_name(family, policy)
    if name is None:
        raise InputError(f"the {family} policy has no name: register it before it is written")
    return name


def _plain(value: Any) -> bool | int | float:
    return value if isinstance(value, bool | int) else float(value)
