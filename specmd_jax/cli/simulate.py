"""`specmd simulate`: one trace through one cache."""

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from tyro.conf import FlagCreatePairsOff, Positional, UseAppendAction, arg

from specmd_jax.cli.flags import Json, Slicing, load_model, load_trace, option
from specmd_jax.cli.jit_cache import enable_compilation_cache
from specmd_jax.cli.output import print_json, progress, stdout

if TYPE_CHECKING:
    from specmd_jax.model_zoo import ModelSpec
    from specmd_jax.study.choice import Choice
    from specmd_jax.study.run import Setup
    from specmd_jax.traces import Trace


@dataclass(frozen=True, kw_only=True)
class Decisions:
    """The cache and its four policies; a flag overrides what --strategy says."""

    strategy: Annotated[str | None, option("S")] = None
    """A published system: see `specmd list strategies`."""
    eviction: Annotated[str | None, option("E", "lru")] = None
    """Which copy leaves: see `specmd list policies` for this and the next three."""
    prefetch: Annotated[str | None, option("P", "none")] = None
    """What to bring early."""
    miss: Annotated[str | None, option("M", "fetch")] = None
    """What to do about an absent expert."""
    routing: Annotated[str | None, option("R", "standard")] = None
    """Whether the choice of experts bends."""
    capacity: Annotated[str, arg(metavar="C")] = "5%"
    """5%, 200 (slots), 12/layer, 0.6GB, 8,8,4,... (quotas) or auto (what --hardware has left)."""
    scope: Annotated[str | None, option("global|layer", "global")] = None
    """One pool for all layers, or one for each."""
    admission: Annotated[str | None, option("forced|bypass", "forced")] = None
    """Whether every load is retained, or only what outranks a resident."""
    lookahead: Annotated[int | None, option("D", "1")] = None
    """Layers ahead that the prefetcher names."""
    guard: FlagCreatePairsOff[bool] = False
    """Prefetch only what is worth its transfer, see guard.margin."""
    precision: Annotated[str | None, option("Q,...", "bf16")] = None
    """Precisions of the copies, best first, for example int8,int4,int2."""
    start: Annotated[str | None, option("cold|popular", "cold")] = None
    """An empty cache, or the experts that this trace demands most."""
    touch_on_prefetch_insert: bool = True
    """Whether an insert by prefetch counts as recent."""
    touch_on_prefetch_hit: bool = False
    """Whether selecting a resident expert for prefetch does."""
    param: Annotated[UseAppendAction[tuple[str, ...]], arg(metavar="FAMILY.NAME=VALUE")] = ()
    """A parameter of a policy, for example eviction.decay=0.8."""
    seed: Annotated[int | None, option("N", "0")] = None
    """Seed of the policies that draw at random."""


@dataclass(frozen=True, kw_only=True)
class Machine:
    """The machine; without one nothing is timed."""

    hardware: Annotated[str | None, option("H")] = None
    """Times are wanted, on this machine: see `specmd list hardware`."""
    link: Annotated[str | None, option("RATE")] = None
    """Another rate from host to device, for example 5GB/s."""
    latency: Annotated[str | None, option("TIME")] = None
    """Another fixed time of each copy, for example 20us."""
    context: Annotated[int | None, option("N", "1024")] = None
    """Tokens in the KV cache of each request."""
    overlap: bool = True
    """Whether resident experts compute while others load."""


@dataclass(frozen=True, kw_only=True)
class Simulate:
    """Replay a routing trace through one cache, event by event."""

    trace: Annotated[Positional[Path], arg(metavar="T")]
    """A trace of any known format."""
    cache: Decisions = Decisions()
    machine: Machine = Machine()
    slicing: Slicing = field(default_factory=Slicing)
    model: Annotated[str | None, option("M")] = None
    """The model, if the trace does not say: a name, a Hugging Face id or a config.json."""
    regret: bool = True
    """Whether to run Belady's optimum for comparison."""
    json: Json = False
    """Print one JSON object."""

    def run(self) -> None:
        from specmd_jax.report.summary_table import show_summary
        from specmd_jax.study.choice import check_setup, make_setup

        setup = make_setup(self.choice())
        spec = load_model(self.model)
        trace = load_trace(self.trace, spec, self.slicing)
        check_setup(trace, setup, spec)
        enable_compilation_cache()
        summary = {"trace": str(self.trace)} | simulate(trace, setup, spec, self.regret)
        if self.json:
            print_json(summary)
        else:
            show_summary(summary, stdout())

    def choice(self) -> "Choice":
        """Returns what the flags ask for."""
        from specmd_jax.policies.params import split_assignment
        from specmd_jax.study.choice import Choice

        asked = vars(self.cache) | vars(self.machine)
        params = tuple(split_assignment(text) for text in asked.pop("param"))
        if asked["precision"] is not None:
            asked["precision"] = tuple(asked["precision"].split(","))
        return Choice(**asked, params=params)


def simulate(
    trace: "Trace", setup: "Setup", spec: "ModelSpec | None", with_regret: bool
) -> dict[str, Any]:
    """Returns the summary of one run, what it means beside the optimum, and what the trace is."""
    from specmd_jax.study.choice import describe
    from specmd_jax.study.metrics import summarise_result
    from specmd_jax.study.run import compare
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
    """Returns the regret against Belady, with forced admission and with bypass, no prefetch."""
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
