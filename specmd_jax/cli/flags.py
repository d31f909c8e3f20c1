"""Flags that several verbs share: the cache, the machine, which part of a trace, the model."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from tyro.conf import FlagCreatePairsOff, UseAppendAction, arg

from specmd_jax.core.errors import InputError

if TYPE_CHECKING:  # JAX takes a second to import: a slip in the flags should be told before
    from specmd_jax.model_zoo import ModelSpec
    from specmd_jax.study.choice import Choice
    from specmd_jax.traces import Trace

Json = Annotated[FlagCreatePairsOff[bool], arg(help_behavior_hint="")]


def option(metavar: str, default: str = "") -> object:
    """Returns how an optional flag looks in the help."""
    hint = f"(default: {default})" if default else ""
    return arg(metavar=metavar, help_behavior_hint=hint)


@dataclass(frozen=True, kw_only=True)
class Decisions:
    """The cache and its four policies; a flag overrides what --strategy says."""

    strategy: Annotated[str | None, option("S")] = None
    """A published system: see `specmd list strategies`."""
    eviction: Annotated[str | None, option("E", "lru")] = None
    """Which copy leaves: see `specmd list policies` for this and the next three."""
    prefetch: Annotated[str | None, option("P", "none")] = None
    """What to bring early."""
    miss: Annotated[str | None, option("M", "fetch")] = None
    """What to do about an absent expert."""
    routing: Annotated[str | None, option("R", "standard")] = None
    """Whether the choice of experts bends."""
    capacity: Annotated[str, arg(metavar="C")] = "5%"
    """5%, 200 (slots), 12/layer, 0.6GB, 8,8,4,... (quotas) or auto (what --hardware has left)."""
    scope: Annotated[str | None, option("global|layer", "global")] = None
    """One pool for all layers, or one for each."""
    admission: Annotated[str | None, option("forced|bypass", "forced")] = None
    """Whether every load is retained, or only what outranks a resident."""
    lookahead: Annotated[int | None, option("D", "1")] = None
    """Layers ahead that the prefetcher names."""
    guard: FlagCreatePairsOff[bool] = False
    """Prefetch only what is worth its transfer, see guard.margin."""
    precision: Annotated[str | None, option("Q,...", "bf16")] = None
    """Precisions of the copies, best first, for example int8,int4,int2."""
    start: Annotated[str | None, option("cold|popular", "cold")] = None
    """An empty cache, or the experts that this trace demands most."""
    touch_on_prefetch_insert: bool = True
    """Whether an insert by prefetch counts as recent."""
    touch_on_prefetch_hit: bool = False
    """Whether selecting a resident expert for prefetch does."""
    param: Annotated[UseAppendAction[tuple[str, ...]], arg(metavar="FAMILY.NAME=VALUE")] = ()
    """A parameter of a policy, for example eviction.decay=0.8."""
    seed: Annotated[int | None, option("N", "0")] = None
    """Seed of the policies that draw at random."""


@dataclass(frozen=True, kw_only=True)
class Machine:
    """The machine; without one nothing is timed."""

    hardware: Annotated[str | None, option("H")] = None
    """Times are wanted, on this machine: see `specmd list hardware`."""
    link: Annotated[str | None, option("RATE")] = None
    """Another rate from host to device, for example 5GB/s."""
    latency: Annotated[str | None, option("TIME")] = None
    """Another fixed time of each copy, for example 20us."""
    context: Annotated[int | None, option("N", "1024")] = None
    """Tokens in the KV cache of each request."""
    overlap: bool = True
    """Whether resident experts compute while others load."""


def choice_of(cache: Decisions, machine: Machine | None = None) -> "Choice":
    """Returns what the flags ask for; without a machine nothing is timed.

    Raises:
      InputError: a --param is not of the form family.name=value.
    """
    from specmd_jax.policies.params import split_assignment
    from specmd_jax.study.choice import Choice

    asked = vars(cache) | vars(machine or Machine())
    params = tuple(split_assignment(text) for text in asked.pop("param"))
    if asked["precision"] is not None:
        asked["precision"] = tuple(asked["precision"].split(","))
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
    """Returns the model of a zoo name, a Hugging Face id or a config.json.

    Raises:
      InputError: there is no such model.
    """
    from specmd_jax.model_zoo import from_config, get_model

    if name is None:
        return None
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
