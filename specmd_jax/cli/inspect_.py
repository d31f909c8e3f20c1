"""`specmd inspect`: what a trace is like, before any policy is chosen."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

from tyro.conf import Positional, arg

from specmd_jax.cli.flags import Json, Slicing, load_model, load_trace, option
from specmd_jax.cli.jit_cache import enable_compilation_cache
from specmd_jax.cli.output import print_json, progress, show


@dataclass(frozen=True, kw_only=True)
class Inspect:
    """Measure a trace's skew, locality and working set: is it the policy or the working set?"""

    trace: Annotated[Positional[Path], arg(metavar="T")]
    """A trace of any known format."""
    slicing: Slicing = field(default_factory=Slicing)
    model: Annotated[str | None, option("M")] = None
    """The model, if the trace does not say: a name, a Hugging Face id or a config.json."""
    scope: Annotated[str, option("global|layer", "global")] = "global"
    """Whether the curve's policies share one pool of slots, or each layer keeps its own."""
    json: Json = False
    """Print one JSON object."""

    def run(self) -> None:
        from specmd_jax.report.inspection import show_inspection
        from specmd_jax.study.inspect import inspect_trace

        spec = load_model(self.model)
        trace = load_trace(self.trace, spec, self.slicing)
        enable_compilation_cache()
        with progress(f"inspecting {self.trace.name}") as on_progress:
            inspection = inspect_trace(trace, spec, scope=self.scope, on_progress=on_progress)
        if self.json:
            print_json({"trace": str(self.trace)} | inspection)
        else:
            show(show_inspection, inspection)
