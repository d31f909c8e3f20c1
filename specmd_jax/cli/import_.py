"""`specmd import`: any known producer's trace into the project's own format."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

from tyro.conf import Positional, arg

from specmd_jax.cli.flags import Json, Slicing, option
from specmd_jax.cli.output import print_json, stdout
from specmd_jax.core.errors import InputError


@dataclass(frozen=True, kw_only=True)
class Import:
    """Turn routing traces of any known producer into one specmd.trace/1 file.

    Several sources are joined, one after another. `specmd list formats` names the formats.
    """

    sources: Annotated[
        Positional[tuple[Path, ...]], arg(metavar="SRC ...", help_behavior_hint="(at least one)")
    ]
    """Traces, files or folders, recognised by their content."""
    output: Annotated[Path, arg(aliases=["-o"], metavar="T")]
    """The file to write."""
    format: Annotated[str | None, option("F")] = None
    """The format, where recognition fails."""
    num_experts: Annotated[int | None, option("N")] = None
    """Routed experts of a layer, where the file does not say."""
    top_k: Annotated[int | None, option("K")] = None
    """Experts a token, for formats that only list ids."""
    model: Annotated[str | None, option("M")] = None
    """The model that was recorded: a name of `specmd list models`, or any other."""
    slicing: Slicing = field(default_factory=Slicing)
    json: Json = False
    """Print one JSON object."""

    def run(self) -> None:
        from specmd_jax.report.tables import show_trace
        from specmd_jax.traces import ImportOptions, concatenate, import_trace, write_trace
        from specmd_jax.traces.analysis import describe_trace

        if not self.sources:
            raise InputError("no source is given: name at least one trace to import")
        if self.output.is_dir():
            raise InputError(f"{self.output} is a folder: give a file in it, for example trace.st")
        options = ImportOptions(self.format, self.num_experts, self.top_k, self._model())
        traces = [import_trace(path, options) for path in self.sources]
        trace = self.slicing.apply(traces[0] if len(traces) == 1 else concatenate(traces))
        write_trace(trace, self.output)
        record = {"output": str(self.output)} | describe_trace(trace)
        if self.json:
            print_json(record)
        else:
            show_trace(record, stdout())

    def _model(self) -> str:
        """Returns the model's full name where it is a known one."""
        from specmd_jax.core.names import same_name
        from specmd_jax.model_zoo import MODELS

        name = same_name(self.model or "", MODELS)
        return MODELS[name].hf_id if name else self.model or ""
