"""Several files of one recording: layers side by side, requests one after another."""

from collections.abc import Sequence
from dataclasses import replace
from itertools import combinations
from typing import Any

from specmd_jax.core.errors import InputError
from specmd_jax.traces.importers._finish import finish
from specmd_jax.traces.importers._model import check_shape
from specmd_jax.traces.importers._options import ImportOptions
from specmd_jax.traces.importers._shared import SHARED_DOUBT
from specmd_jax.traces.join import concatenate, merge_layers
from specmd_jax.traces.trace import Trace, assumed_experts


def part_options(options: ImportOptions) -> ImportOptions:
    """What holds for one file of several: it may have fewer layers than the model."""
    shape = options.shape and options.shape._replace(num_layers=0)
    later = options.ids == "global" and options.known_experts is None
    return replace(options, shape=shape, ids="per-layer" if later else options.ids)


def join_files(traces: Sequence[Trace], options: ImportOptions) -> Trace:
    """One trace of several files.

    Files of the same layers are requests, in the order given; those of different layers hold
    parts of the same tokens and are merged. `options.join` says which, where the files do not.

    Raises:
      InputError: the files are of different models, or their layers or tokens do not go together.
    """
    if options.join == "layers" and not all(trace.provenance.layers for trace in traces):
        traces = _numbered(traces)
    if options.join == "requests":
        traces = [_with(trace, layers=()) for trace in traces]
    numbered = {trace.provenance.layers for trace in traces} - {()}
    alike = next(iter(numbered), ()) if len(numbered) <= 1 else ()  # what goes without number
    groups: dict[tuple[int, ...], list[Trace]] = {}
    for trace in traces:
        groups.setdefault(trace.provenance.layers or alike, []).append(trace)
    if len(groups) == 1 and options.join == "layers":
        raise InputError(f"all files hold layers {list(*groups)}: leave out --join layers")
    _check_apart(list(groups))
    _check_axes(traces)
    joined = [one[0] if len(one) == 1 else concatenate(one) for one in groups.values()]
    if len(joined) > 1:
        return _looked_over(merge_layers(joined), options)
    if options.shape is not None:
        check_shape(joined[0].shape, options.shape, options.model)
    return joined[0]


def _numbered(traces: Sequence[Trace]) -> list[Trace]:
    """Layers counted on from file to file."""
    numbered, layer = [], 0
    for trace in traces:
        layers = tuple(range(layer, layer + trace.shape.num_layers))
        layer += trace.shape.num_layers
        numbered.append(_with(trace, layers=layers))
    return numbered


def _with(trace: Trace, **facts: Any) -> Trace:
    return replace(trace, provenance=replace(trace.provenance, **facts))


def _check_apart(parts: Sequence[tuple[int, ...]]) -> None:
    """Layers of two files are the same or have none in common."""
    for one, other in combinations(parts, 2):
        if not one or not other or set(one) & set(other):
            raise InputError(
                f"one file holds layers {_named(one)} and another {_named(other)}: give files of "
                "the same layers or of different ones, or say --join requests or --join layers"
            )


def _check_axes(traces: Sequence[Trace]) -> None:
    """The same number of tokens in every file, of ever other layers, is one of layers."""
    shapes = {(trace.num_tokens, trace.shape.num_layers) for trace in traces}
    bare = not any(trace.provenance.layers for trace in traces)
    if bare and len(shapes) > 1 and len({tokens for tokens, _ in shapes}) == 1:
        tokens, layers = zip(*sorted(shapes), strict=True)
        raise InputError(
            f"all files hold {tokens[0]} tokens, of {layers[0]} and of {layers[1]} layers: if "
            "those are their layers, give --axes layers-first"
        )


def _named(layers: tuple[int, ...]) -> str:
    return str(list(layers[:12]))[1:-1] or "without number"


def _looked_over(merged: Trace, options: ImportOptions) -> Trace:
    """What no layer alone shows, as ids that count on from layer to layer, looked for again."""
    where, assumed = merged.provenance, assumed_experts(merged.num_experts)
    where = replace(
        where,
        notes=tuple(note for note in where.notes if note != assumed),
        doubts=tuple(doubt for doubt in where.doubts if not doubt.startswith(SHARED_DOUBT)),
    )
    done = {"layers": None, "shared_experts": options.shared_experts and ()}
    if part_options(options).ids == options.ids:
        done["ids"] = options.ids and "per-layer"
    return finish(
        merged.experts,
        step=merged.step,
        request=merged.request,
        phase=merged.phase,
        options=replace(options, **done),
        provenance=where,
        num_experts=None if merged.experts_assumed else merged.num_experts,
        weights=merged.weights,
        logits=merged.logits,
        expert_bytes=merged.expert_bytes,
    )
