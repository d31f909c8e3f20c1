"""`specmd import`: any known producer's trace into the project's own format."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from tyro.conf import Positional, arg

from specmd_jax.cli.flags import Cut, Json, option
from specmd_jax.cli.output import print_json, stdout
from specmd_jax.errors import InputError


@dataclass(frozen=True, kw_only=True)
class Import:
    """Turn routing traces of any known producer into one specmd.trace/1 file.

    Several sources are joined, one after another. `specmd list formats` names the formats.
    """

    sources: Annotated[Positional[tuple[Path, ...]], arg(metavar="SRC")]
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
    cut: Cut = Cut()
    json: Json = False
    """Print one JSON object."""

    def run(self) -> None:
        from specmd_jax.report.trace_lines import show_trace
        from specmd_jax.traces import ImportOptions, concatenate, import_trace, write_trace

        if not self.sources:
            raise InputError("no source is given: name at least one trace to import")
        options = ImportOptions(self.format, self.num_experts, self.top_k, self._model())
        traces = [import_trace(path, options) for path in self.sources]
        trace = self.cut.apply(traces[0] if len(traces) == 1 else concatenate(traces))
        write_trace(trace, self.output)
        if self.json:
            print_json(_record(trace, self.output))
        else:
            show_trace(trace, self.output, stdout())
