"""The verbs, and the page that lists them."""

from typing import NamedTuple


class Verb(NamedTuple):
    """Where a verb lives, and what it does in one line."""

    module: str
    flags: str  # the dataclass of its flags, whose method `run` does the work
    summary: str


def _verb(module: str, flags: str, summary: str) -> Verb:
    return Verb(f"specmd_jax.cli.{module}", flags, summary)


VERBS: dict[str, Verb] = {
    "demo": _verb("demo", "Demo", "the paper's strategies side by side, really offloaded"),
    "import": _verb("import_", "Import", "turn any producer's routing trace into specmd.trace/1"),
    "generate": _verb("generate", "Generate", "text from a model whose experts stay on the host"),
    "replay": _verb("replay", "Replay", "time a recorded routing here, with random weights"),
    "record": _verb("record", "Record", "run a model, write the experts it chose into a trace"),
    "inspect": _verb("inspect_", "Inspect", "is it the policy or the working set?"),
    "curve": _verb("curve", "Curve", "what each policy misses at every capacity"),
    "simulate": _verb("simulate", "Simulate", "replay a trace through one cache"),
    "sweep": _verb("sweep", "Sweep", "replay traces through a grid of caches, into parquet"),
    "tune": _verb("tune", "Tune", "turn a strategy's thresholds until a trace runs fastest"),
    "calibrate": _verb("calibrate", "Calibrate", "measure this machine, as a hardware profile"),
    "predict": _verb("predict", "Predict", "how fast a model will be, from its config.json alone"),
    "quality": _verb("quality", "Quality", "what a cache costs in quality, inside the model"),
    "list": _verb("list_", "List", "strategies, policies, models, hardware, formats"),
    "bench": _verb("bench", "Bench", "how fast the simulator and the runtime are on this machine"),
}

_HELP = """\
usage: specmd VERB ...

Expert caching for mixture-of-experts models: replay real routing traces through
every published eviction, prefetch, miss and routing policy.

verbs
{verbs}

specmd VERB --help shows the flags of a verb, specmd --version the version.
"""


def show_help() -> None:
    """Prints the verbs."""
    lines = [f"  {name:<10}{verb.summary}" for name, verb in VERBS.items()]
    print(_HELP.format(verbs="\n".join(lines)), end="")
