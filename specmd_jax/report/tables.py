"""What a trace holds, as a record for JSON and as lines for a terminal."""

from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from specmd_jax.core.quantities import count, plural
from specmd_jax.traces import PREFILL, Trace


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
    }


def show_trace(record: Mapping[str, Any], console: Console) -> None:
    """Prints what `specmd import` wrote."""
    recorded = ", ".join(record["records"]) or "nothing"
    lines = [
        ("model", record["model"] or "not recorded"),
        (
            "router",
            f"{record['layers']} layers x {record['experts']} experts, top-{record['top_k']}",
        ),
        (
            "tokens",
            f"{count(record['tokens'])} ({count(record['prefill_tokens'])} prefill), "
            f"{plural(record['passes'], 'pass')}, {plural(record['requests'], 'request')}",
        ),
        ("beside ids", recorded),
        ("producer", record["producer"] or "not recorded"),
        ("licence", record["licence"] or "not recorded"),
        *(("assumed", note) for note in record["notes"]),
    ]
    table = Table.grid(padding=(0, 2))
    for name, value in lines:
        style = "yellow" if name == "assumed" else ""
        table.add_row(Text(name, "cyan"), Text(value, style))
    console.print()
    console.print(Text(f"  {record['output']}", "bold"))
    console.print(Padding(table, (0, 0, 1, 2), expand=False))
