"""`specmd tune`: the continuous parameters of a strategy, against simulated time."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from tyro.conf import FlagCreatePairsOff, Positional, arg

from specmd_jax.cli.flags import (
    Decisions,
    Json,
    Machine,
    Slicing,
    choice_of,
    load_model,
    load_trace,
    option,
)
from specmd_jax.cli.jit_cache import enable_compilation_cache
from specmd_jax.cli.output import print_json, progress, show
from specmd_jax.cli.writable import Force, check_output, mark
from specmd_jax.core.errors import InputError

if TYPE_CHECKING:
    from specmd_jax.model_zoo import ModelSpec
    from specmd_jax.study.setup import Setup
    from specmd_jax.traces import Trace

LEAST, MOST = 8, 1_000_000  # simulations


@dataclass(frozen=True, kw_only=True)
class Tune:
    """Tune a strategy's thresholds on every second request of a trace; judge it on the others.

    Replays are exact and hard; see `specmd list policies` for the parameters.
    """

    trace: Annotated[Positional[Path], arg(metavar="T")]
    """A trace of any known format."""
    output: Annotated[Path | None, arg(aliases=["-o"], metavar="S.json", help_behavior_hint="")] = (
        None
    )
    """The strategy to write, for --strategy of every verb."""
    force: Force = False
    cache: Decisions = field(default_factory=Decisions)
    machine: Machine = field(default_factory=Machine)
    slicing: Slicing = field(default_factory=Slicing)
    model: Annotated[str | None, option("M")] = None
    """The model, if the trace does not say: a name, a Hugging Face id or a config.json."""
    objective: Annotated[Literal["tpot", "ttft", "stall"], arg(metavar="tpot|ttft|stall")] = "tpot"
    """What is to become small."""
    knobs: Annotated[str | None, option("FAMILY.NAME,...", "all there are")] = None
    """Which parameters to turn."""
    evaluations: Annotated[int, option("N", "128")] = 128
    """Simulations to spend."""
    starts: Annotated[int, option("N", "4")] = 4
    """Places that the search goes on from, side by side."""
    quality_price: Annotated[float, option("X", "10")] = 10.0
    """What serving 1 percent of the demand otherwise than routed costs, in percent of the time."""
    bytes_price: Annotated[float, option("X", "0")] = 0.0
    """What loading 1 percent of the demand costs, in percent of the time."""
    check_grid: FlagCreatePairsOff[bool] = False
    """Also search a dense grid, which takes many times as long."""
    json: Json = False
    """Print one JSON object."""

    def run(self) -> None:
        from specmd_jax.study.resolve import resolve
        from specmd_jax.study.setup import make_setup

        self._check()
        setup = make_setup(choice_of(self.cache, self.machine))
        if setup.hardware is None:
            raise InputError("tuning needs times: add --hardware")
        spec = load_model(self.model)
        trace = load_trace(self.trace, spec, self.slicing)
        resolve(setup, trace, spec)
        enable_compilation_cache()
        record = self._tune(trace, setup, spec)
        if self.json:
            print_json(record)
        else:
            from specmd_jax.report.tuning_page import show_tuning

            show(show_tuning, record)

    def _check(self) -> None:
        if not LEAST <= self.evaluations <= MOST:
            raise InputError(f"--evaluations {self.evaluations}: give {LEAST} to {MOST:,}")
        if not 1 <= self.starts <= self.evaluations // 2:
            raise InputError(
                f"--starts {self.starts}: give 1 to {self.evaluations // 2}, half of the "
                f"{self.evaluations:,} evaluations"
            )
        for name in ("quality_price", "bytes_price"):
            price = getattr(self, name)
            if not 0 <= price <= 1000:
                flag = name.replace("_", "-")
                raise InputError(f"--{flag} {price:g} is out of range: give 0 to 1000")
        if self.output is not None and self.output.suffix != ".json":
            raise InputError(f"{self.output} is no .json: --strategy knows a file by its ending")
        if self.output is not None:
            check_output(self.output, self)

    def _tune(self, trace: "Trace", setup: "Setup", spec: "ModelSpec | None") -> dict[str, Any]:
        import numpy as np

        from specmd_jax.policies.strategy_file import write_strategy
        from specmd_jax.study.tune import Effort, Goal, knobs_of, tune
        from specmd_jax.study.tune.knobs import with_values

        named = tuple(part.strip() for part in self.knobs.split(",")) if self.knobs else ()
        knobs = knobs_of(setup.params, named)
        goal = Goal(self.objective, self.quality_price, self.bytes_price)
        effort = Effort(evaluations=self.evaluations, starts=self.starts, seed=self.cache.seed or 0)
        with progress(f"tuning {len(knobs)} parameters") as on_progress:
            record = tune(trace, setup, knobs, goal, effort, spec, self.check_grid, on_progress)
        record = {"trace": str(self.trace), "output": None} | record
        if self.output is not None:
            values = np.asarray([record["knobs"][knob.name]["tuned"] for knob in knobs])
            params = with_values(setup.params, knobs, values)
            about = record | {"settings": mark(self)}
            write_strategy(
                self.output, setup.strategy, params, setup.precisions, setup.start, about
            )
            record["output"] = str(self.output)
        return record
