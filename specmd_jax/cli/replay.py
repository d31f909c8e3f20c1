"""`specmd replay`: the real time of a recorded routing on this machine, without the weights."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

from tyro.conf import Positional, arg

from specmd_jax.cli.flags import Decisions, Json, Part, choice_of, load_trace, option
from specmd_jax.cli.jit_cache import enable_compilation_cache
from specmd_jax.cli.output import print_json, show
from specmd_jax.cli.throttle import Throttle
from specmd_jax.core.errors import InputError


@dataclass(frozen=True, kw_only=True)
class Replay:
    """Time a trace's routing through a model of its shape, with random weights, offloaded.

    Every copy and every product is real and MEASURED; only the text would be nonsense.
    """

    trace: Annotated[Positional[Path], arg(metavar="T")]
    """A trace of any known format, of single requests."""
    model: Annotated[str | None, option("M")] = None
    """The model, if the trace does not say: a name, a Hugging Face id or a config.json."""
    cache: Decisions = field(default_factory=Decisions)
    throttle: Throttle = field(default_factory=Throttle)
    slicing: Part = field(default_factory=Part)
    dtype: Annotated[Literal["float32", "bfloat16"], option("float32|bfloat16", "float32")] = (
        "float32"
    )
    """What is computed in, and what bf16 copies are kept in."""
    json: Json = False
    """Print one JSON object."""

    def run(self) -> None:
        from specmd_jax.cli.flags import load_model
        from specmd_jax.hardware.capacity import find_model
        from specmd_jax.report.run_table import show_run
        from specmd_jax.runtime.runs.trace_replay import open_forced, summarise_replay, time_passes
        from specmd_jax.study.setup import make_setup

        setup = make_setup(choice_of(self.cache))
        link = self.throttle.link()
        spec = load_model(self.model)
        trace = load_trace(self.trace, spec, self.slicing)
        spec = spec or find_model(trace.provenance.model, trace.shape)
        if spec is None:
            raise InputError(
                f"the trace names {trace.provenance.model or 'no model'}, whose sizes are not "
                "known: give --model"
            )
        enable_compilation_cache()
        model = open_forced(spec, setup, self.dtype, link)
        try:
            seconds, prefill = time_passes(model, trace)
        finally:
            model.close()
        summary = {"model": spec.name, "trace": str(self.trace), "link": self.throttle.rate}
        summary |= summarise_replay(model, trace, seconds, prefill)
        if self.json:
            print_json(summary)
        else:
            show(show_run, summary)
