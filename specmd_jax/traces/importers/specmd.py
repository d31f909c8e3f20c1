"""The project's own `specmd.trace/1`, so that a trace may be given wherever an original may."""

from dataclasses import replace
from pathlib import Path

from specmd_jax.core.errors import InputError
from specmd_jax.core.model_name import plain_model_name
from specmd_jax.traces.format import FORMAT, read_trace
from specmd_jax.traces.importers._finish import finish
from specmd_jax.traces.importers._options import ImportOptions
from specmd_jax.traces.trace import Trace, assumed_experts

NAME = "specmd"
DESCRIPTION = f"{FORMAT}: what `specmd import` writes"


def detect(head: bytes, path: Path) -> bool:
    """A safetensors file: eight bytes of length, then JSON."""
    del path
    return head[8:10] in (b'{"', b"{ ") and 2 <= int.from_bytes(head[:8], "little") < 1 << 40


def load(path: Path, options: ImportOptions) -> Trace:
    """Reads the trace; what it says of itself holds, what was assumed may be settled anew."""
    trace = read_trace(path)
    if not trace.experts_assumed and options.num_experts not in (None, trace.num_experts):
        raise InputError(
            f"the trace has {trace.num_experts} experts a layer, not {options.num_experts}: "
            "leave the number out"
        )
    settles = (options.layers, options.ids, options.shared_experts, options.num_experts)
    if any(value is not None for value in settles) or options.shape not in (None, trace.shape):
        return _settled(trace, options)
    model = options.model or plain_model_name(trace.provenance.model)
    return replace(trace, provenance=replace(trace.provenance, model=model))


def _settled(trace: Trace, options: ImportOptions) -> Trace:
    """The trace as if it were imported with these options; predictions need all of its layers."""
    assumed = assumed_experts(trace.num_experts)
    notes = tuple(note for note in trace.provenance.notes if note != assumed)
    found = finish(
        trace.experts,
        step=trace.step,
        request=trace.request,
        phase=trace.phase,
        options=options,
        provenance=replace(trace.provenance, notes=notes, doubts=()),
        num_experts=None if trace.experts_assumed else trace.num_experts,
        weights=trace.weights,
        logits=trace.logits,
        expert_bytes=trace.expert_bytes,
    )
    if trace.predicted is None:
        return found
    if found.shape == trace.shape:
        return replace(found, predicted=trace.predicted)
    note = "predictions dropped: they are of other layers or experts"
    provenance = replace(found.provenance, notes=(*found.provenance.notes, note))
    return replace(found, provenance=provenance)
