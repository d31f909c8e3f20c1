"""`specmd demo`: the paper's comparison in a minute, without a model or a download."""

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Annotated, Any

from tyro.conf import arg

from specmd_jax.cli.flags import Json
from specmd_jax.cli.jit_cache import enable_compilation_cache
from specmd_jax.cli.output import print_json, progress, stdout
from specmd_jax.errors import InputError

if TYPE_CHECKING:
    from specmd_jax.choice import Choice
    from specmd_jax.traces import Trace

MODEL = "olmoe-1b-7b-0924"
MACHINE = "specmd-paper"
MOST_TOKENS = 4096  # of each request: some minutes
CAPACITIES = ("5%", "15%")
PAPER = ("specmd-1", "specmd-2", "specmd-3", "specmd-4", "specmd-5")
SAID_ABOVE = ("scope", "precisions")  # by the header and the names, so no columns of the table
HEADER = """
  The five strategies of the SpecMD paper beside a per-layer LRU and Belady's
  optimum, both without prefetch, on a SYNTHETIC trace: {tokens} tokens drawn with
  the skew and the memory of OLMoE's router, {recall:.0%} of the next layer's experts
  foreseen. Times are SIMULATED for the paper's machine ({machine}), where a
  layer takes 28 ms without any load. Copies are int4, in specmd-3 of three
  precisions; capacity is in percent of the bf16 weights.
  For your own traces: specmd import, specmd inspect, specmd simulate.
"""


@dataclass(frozen=True, kw_only=True)
class Demo:
    """Compare the paper's strategies on a synthetic trace: nothing to download."""

    tokens: Annotated[int, arg(metavar="N")] = 64
    """Tokens that each of the three requests decodes."""
    seed: Annotated[int, arg(metavar="N")] = 0
    """Seed of the synthetic trace."""
    json: Json = False
    """Print one JSON object."""

    def run(self) -> None:
        from specmd_jax.choice import make_setup
        from specmd_jax.metrics import summarise_answer
        from specmd_jax.model_zoo import get_model
        from specmd_jax.study import run

        if not 1 <= self.tokens <= MOST_TOKENS:
            raise InputError(f"--tokens {self.tokens} is out of range: give 1 to {MOST_TOKENS}")
        if self.seed < 0:
            raise InputError(f"--seed {self.seed} is negative: give 0 or more")
        trace = synthetic_trace(self.tokens, self.seed)
        setups = [replace(make_setup(choice), name=name) for name, choice in choices()]
        enable_compilation_cache()
        with progress("seven strategies, two capacities") as on_progress:
            answers = run(trace, setups, get_model(MODEL), on_progress)
        rows = [summarise_answer(trace, answer) for answer in answers]
        if self.json:
            print_json({"synthetic": True, "seed": self.seed, "rows": rows})
        else:
            show_demo(trace, rows)


def synthetic_trace(tokens: int, seed: int) -> "Trace":
    """Returns three requests of a router with the measured locality of OLMoE's.

    Skew, memory and topics are what `calibrate` finds for sampled decodes of OLMoE-1B-7B; the
    noise is that at which four of five experts are foreseen one layer ahead.

    Raises:
      InputError: `tokens` is not positive.
    """
    from specmd_jax.model_zoo import get_model
    from specmd_jax.traces.synthetic import SyntheticSpec, generate

    spec = SyntheticSpec(
        get_model(MODEL).shape,
        requests=3,
        tokens=tokens,
        prompt_tokens=32,
        skew=0.7,
        rho=0.29,
        topic_share=0.23,
        topic_rate=0.005,
        lookahead=1,
        predictor_noise=0.42,
        record_logits=True,
    )
    return generate(spec, seed)


def choices() -> "list[tuple[str, Choice]]":
    """Returns the paper's configurations and the two ends of the scale, at every capacity."""
    from specmd_jax.choice import Choice

    found = {name: Choice(strategy=name) for name in PAPER}
    found["per-layer lru"] = Choice(eviction="lru", scope="layer", precision=("int4",))
    found["belady"] = Choice(eviction="belady", precision=("int4",))
    return [
        (name, replace(choice, capacity=capacity, hardware=MACHINE))
        for capacity in CAPACITIES
        for name, choice in found.items()
    ]


def show_demo(trace: "Trace", rows: list[dict[str, Any]]) -> None:
    """Prints one table for each capacity, under a header that says what this is not."""
    from rich.text import Text

    from specmd_jax.report.comparison import show_comparison
    from specmd_jax.report.summary_table import show_warnings
    from specmd_jax.traces.analysis import foreseen_recall

    console = stdout()
    recall = float(foreseen_recall(trace)[0])
    header = HEADER.format(tokens=trace.num_tokens, recall=recall, machine=MACHINE)
    console.print(Text(header))
    for capacity in CAPACITIES:
        part = [
            {name: value for name, value in row.items() if name not in SAID_ABOVE}
            for row in rows
            if row["capacity"] == capacity
        ]
        slots, experts = part[-1]["capacity_slots"], trace.shape.num_layers * trace.num_experts
        console.print(Text(f"  {capacity}: {slots} slots for {experts} experts", "bold"))
        show_comparison(part, console)
    show_warnings(
        ["open-loop rows change what the model computes: their hits cost quality"], console
    )
