"""Routing traces: what they are in memory, their file, operations on them, and importers."""

from specmd_jax.traces.format import FORMAT, read_trace, stream_trace, write_trace
from specmd_jax.traces.importers import IMPORTERS, ImportOptions, import_trace, import_traces
from specmd_jax.traces.join import concatenate, merge_layers
from specmd_jax.traces.ops import batch_prefill, batch_requests, slice_passes, slice_requests
from specmd_jax.traces.trace import DECODE, MAX_EXPERTS, PAD, PREFILL, Provenance, Trace

__all__ = [
    "DECODE",
    "FORMAT",
    "IMPORTERS",
    "MAX_EXPERTS",
    "PAD",
    "PREFILL",
    "ImportOptions",
    "Provenance",
    "Trace",
    "batch_prefill",
    "batch_requests",
    "concatenate",
    "import_trace",
    "import_traces",
    "merge_layers",
    "read_trace",
    "slice_passes",
    "slice_requests",
    "stream_trace",
    "write_trace",
]
