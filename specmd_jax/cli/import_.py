"""`specmd import`: any known producer's trace into the project's own format."""

from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from tyro.conf import Positional, arg

from specmd_jax.cli.flags import Json, Slicing, load_model, option
from specmd_jax.cli.output import print_json, show
from specmd_jax.cli.writable import Force, check_place, check_trace_name, holds_other
from specmd_jax.core.errors import InputError

if TYPE_CHECKING:
    from specmd_jax.model_zoo import ModelSpec
    from specmd_jax.traces import ImportOptions, Trace


@dataclass(frozen=True, kw_only=True)
class Import:
    """Turn routing traces of any known producer into one specmd.trace/1 file.

    Of several sources, layers are merged and requests joined. `specmd list formats` names formats.
    """

    sources: Annotated[
        Positional[tuple[Path, ...]], arg(metavar="SRC ...", help_behavior_hint="(at least one)")
    ]
    """Traces, files or folders, recognised by their content."""
    output: Annotated[Path, arg(aliases=["-o"], metavar="T")]
    """The file to write."""
    force: Force = False
    format: Annotated[str | None, option("F")] = None
    """The format, where recognition fails."""
    num_experts: Annotated[int | None, option("N")] = None
    """Routed experts of a layer, where the file does not say."""
    top_k: Annotated[int | None, option("K")] = None
    """Experts a token, for formats that only list ids."""
    model: Annotated[str | None, option("M")] = None
    """The model that was recorded: a known one supplies and checks its layers, experts, top-k."""
    layers: Annotated[str | None, option("A:B,...")] = None
    """The layers to keep, as the file numbers them; a draft head is left out so."""
    axes: Annotated[str | None, option("tokens-first|layers-first")] = None
    """Whether arrays are [tokens, layers, k] or [layers, tokens, k]."""
    ids: Annotated[str | None, option("per-layer|global")] = None
    """Whether expert ids begin at 0 in each layer, or count on from layer to layer."""
    shared_experts: Annotated[str | None, option("ID,...|none")] = None
    """Ids of shared experts to leave out."""
    join: Annotated[str | None, option("layers|requests")] = None
    """What several sources are, where they do not say."""
    restarts: Annotated[str | None, option("pass|request")] = None
    """What begins where the token index of a table begins anew."""
    slicing: Slicing = field(default_factory=Slicing)
    json: Json = False
    """Print one JSON object."""

    def run(self) -> None:
        from specmd_jax.report.tables import show_trace
        from specmd_jax.traces import import_traces, write_trace
        from specmd_jax.traces.analysis import describe_trace

        if not self.sources:
            raise InputError("no source is given: name at least one trace to import")
        check_trace_name(self.output)
        check_place(self.output, self)
        trace = identify(import_traces(self.sources, self._options()))
        trace = self.slicing.apply(trace)
        if self.output.exists() and not self.force and not _is(self.output, trace):
            raise holds_other(self.output)
        write_trace(trace, self.output)
        record = {"output": str(self.output)} | describe_trace(trace)
        if self.json:
            print_json(record)
        else:
            show(show_trace, record)

    def _options(self) -> "ImportOptions":
        from specmd_jax.traces import ImportOptions

        spec = self._spec()
        return ImportOptions(
            format=self.format,
            num_experts=self.num_experts,
            top_k=self.top_k,
            model=spec.hf_id if spec else self.model or "",
            shape=spec.shape if spec else None,
            layers=self.layers,
            axes=self.axes,
            ids=self.ids,
            shared_experts=_ids(self.shared_experts),
            join=self.join,
            restarts=self.restarts,
        )

    def _spec(self) -> "ModelSpec | None":
        """Returns the model's sizes where it is a known one; any other name is a name."""
        if self.model is None:
            return None
        try:
            return load_model(self.model)
        except InputError:
            if Path(self.model).is_dir() or Path(self.model).suffix == ".json":
                raise
            return None


def identify(trace: "Trace") -> "Trace":
    """Returns `trace` with the full name and the experts of the known model that it names."""
    from specmd_jax.core.names import plain
    from specmd_jax.hardware.capacity import find_model
    from specmd_jax.model_zoo import known_models
    from specmd_jax.traces.join import supply_experts

    name = trace.provenance.model
    counts = {trace.num_experts}
    if trace.experts_assumed:  # ids that stop before the last expert are of the model all the same
        counts |= {spec.num_experts for spec in known_models()}
    shapes = [trace.shape._replace(num_experts=count) for count in sorted(counts)]
    found = (find_model(name, shape) for shape in shapes if shape[1] >= trace.num_experts)
    spec = next((one for one in found if one and one.top_k == trace.shape.top_k), None)
    if not name or spec is None:
        return trace
    said = f"number of experts not recorded: {spec.num_experts}, as {spec.name} has"
    trace = supply_experts(trace, spec.num_experts, said)
    if plain(name) not in (plain(spec.name), plain(spec.hf_id), plain(spec.hf_id.split("/")[-1])):
        return trace  # a variant of it, whose own name says more
    return replace(trace, provenance=replace(trace.provenance, model=spec.hf_id))


def _ids(text: str | None) -> tuple[int, ...] | None:
    if text is None:
        return None
    parts = [] if text.strip() == "none" else [part.strip() for part in text.split(",")]
    if not all(part.isdecimal() and len(part) < 6 for part in parts):
        raise InputError(f"--shared-experts {text[:40]!r}: give ids like 16 or 16,17, or none")
    return tuple(sorted({int(part) for part in parts}))


def _is(path: Path, trace: "Trace") -> bool:
    """Says whether `path` holds this very trace."""
    import numpy as np

    from specmd_jax.traces import read_trace

    try:
        held = read_trace(path)
    except InputError:
        return False
    return all(
        np.array_equal(one, other) if isinstance(one, np.ndarray) else one == other
        for one, other in ((getattr(held, f.name), getattr(trace, f.name)) for f in fields(held))
    )
