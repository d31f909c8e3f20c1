"""`specmd curve`: what each policy misses at every capacity, from one walk over the trace."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

from tyro.conf import Positional, arg

from specmd_jax.cli.flags import Json, Slicing, load_model, load_trace, option
from specmd_jax.cli.jit_cache import enable_compilation_cache
from specmd_jax.cli.output import print_json, progress, say, show
from specmd_jax.cli.writable import Force, check_place, holds_other


@dataclass(frozen=True, kw_only=True)
class Curve:
    """Draw miss-ratio curves: what each policy misses at every capacity, exactly.

    Demand loads, forced admission, a cold start, copies of one size.
    """

    trace: Annotated[Positional[Path], arg(metavar="T")]
    """A trace of any known format."""
    eviction: Annotated[str | None, option("E,...", "lru,lfu,least-stale,fld-cyclic,belady")] = None
    """Policies, or all: see `specmd list policies`."""
    scope: Annotated[str, option("global|layer", "global")] = "global"
    """Whether all layers share one pool of slots, or each layer keeps its own."""
    output: Annotated[Path | None, arg(aliases=["-o"], metavar="FILE", help_behavior_hint="")] = (
        None
    )
    """A table (.parquet, .csv, .jsonl, .md) or a picture (.png, .svg, .pdf)."""
    force: Force = False
    slicing: Slicing = field(default_factory=Slicing)
    model: Annotated[str | None, option("M")] = None
    """The model, if the trace does not say: a name, a Hugging Face id or a config.json."""
    json: Json = False
    """Print one JSON object, with every capacity."""

    def run(self) -> None:
        from specmd_jax.report.curves import PICTURES, draw_curves, show_curves
        from specmd_jax.study.curves import DEFAULT, curve_record, curve_rows, curves_of
        from specmd_jax.study.table import table_kind, write_table

        if self.output is not None:
            check_place(self.output, self)
            if self.output.suffix.lower() not in PICTURES:
                table_kind(self.output)
            if self.output.exists() and not self.force:
                raise holds_other(self.output)
        names = DEFAULT if self.eviction is None else tuple(self.eviction.split(","))
        trace = load_trace(self.trace, load_model(self.model), self.slicing)
        enable_compilation_cache()
        with progress(f"{len(names)} curves") as on_progress:
            found, refused = curves_of(trace, names, self.scope, on_progress)
        records = [curve_record(name, self.scope, curve) for name, curve in found.items()]
        about = {"trace": str(self.trace), "model": trace.provenance.model, "shape": trace.shape}
        if self.output is not None and self.output.suffix.lower() in PICTURES:
            draw_curves(records, trace.shape, self.output)
        elif self.output is not None:
            write_table([row for record in records for row in curve_rows(record)], self.output)
        if self.json:
            print_json(about | {"curves": records, "refused": refused})
            return
        show(show_curves, about | {"curves": records})
        for name, reason in refused.items():
            say(f"{name} is left out: {reason}")
