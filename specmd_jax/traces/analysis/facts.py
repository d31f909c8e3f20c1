"""What a trace holds, as a record for JSON."""

from typing import Any

from specmd_jax.traces.trace import PREFILL, Trace


def describe_trace(trace: Trace) -> dict[str, Any]:
    """Returns what a trace holds and what was assumed in reading it, ready for JSON."""
    provenance = trace.provenance
    scores = ("weights", "logits", "predicted", "expert_bytes")
    return {
        "model": provenance.model or None,
        "layers": trace.shape.num_layers,
        "experts": trace.num_experts,
        "top_k": trace.shape.top_k,
        "tokens": trace.num_tokens,
        "passes": trace.num_passes,
        "requests": len(set(trace.request.tolist())),
        "prefill_tokens": int((trace.phase == PREFILL).sum()),
        "records": [name for name in scores if getattr(trace, name) is not None],
        "lookahead": trace.lookahead,
        "producer": provenance.producer or None,
        "licence": provenance.licence or None,
        "notes": list(provenance.notes),
        "doubts": list(provenance.doubts),
    }
