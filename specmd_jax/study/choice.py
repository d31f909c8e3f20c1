"""What a user asks for, in words: each field one option, of which flags and axes are made.

This module waits for no JAX: the command line reads its help and its slips from it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

from specmd_jax.core.errors import InputError
from specmd_jax.hardware.profiles import HardwareProfile
from specmd_jax.study.option import (
    CAPACITY,
    NAME,
    PARAMS,
    RATE,
    SWITCH,
    TIERS,
    TIME,
    WHOLE,
    Kind,
    Option,
    flag_name,
    option,
    option_of,
    read_value,
)

MACHINE = Kind(
    "a name of `specmd list hardware`, a profile's file or a HardwareProfile",
    lambda value: value if isinstance(value, HardwareProfile) else NAME.read(value),
)


@dataclass(frozen=True, kw_only=True)
class Choice:
    """What a user chose; None leaves it to the named strategy, else to the default.

    Names, sizes and rates are text as on the command line (`25%`, `5GB/s`, `20us`); numbers,
    NumPy's too, stand for shares, slots, bytes a second and seconds.

    Raises:
      InputError: a value is of a type that means nothing.
    """

    strategy: str | None = option(NAME, "S", "A published system: see `specmd list strategies`.")
    eviction: str | None = option(
        NAME, "E", "Which copy leaves: see `specmd list policies` for this and the next three.",
        "lru",
    )  # fmt: skip
    prefetch: str | None = option(NAME, "P", "What to bring early.", "none")
    miss: str | None = option(NAME, "M", "What to do about an absent expert.", "fetch")
    routing: str | None = option(NAME, "R", "Whether the choice of experts bends.", "standard")
    capacity: str | int | float | Sequence[int] = option(
        CAPACITY,
        "C",
        "5%, 200 (slots), 12/layer, 0.6GB, 8,8,4,... (quotas) or auto (what --hardware has left).",
        default="5%",
    )
    scope: str | None = option(
        NAME, "global|layer", "One pool for all layers, or one for each.", "global"
    )
    admission: str | None = option(
        NAME, "forced|bypass", "Whether every load is retained, or only what outranks a resident.",
        "forced",
    )  # fmt: skip
    lookahead: int | None = option(
        WHOLE, "D", "Layers ahead that the prefetcher names.", "1", needs="prefetch"
    )
    guard: bool = option(
        SWITCH, "true|false", "Prefetch only what is worth its transfer, see guard.margin.",
        "false", default=False, needs="prefetch",
    )  # fmt: skip
    precision: str | Sequence[str] | None = option(
        TIERS, "Q,...", "Precisions of the copies, best first, for example int8,int4,int2.", "bf16"
    )
    start: str | None = option(
        NAME, "cold|popular", "An empty cache, or the experts that this trace demands most.", "cold"
    )
    touch_on_prefetch_insert: bool = option(
        SWITCH, "true|false", "Whether an insert by prefetch counts as recent.", "true",
        default=True, needs="prefetch",
    )  # fmt: skip
    touch_on_prefetch_hit: bool = option(
        SWITCH, "true|false", "Whether selecting a resident expert for prefetch does.", "false",
        default=False, needs="prefetch",
    )  # fmt: skip
    seed: int | None = option(WHOLE, "N", "Seed of the policies that draw at random.", "0")
    hardware: str | HardwareProfile | None = option(
        MACHINE, "H", "Times are wanted, on this machine: see `specmd list hardware`.",
        of_machine=True,
    )  # fmt: skip
    link: str | int | float | None = option(
        RATE, "RATE", "Another rate from host to device, for example 5GB/s.", needs="hardware"
    )
    latency: str | int | float | None = option(
        TIME, "TIME", "Another fixed time of each copy, for example 20us.", needs="hardware"
    )
    context: int | None = option(
        WHOLE, "N", "Tokens in the KV cache of each request.", "1024", needs="hardware"
    )
    overlap: bool = option(
        SWITCH, "true|false", "Whether resident experts compute while others load.", "true",
        default=True, needs="hardware",
    )  # fmt: skip
    params: Mapping[str, Any] | Sequence[tuple[str, Any]] = option(
        PARAMS, "FAMILY.NAME=VALUE", "A parameter of a policy, for example eviction.decay=0.8.",
        default=(),
    )  # fmt: skip

    def __post_init__(self) -> None:
        for declared in fields(self):
            value = getattr(self, declared.name)
            if value is not None or declared.default is not None:
                read = read_value(declared.name, option_of(declared).kind, value)
                object.__setattr__(self, declared.name, read)

    @property
    def assignments(self) -> tuple[tuple[str, str], ...]:
        """The parameters as they were read: `family.name` and the text of its value."""
        return tuple(self.params.items() if isinstance(self.params, Mapping) else self.params)


OPTIONS: dict[str, Option] = {declared.name: option_of(declared) for declared in fields(Choice)}
DEFAULTS: dict[str, Any] = {declared.name: declared.default for declared in fields(Choice)}


def check_needs(choice: Choice, need: str, missing: str) -> None:
    """Raises InputError if an option is given that has no say without `need`.

    Args:
      need: "hardware" or "prefetch".
      missing: how the error goes on, for example "without a machine: add --hardware".
    """
    for name, declared in OPTIONS.items():
        value = getattr(choice, name)
        if declared.needs == need and value != DEFAULTS[name]:
            flag = flag_name(f"no_{name}" if value is False else name)
            raise InputError(f"{flag} has no effect {missing}")
