"""The project's own `specmd.trace/1`, so that a trace may be given wherever an original may."""

from dataclasses import replace
from pathlib import Path

from specmd_jax.core.errors import InputError
from specmd_jax.traces.format import FORMAT, read_trace
from specmd_jax.traces.importers._options import ImportOptions
from specmd_jax.traces.trace import Trace

NAME = "specmd"
DESCRIPTION = f"{FORMAT}: what `specmd import` writes"


def detect(head: bytes, path: Path) -> bool:
    """A safetensors file: eight bytes of length, then JSON."""
    del path
    return head[8:10] in (b'{"', b"{ ") and 2 <= int.from_bytes(head[:8], "little") < 1 << 40


def load(path: Path, options: ImportOptions) -> Trace:
    """Reads the trace; the options may name its model, and its experts only if they agree."""
    trace = read_trace(path)
    if options.num_experts not in (None, trace.num_experts):
        raise InputError(
            f"the trace has {trace.num_experts} experts a layer, not {options.num_experts}: "
            "leave the number out"
        )
    if not options.model:
        return trace
    return replace(trace, provenance=replace(trace.provenance, model=options.model))
