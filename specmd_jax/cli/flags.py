"""Flags that several verbs share: the cache, the machine, which part of a trace, the model."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, make_dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from tyro.conf import FlagCreatePairsOff, UseAppendAction, arg

from specmd_jax.core.errors import InputError
from specmd_jax.study.choice import DEFAULTS, OPTIONS, Choice
from specmd_jax.study.option import SWITCH, WHOLE, Option

if TYPE_CHECKING:  # JAX takes a second to import: a slip in the flags should be told before
    from specmd_jax.model_zoo import ModelSpec
    from specmd_jax.traces import Trace

Json = Annotated[FlagCreatePairsOff[bool], arg(help_behavior_hint="")]


Params = Annotated[UseAppendAction[tuple[str, ...]], arg(metavar="FAMILY.NAME=VALUE")]
FLAGGED = {name: one for name, one in OPTIONS.items() if name != "params"}  # given one by one


def option(metavar: str, default: str = "", help: str | None = None) -> object:
    """Returns how an optional flag looks in the help."""
    hint = f"(default: {default})" if default else ""
    return arg(metavar=metavar, help_behavior_hint=hint, help=help)


def flags_of(options: Mapping[str, Option]) -> Any:
    """Returns a dataclass with a flag for each option, to be inherited from."""
    flags = [(name, _flag(name, declared), DEFAULTS[name]) for name, declared in options.items()]
    return _dataclass_of(flags)


def axes_of(options: Mapping[str, Option]) -> Any:
    """Returns a dataclass with an axis for each option: several values apart by commas."""
    flags = [(name, _axis(name, declared), DEFAULTS[name]) for name, declared in options.items()]
    return _dataclass_of([(n, kind, d if isinstance(d, str) else None) for n, kind, d in flags])


def _dataclass_of(flags: list[tuple[str, Any, Any]]) -> Any:
    fields = [(name, kind, field(default=default)) for name, kind, default in flags]
    return make_dataclass("Options", fields, frozen=True, kw_only=True)


def _flag(name: str, declared: Option) -> Any:
    kind, default = declared.kind, DEFAULTS[name]
    if kind is SWITCH:
        return Annotated[bool, arg(help=declared.help)]
    if default is not None:
        return Annotated[str, arg(metavar=declared.metavar, help=declared.help)]
    return Annotated[(int if kind is WHOLE else str) | None, _about(declared, declared.metavar)]


def _axis(name: str, declared: Option) -> Any:
    values = f"{declared.metavar.replace(',', '+').replace('|', ',')}"
    several = values if "," in values else f"{values},..."
    if DEFAULTS[name] is not None and declared.kind is not SWITCH:
        return Annotated[str, arg(metavar=several, help=declared.help)]
    return Annotated[str | None, _about(declared, several)]


def _about(declared: Option, metavar: str) -> Any:
    return option(metavar, declared.otherwise, declared.help)


@dataclass(frozen=True, kw_only=True)
class Decisions(flags_of({name: one for name, one in FLAGGED.items() if not one.of_machine})):
    """The cache and its four policies; a flag overrides what --strategy says."""

    param: Params = ()
    """A parameter of a policy, for example eviction.decay=0.8."""


@dataclass(frozen=True, kw_only=True)
class Machine(flags_of({name: one for name, one in FLAGGED.items() if one.of_machine})):
    """The machine; without one nothing is timed."""


def choice_of(cache: Decisions, machine: Machine | None = None) -> Choice:
    """Returns what the flags ask for; without a machine nothing is timed.

    Raises:
      InputError: a --param is not of the form family.name=value.
    """
    from specmd_jax.policies.params import split_assignment

    asked = vars(cache) | vars(machine or Machine())
    params = tuple(split_assignment(text) for text in asked.pop("param"))
    return Choice(**asked, params=params)


@dataclass(frozen=True, kw_only=True)
class Part:
    """Which part of a trace; applied in this order."""

    requests: Annotated[str | None, option("A:B")] = None
    """Only the requests A to B (exclusive), counted from 0 in order of their ids."""
    passes: Annotated[str | None, option("A:B")] = None
    """Only the passes A to B (exclusive)."""

    def apply(self, trace: "Trace") -> "Trace":
        """Returns the part of `trace` that is asked for.

        Raises:
          InputError: it is not there.
        """
        from specmd_jax.traces import slice_passes, slice_requests

        if self.requests is not None:
            ids = sorted(set(trace.request.tolist()))
            start, stop = parse_span("--requests", self.requests, len(ids))
            trace = slice_requests(trace, ids[start:stop])
        if self.passes is not None:
            trace = slice_passes(trace, *parse_span("--passes", self.passes, trace.num_passes))
        return trace


@dataclass(frozen=True, kw_only=True)
class Slicing(Part):
    """Which part of the trace, and how its tokens form passes; applied in this order."""

    prefill_tokens: Annotated[int | None, option("N")] = None
    """Make the first N tokens of each request one prefill pass, where none was recorded."""
    batch: Annotated[int | None, option("B")] = None
    """Decode up to B requests together (continuous batching)."""

    def apply(self, trace: "Trace") -> "Trace":
        """Returns the part of `trace` that is asked for, in the passes that are asked for.

        Raises:
          InputError: it is not there, or the trace cannot be regrouped so.
        """
        return regroup(super().apply(trace), self.prefill_tokens, self.batch)


def regroup(trace: "Trace", prefill_tokens: int | None, batch: int | None) -> "Trace":
    """Returns `trace` with its tokens in other passes, where any are asked for.

    Raises:
      InputError: the trace cannot be regrouped so.
    """
    from specmd_jax.traces import batch_prefill, batch_requests

    if prefill_tokens is not None:
        trace = batch_prefill(trace, prefill_tokens)
    return trace if batch is None else batch_requests(trace, batch)


def parse_span(flag: str, text: str, size: int) -> tuple[int, int]:
    """Returns the span that `a:b`, `a:` or `:b` means for `size` things, clipped as Python does.

    Raises:
      InputError: it is no span, or nothing lies in it.
    """
    ends = [part.strip() for part in text.split(":")]
    if len(ends) != 2 or not all(re.fullmatch(r"(-?\d{1,18})?", end, re.ASCII) for end in ends):
        raise InputError(f"{flag} {text!r} is no span: write it like 0:400")
    start, stop = (int(end) if end else None for end in ends)
    low, high, _ = slice(start, stop).indices(size)
    if not low < high:
        raise InputError(f"{flag} {text!r} is empty: the trace has {size} of them")
    return low, high


def load_model(name: str | None) -> "ModelSpec | None":
    """Returns the model that is named, if one is, and says what its config leaves in doubt.

    Raises:
      InputError: there is no such model.
    """
    from specmd_jax.cli.output import say

    if name is None:
        return None
    spec = read_model(name)
    for note in spec.notes:
        say(f"{spec.name}: {note}")
    return spec


def read_model(name: str) -> "ModelSpec":
    """Returns the model of a zoo name, a Hugging Face id or a config.json.

    Raises:
      InputError: there is no such model.
    """
    from specmd_jax.model_zoo import from_config, get_model

    return from_config(Path(name)) if Path(name).exists() else get_model(name)


def load_trace(path: Path, model: "ModelSpec | None", part: Part) -> "Trace":
    """Returns the part of a trace that is asked for; the file may be of any known format.

    Raises:
      InputError: it cannot be read, or was not recorded from `model`.
    """
    from specmd_jax.traces import ImportOptions, import_trace

    if model is None:
        return part.apply(import_trace(path))
    return part.apply(import_trace(path, ImportOptions(model=model.hf_id, shape=model.shape)))
