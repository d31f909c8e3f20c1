"""`specmd simulate`: one trace through one cache."""

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from tyro.conf import Positional, arg

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

if TYPE_CHECKING:
    from specmd_jax.model_zoo import ModelSpec
    from specmd_jax.study.setup import Setup
    from specmd_jax.traces import Trace


@dataclass(frozen=True, kw_only=True)
class Simulate:
    """Replay a routing trace through one cache, event by event."""

    trace: Annotated[Positional[Path], arg(metavar="T")]
    """A trace of any known format."""
    cache: Decisions = field(default_factory=Decisions)
    machine: Machine = field(default_factory=Machine)
    slicing: Slicing = field(default_factory=Slicing)
    model: Annotated[str | None, option("M")] = None
    """The model, if the trace does not say: a name, a Hugging Face id or a config.json."""
    regret: bool = True
    """Whether to run Belady's optimum for comparison."""
    json: Json = False
    """Print one JSON object."""

    def run(self) -> None:
        from specmd_jax.report.summary_table import show_summary
        from specmd_jax.study.resolve import resolve
        from specmd_jax.study.setup import make_setup

        setup = make_setup(choice_of(self.cache, self.machine))
        spec = load_model(self.model)
        trace = load_trace(self.trace, spec, self.slicing)
        resolve(setup, trace, spec)
        enable_compilation_cache()
        summary = {"trace": str(self.trace)} | simulate(trace, setup, spec, self.regret)
        if self.json:
            print_json(summary)
        else:
            show(show_summary, summary)


def simulate(
    trace: "Trace", setup: "Setup", spec: "ModelSpec | None", with_regret: bool
) -> dict[str, Any]:
    """Returns the summary of one run, what it means beside the optimum, and what the trace is.

    Args:
      spec: the model, for sizes and times; None: it is not known.
      with_regret: whether Belady's optimum is replayed as well.
    """
    from specmd_jax.study.metrics import summarise_result
    from specmd_jax.study.run import compare
    from specmd_jax.study.setup import describe
    from specmd_jax.traces.analysis import find_loops

    with progress(setup.name) as on_progress:
        (answer,) = compare(trace, [setup], spec, on_progress)
    summary = summarise_result(trace, answer) | describe(setup)
    summary |= {
        "shape": list(trace.shape),
        "requests": len(set(trace.request.tolist())),
        "passes": trace.num_passes,
        "tokens": trace.num_tokens,
    }
    if with_regret:
        summary |= compare_with_optimum(trace, setup, spec, summary)
    looped = find_loops(trace)
    summary["loop_share"] = looped.share
    if looped.is_loop:
        summary["warnings"].append(
            f"{looped.share:.0%} of the decoded tokens lie in repetition loops: a stress case, "
            "not evidence"
        )
    return summary


def compare_with_optimum(
    trace: "Trace", setup: "Setup", spec: "ModelSpec | None", summary: dict[str, Any]
) -> dict[str, Any]:
    """Returns the regret against Belady, with forced admission and with bypass, no prefetch.

    Args:
      setup: whose capacity and copies the optimum has.
      spec: the model, for sizes and times; None: it is not known.
      summary: of the run that is compared.
    """
    from specmd_jax.policies.strategy import make_strategy
    from specmd_jax.study.metrics import count_summary, regret
    from specmd_jax.study.run import compare

    capacity = setup.capacity
    if capacity == "auto":  # which needs the machine, and the optimum needs no times
        capacity = f"{summary['capacity_bytes']}B"
    optima = []
    for name in ("belady", "belady-bypass"):
        strategy = make_strategy(name, scope=setup.strategy.scope)
        optimum = replace(setup, strategy=strategy, params=strategy.params, hardware=None)
        optima.append(replace(optimum, capacity=capacity))
    with progress("Belady's optimum") as on_progress:
        answers = compare(trace, optima, spec, on_progress)
    return regret(summary, *(count_summary(answer)["misses"] for answer in answers))
