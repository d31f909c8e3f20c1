"""Traces put together: requests one after another, or layers side by side."""

from collections.abc import Sequence
from dataclasses import fields, replace

import numpy as np
from jaxtyping import Integer, Shaped

from specmd_jax.core.errors import InputError
from specmd_jax.traces.ops import renumbered
from specmd_jax.traces.trace import PAD, Provenance, Trace, assumed_experts

_OPTIONAL = ("weights", "logits", "predicted", "expert_bytes")


def concatenate(traces: Sequence[Trace]) -> Trace:
    """The traces one after another, as if one server had recorded them.

    Requests are numbered anew, from 0 and in order. An optional field that not every trace has,
    or that differs in shape, is dropped; so are expert sizes that differ. The notes say which.

    Raises:
      InputError: there is no trace, or they are of different models, layers or shapes.
    """
    if not traces:
        raise InputError("nothing to concatenate: give at least one trace")
    _check_one_model(traces)
    traces = _same_experts(traces)
    layers = sorted({trace.provenance.layers for trace in traces} - {()})
    if len(layers) > 1:
        raise InputError(
            f"traces of layers {list(layers[0])} and {list(layers[1])} cannot be joined one after "
            "another: give traces of the same layers"
        )
    shapes = {tuple(trace.shape) for trace in traces}
    if len(shapes) > 1:
        raise InputError(
            f"traces of shapes {sorted(shapes)} (layers, experts, top-k) cannot be "
            "joined: give traces of one model"
        )
    joined = {
        name: np.concatenate([getattr(t, name) for t in traces]) for name in ("experts", "phase")
    }
    step = _joined([trace.step for trace in traces])
    request = _joined([renumbered(trace.request) for trace in traces])
    kept, dropped = _shared_fields(traces)
    provenance = _merged([trace.provenance for trace in traces], dropped)
    return Trace(
        num_experts=traces[0].num_experts,
        step=step,
        request=request,
        provenance=provenance,
        **joined,
        **kept,
    )


def merge_layers(traces: Sequence[Trace]) -> Trace:
    """Traces of different layers of the same tokens as one, in the order of their layers.

    An optional field that not every trace has, or predictions, which look beyond a part of the
    layers, are dropped; the notes say which.

    Raises:
      InputError: there is no trace, layers are not numbered or overlap, tokens or models differ.
    """
    if not traces:
        raise InputError("nothing to merge: give at least one trace")
    _check_one_model(traces)
    traces = sorted(_same_experts(traces), key=lambda trace: trace.provenance.layers)
    _check_parts(traces)
    first, top_k = traces[0], max(trace.shape.top_k for trace in traces)
    kept = {"experts": _side_by_side([trace.experts for trace in traces], top_k, PAD)}
    dropped = [] if all(trace.predicted is None for trace in traces) else ["predicted"]
    for name, fill in (("weights", 0), ("logits", 0), ("expert_bytes", 0)):
        parts = [getattr(trace, name) for trace in traces]
        given = [part for part in parts if part is not None]
        if len(given) < len(parts):
            dropped += [name] if given else []
        elif name == "expert_bytes":
            kept[name] = np.concatenate(given)
        else:
            kept[name] = _side_by_side(given, max(part.shape[2] for part in given), fill)
    provenance = _merged([trace.provenance for trace in traces], dropped, "merged by layer")
    layers = tuple(layer for trace in traces for layer in trace.provenance.layers)
    return Trace(
        num_experts=first.num_experts,
        step=first.step,
        request=renumbered(first.request),
        phase=first.phase,
        provenance=replace(provenance, layers=layers),
        **kept,
    )


def _side_by_side(
    parts: Sequence[Shaped[np.ndarray, "T _ _"]], width: int, fill: int
) -> Shaped[np.ndarray, "T L W"]:
    """Layers next to each other, their last axis padded to one width."""
    grown = [
        np.pad(part, ((0, 0), (0, 0), (0, width - part.shape[2])), constant_values=fill)
        for part in parts
    ]
    return np.concatenate(grown, axis=1)


def _check_parts(traces: Sequence[Trace]) -> None:
    """The parts must number their layers, each its own, and hold the same tokens."""
    first = traces[0]
    seen: set[int] = set()
    for trace in traces:
        where = trace.provenance
        if not where.layers or seen & set(where.layers):
            raise InputError(
                f"{where.source or 'a trace'} holds layers {list(where.layers) or 'without number'}"
                f", others hold {sorted(seen)}: to merge by layer, each needs its own"
            )
        seen |= set(where.layers)
        same = (
            trace.num_tokens == first.num_tokens
            and (trace.step == first.step).all()
            and (renumbered(trace.request) == renumbered(first.request)).all()
            and (trace.phase == first.phase).all()
        )
        if not same:
            raise InputError(
                f"{first.provenance.source or 'one trace'} holds {first.num_tokens} tokens of "
                f"layer {first.provenance.layers[0]}, {where.source or 'another'} "
                f"{trace.num_tokens} of layer {where.layers[0]}, and they differ in tokens, "
                "requests or passes: record all layers in one run, or import each on its own"
            )
        if trace.num_experts != first.num_experts:
            raise InputError(
                f"layer {first.provenance.layers[0]} has {first.num_experts} experts and layer "
                f"{where.layers[0]} {trace.num_experts}: give files of one model"
            )


def _check_one_model(traces: Sequence[Trace]) -> None:
    """Raises InputError if traces name different models; both are named."""
    models = {trace.provenance.model: trace.provenance.source for trace in traces}
    models.pop("", None)
    if len(models) > 1:
        (one, file), (other, file2), *_ = models.items()
        raise InputError(
            f"{file or 'one trace'} is of model {one}, {file2 or 'another'} of {other}: import "
            "each on its own, or give --model if they are one"
        )


def _same_experts(traces: Sequence[Trace]) -> list[Trace]:
    """The traces with the highest number of experts of any, where they only assumed theirs.

    Two files of one model seldom name the same highest id. What was recorded stays as it is.
    """
    count = max(trace.num_experts for trace in traces)
    return [supply_experts(trace, count) for trace in traces]


def supply_experts(trace: Trace, count: int, note: str = "") -> Trace:
    """The trace with `count` experts a layer where it only assumed its number of them.

    Args:
      note: who says so; "": another trace assumed it.
    """
    if not trace.experts_assumed:
        return trace
    old, new = assumed_experts(trace.num_experts), note or assumed_experts(count)
    notes = tuple(new if note == old else note for note in trace.provenance.notes)
    return replace(trace, num_experts=count, provenance=replace(trace.provenance, notes=notes))


def _joined(parts: Sequence[Integer[np.ndarray, "_"]]) -> Integer[np.ndarray, " S"]:
    """Counters put end to end, each going on after the highest of the one before."""
    offsets = np.cumsum([0] + [int(part.max()) + 1 for part in parts[:-1]])
    shifted = [part + offset for part, offset in zip(parts, offsets, strict=True)]
    return np.concatenate(shifted).astype(np.int32)


def _shared_fields(traces: Sequence[Trace]) -> tuple[dict[str, np.ndarray], list[str]]:
    """The optional fields that can be joined, and the names of those that cannot."""
    kept, dropped = {}, []
    for name in _OPTIONAL:
        values = [getattr(trace, name) for trace in traces]
        if all(value is None for value in values):
            continue
        if any(value is None for value in values) or len({v.shape[1:] for v in values}) > 1:
            dropped.append(name)
        elif name != "expert_bytes":
            kept[name] = np.concatenate(values)
        elif all(np.array_equal(value, values[0]) for value in values):
            kept[name] = values[0]
        else:
            dropped.append(name)
    return kept, dropped


def _merged(
    sources: Sequence[Provenance], dropped: Sequence[str], how: str = "joined"
) -> Provenance:
    """What all agree on; the notes of each, once, and what was lost by joining."""
    agreed = {}
    for field in fields(Provenance):
        values = {getattr(source, field.name) for source in sources}
        agreed[field.name] = values.pop() if len(values) == 1 else field.default
    notes = list(dict.fromkeys(note for source in sources for note in source.notes))
    notes.append(f"{len(sources)} traces {how}")
    notes += [f"{name} dropped: not the same kind in every trace" for name in dropped]
    doubts = tuple(dict.fromkeys(doubt for source in sources for doubt in source.doubts))
    return Provenance(**{**agreed, "notes": tuple(notes), "doubts": doubts})
