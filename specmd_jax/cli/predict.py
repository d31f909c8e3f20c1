"""`specmd predict`: how fast a model will be on a machine, from its config.json alone."""

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from tyro.conf import Positional, arg

from specmd_jax.cli.flags import Json, Part, load_trace, option, read_model
from specmd_jax.cli.output import print_json, show
from specmd_jax.core.errors import InputError

if TYPE_CHECKING:
    from specmd_jax.hardware.profiles import HardwareProfile
    from specmd_jax.model_zoo import ModelSpec
    from specmd_jax.predict.hit_rates import Locality


@dataclass(frozen=True, kw_only=True)
class Predict:
    """Estimate what fits, TTFT and TPOT of a model on a machine, from its config.json alone.

    The cache is a per-layer LRU without prefetch.
    """

    model: Annotated[Positional[str], arg(metavar="MODEL")]
    """A name, a Hugging Face id, a config.json or its folder: see `specmd list models`."""
    hardware: Annotated[str, arg(metavar="H")]
    """The machine: a name of `specmd list hardware`, or a file of `specmd calibrate`."""
    vram: Annotated[str | None, option("SIZE")] = None
    """Device memory to use, for example 8GB, instead of all there is."""
    precision: Annotated[str | None, option("Q", "as stored, else bf16")] = None
    """Precision of the routed experts."""
    non_expert_precision: Annotated[str | None, option("Q", "as stored, else bf16")] = None
    """Precision of attention, shared experts and dense blocks; the rest stays in 16 bits."""
    link: Annotated[str | None, option("RATE")] = None
    """Another rate from host to device, for example 5GB/s."""
    prompt: Annotated[int, option("N", "512")] = 512
    """Tokens of the prompt."""
    context: Annotated[int, option("N", "1024")] = 1024
    """Tokens of each sequence while it is decoded, the prompt included."""
    batch: Annotated[int, option("B", "1")] = 1
    """Sequences decoded together."""
    trace: Annotated[Path | None, option("T")] = None
    """A trace of this model, to take hit rates from instead of published locality."""
    part: Part = field(default_factory=Part)
    json: Json = False
    """Print one JSON object."""

    def run(self) -> None:
        from specmd_jax.model_zoo import find_precision
        from specmd_jax.predict.forecast import forecast, known_band
        from specmd_jax.predict.memory import Question
        from specmd_jax.predict.record import describe_forecast
        from specmd_jax.report.forecast_page import show_forecast

        spec = read_model(self.model)
        others = find_precision(self.non_expert_precision or spec.non_expert_precision)
        spec = replace(spec, non_expert_precision=others)
        precision = find_precision(self.precision or spec.expert_precision)
        question = Question(spec, self._machine(), precision, self.prompt, self.context, self.batch)
        locality = self._locality(spec)
        bands = known_band("ttft"), known_band("published" if self.trace is None else "trace")
        record = describe_forecast(question, forecast(question, locality), locality.source, bands)
        if self.json:
            print_json(record)
        else:
            show(show_forecast, record)

    def _machine(self) -> "HardwareProfile":
        from specmd_jax.core.units import parse_bytes, parse_rate
        from specmd_jax.hardware.profiles import get_hardware

        profile = get_hardware(self.hardware)
        if self.link is not None:
            if profile.unified:
                raise InputError(f"{profile.name} has one memory and no link: leave out --link")
            profile = replace(profile, h2d_bytes_per_s=parse_rate(self.link))
        if self.vram is not None:
            profile = replace(profile, device_memory_bytes=parse_bytes(self.vram))
        return profile

    def _locality(self, spec: "ModelSpec") -> "Locality":
        from specmd_jax.predict.hit_rates import published_locality, trace_locality

        if self.trace is None:
            if self.part != Part():
                raise InputError("which part of which trace? give --trace, or leave out the part")
            return published_locality(spec.num_experts, spec.top_k)
        return trace_locality(load_trace(self.trace, spec, self.part), str(self.trace))
