"""Flags that several verbs share: which part of a trace, and of which model."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from tyro.conf import FlagCreatePairsOff, arg

from specmd_jax.core.errors import InputError

if TYPE_CHECKING:  # JAX takes a second to import: a slip in the flags should be told before
    from specmd_jax.model_zoo import ModelSpec
    from specmd_jax.traces import Trace

Json = Annotated[FlagCreatePairsOff[bool], arg(help_behavior_hint="")]


def option(metavar: str, default: str = "") -> object:
    """Returns how an optional flag looks in the help."""
    hint = f"(default: {default})" if default else ""
    return arg(metavar=metavar, help_behavior_hint=hint)


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
    """Returns the span that `a:b`, `a:` or `:b` means for `size` things.

    Raises:
      InputError: it is no span, or it is empty or reaches beyond the last.
    """
    start, colon, stop = (part.strip() for part in text.partition(":"))
    if not colon or not all(part == "" or part.isdecimal() for part in (start, stop)):
        raise InputError(f"{flag} {text!r} is no span: write it like 0:400")
    low, high = int(start or 0), int(stop or size)
    if not low < high <= size:
        raise InputError(f"{flag} {text!r} is empty or beyond the trace, which has {size} of them")
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
    from specmd_jax.study.choice import check_model
    from specmd_jax.traces import ImportOptions, import_trace

    trace = import_trace(path, ImportOptions(model=model.hf_id if model else ""))
    if model is not None:
        check_model(trace.shape, model)
    return part.apply(trace)
