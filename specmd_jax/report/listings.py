"""What there is to choose from, as records for JSON and as tables for a terminal."""

from collections.abc import Callable
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from specmd_jax.core.quantities import device_memory, nbytes
from specmd_jax.hardware.profiles import HARDWARE
from specmd_jax.model_zoo import MODELS
from specmd_jax.policies.params import list_params
from specmd_jax.policies.published import NOT_EXPRESSIBLE, STRATEGIES
from specmd_jax.policies.strategy import FAMILIES, policy_name
from specmd_jax.traces import IMPORTERS

Records = list[dict[str, Any]]
PROSE = ("what it does", "what it looks like", "source")
SHOWN_PRECISIONS = ("bf16", "int8", "int4")


def strategies() -> Records:
    """Returns the named strategies, and the published ones that replay cannot express."""
    found = []
    for name, preset in STRATEGIES.items():
        strategy = preset.strategy
        policies = {f: policy_name(f, getattr(strategy, f)) for f in FAMILIES}
        found.append(
            {
                "name": name,
                "expressible": True,
                **policies,
                "scope": strategy.scope,
                "lookahead": strategy.lookahead if strategy.prefetches else None,
                "precisions": list(preset.precisions) if preset.precisions else None,
                "start": preset.start,
                "params": list_params(preset.params),
                "open_loop": strategy.open_loop,
                "note": preset.note,
                "source": preset.source,
            }
        )
    return found + [
        {"name": name, "expressible": False, "note": f"not expressible: {reason}"}
        for name, reason in NOT_EXPRESSIBLE.items()
    ]


def policies() -> Records:
    """Returns every policy of the four families, with what its own file says of it."""
    return [
        {
            "family": family,
            "name": name,
            "summary": first_sentence(policy.doc or ""),
            "source": source_of(policy.doc or ""),
            "params": dict(policy.params._asdict()) if policy.params else {},
            "reads": list(policy.reads),
        }
        for family, known in FAMILIES.items()
        for name, policy in known.items()
    ]


def models() -> Records:
    return [
        {
            "name": spec.name,
            "hf_id": spec.hf_id,
            "layers": spec.shape.num_layers,
            "experts": spec.shape.num_experts,
            "top_k": spec.shape.top_k,
            "expert_bytes": {p: spec.expert_bytes(p) for p in SHOWN_PRECISIONS},
            "routed_bytes": {p: spec.routed_bytes(p) for p in SHOWN_PRECISIONS},
            "other_bytes": spec.non_expert_bytes(),
            "source": spec.source,
        }
        for spec in MODELS.values()
    ]


def hardware() -> Records:
    return [
        {
            "name": profile.name,
            "device_memory_bytes": profile.device_memory_bytes,
            "hbm_bytes_per_s": profile.hbm_bytes_per_s,
            "peak_flops_per_s": profile.peak_flops_per_s,
            "link_bytes_per_s": None if profile.unified else profile.h2d_bytes_per_s,
            "latency_s": profile.h2d_latency_s,
            "layer_s": profile.layer_s,
            "arrive_s": profile.arrive_s,
            "decide_s": profile.decide_s,
            "source": profile.source,
        }
        for profile in HARDWARE.values()
    ]


def formats() -> Records:
    return [{"name": one.NAME, "description": one.DESCRIPTION} for one in IMPORTERS.values()]


def show_strategies(console: Console) -> None:
    table = _table("strategy", "what it does")
    for record in strategies():
        dim = "" if record["expressible"] else "dim"
        table.add_row(Text(record["name"], dim), _entry(record, "note"))
    console.print(table)


def show_policies(console: Console) -> None:
    known = policies()
    for family in FAMILIES:
        table = _table(family, "what it does")
        for record in known:
            if record["family"] == family:
                entry = _entry(record, "summary")
                params = ", ".join(f"{name} {value}" for name, value in record["params"].items())
                table.add_row(record["name"], entry.append(params and f"\n{params}", "green"))
        console.print(table)
        console.print()


def show_models(console: Console) -> None:
    table = _table("model", "layers x experts", "one bf16", "one int4", "all bf16", "the rest")
    for column in table.columns[1:]:
        column.justify = "right"
    for record in models():
        shape = f"{record['layers']} x {record['experts']} top-{record['top_k']}"
        one = record["expert_bytes"]
        table.add_row(
            record["name"],
            shape,
            nbytes(one["bf16"]),
            nbytes(one["int4"]),
            nbytes(record["routed_bytes"]["bf16"]),
            nbytes(record["other_bytes"]),
        )
    table.caption = "Sizes of one expert, of all of them, and of what is not routed (bf16)."
    console.print(table)


def show_hardware(console: Console) -> None:
    table = _table("machine", "memory", "HBM", "link", "source")
    for record in hardware():
        link = record["link_bytes_per_s"]
        table.add_row(
            record["name"],
            device_memory(record["device_memory_bytes"]),
            f"{nbytes(record['hbm_bytes_per_s'])}/s",
            "shared" if link is None else f"{nbytes(link)}/s",
            record["source"],
        )
    console.print(table)


def show_formats(console: Console) -> None:
    table = _table("format", "what it looks like")
    for record in formats():
        table.add_row(record["name"], Text(record["description"]))
    console.print(table)


LISTINGS: dict[str, tuple[Callable[[], Records], Callable[[Console], None]]] = {
    "strategies": (strategies, show_strategies),
    "policies": (policies, show_policies),
    "models": (models, show_models),
    "hardware": (hardware, show_hardware),
    "formats": (formats, show_formats),
}


def first_sentence(doc: str) -> str:
    """Returns the first paragraph of a policy's documentation, on one line."""
    return " ".join(doc.strip().split("\n\n")[0].split())


def source_of(doc: str) -> str:
    """Returns what stands behind `Source:`, on one line; "" where nothing does."""
    _, _, source = doc.partition("Source:")
    return " ".join(source.split("\n\n")[0].split())


def _entry(record: dict[str, Any], key: str) -> Text:
    """Returns what something is, and below it where it comes from."""
    if not record.get("source"):
        return Text(record[key], style="dim")
    return Text(f"{record[key]}\n").append(record["source"], style="dim")


def _table(*columns: str) -> Table:
    """Returns an empty table in which only the columns of prose wrap."""
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold cyan", show_edge=False)
    for name in columns:
        table.add_column(name, no_wrap=name not in PROSE, overflow="fold")
    table.columns[0].style = "bold"
    return table
