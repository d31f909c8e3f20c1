"""`specmd sweep`: traces through a grid of caches, one row of parquet each."""

import itertools
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from tyro.conf import FlagCreatePairsOff, Positional, UseAppendAction, arg

from specmd_jax.cli.flags import Json, Part, load_model, load_trace, option, regroup
from specmd_jax.cli.interrupts import remark
from specmd_jax.cli.jit_cache import enable_compilation_cache
from specmd_jax.cli.output import print_json, progress, say, stdout
from specmd_jax.core.errors import InputError

if TYPE_CHECKING:
    from specmd_jax.model_zoo import ModelSpec
    from specmd_jax.study.sweep import Grid, Job, Refusal, Source
    from specmd_jax.traces import Trace

SHOWN = 12  # rows of the table that is printed
WHOLE = ("lookahead", "context", "seed", "prefill_tokens", "batch")
YES_OR_NO = ("guard", "overlap", "touch_on_prefetch_insert", "touch_on_prefetch_hit")


@dataclass(frozen=True, kw_only=True)
class Axes:
    """What is varied: values apart by commas, of a flag left out the default alone.

    Where one value is a list itself, its parts are joined by +, as in
    --capacity 5%,8+8+4+4 and --precision bf16,int8+int4+int2.
    """

    strategy: Annotated[str | None, option("S,...")] = None
    """Published systems."""
    eviction: Annotated[str | None, option("E,...", "lru")] = None
    """Eviction policies."""
    prefetch: Annotated[str | None, option("P,...", "none")] = None
    """Prefetch policies."""
    miss: Annotated[str | None, option("M,...", "fetch")] = None
    """Miss policies."""
    routing: Annotated[str | None, option("R,...", "standard")] = None
    """Routing policies."""
    capacity: Annotated[str, arg(metavar="C,...")] = "5%"
    """Capacities, as for simulate."""
    scope: Annotated[str | None, option("global,layer", "global")] = None
    """Scopes."""
    admission: Annotated[str | None, option("forced,bypass", "forced")] = None
    """Admissions."""
    lookahead: Annotated[str | None, option("D,...", "1")] = None
    """Layers ahead that the prefetcher names."""
    guard: Annotated[str | None, option("true,false", "false")] = None
    """Whether only what is worth its transfer is prefetched."""
    precision: Annotated[str | None, option("Q+...,...", "bf16")] = None
    """Precisions of the copies."""
    start: Annotated[str | None, option("cold,popular", "cold")] = None
    """Starts."""
    hardware: Annotated[str | None, option("H,...")] = None
    """Machines."""
    link: Annotated[str | None, option("RATE,...")] = None
    """Rates from host to device."""
    latency: Annotated[str | None, option("TIME,...")] = None
    """Fixed times of a copy."""
    context: Annotated[str | None, option("N,...", "1024")] = None
    """Tokens in the KV cache of each request."""
    overlap: Annotated[str | None, option("true,false", "true")] = None
    """Whether resident experts compute while others load."""
    touch_on_prefetch_insert: Annotated[str | None, option("true,false", "true")] = None
    """Whether an insert by prefetch counts as recent."""
    touch_on_prefetch_hit: Annotated[str | None, option("true,false", "false")] = None
    """Whether selecting a resident expert for prefetch does."""
    param: Annotated[UseAppendAction[tuple[str, ...]], arg(metavar="FAMILY.NAME=VALUE,...")] = ()
    """Parameters, applied to the combinations that have them."""
    seed: Annotated[str | None, option("N,...", "0")] = None
    """Seeds of the policies that draw at random."""

    def grid(self) -> "Grid":
        """Returns the combinations that the flags ask for.

        Raises:
          InputError: a value is empty or no number, or a parameter is given twice.
        """
        from specmd_jax.policies.params import split_assignment
        from specmd_jax.study.sweep import Grid

        axes = {
            name: _values(name, text)
            for name, text in vars(self).items()
            if name != "param" and text is not None
        }
        params: dict[str, list[str]] = {}
        for text in self.param:
            name, values = split_assignment(text)
            if name in params:
                raise InputError(f"parameter {name} is given twice: join its values by commas")
            params[name] = _split(f"parameter {name}", values)
        return Grid(axes, params)


@dataclass(frozen=True, kw_only=True)
class Passes:
    """How the tokens of the traces form passes: varied too, values apart by commas."""

    prefill_tokens: Annotated[str | None, option("N,...")] = None
    """Make the first N tokens of each request one prefill pass, where none was recorded."""
    batch: Annotated[str | None, option("B,...")] = None
    """Decode up to B requests together (continuous batching)."""

    def sources(self, name: str, trace: "Trace") -> "list[Source]":
        """Returns the trace once for every grouping of its tokens.

        Raises:
          InputError: a value is no number, or the trace cannot be regrouped so.
        """
        from specmd_jax.study.sweep import Source

        groupings = itertools.product(
            *([None] if text is None else _values(flag, text) for flag, text in vars(self).items())
        )
        return [Source(name, regroup(trace, *grouping), *grouping) for grouping in groupings]


@dataclass(frozen=True, kw_only=True)
class Sweep:
    """Replay traces through every combination of a grid and write a table, one row each.

    A sweep that is interrupted goes on where it was when it is called again.
    """

    traces: Annotated[
        Positional[tuple[Path, ...]], arg(metavar="T ...", help_behavior_hint="(at least one)")
    ]
    """Traces of any known format."""
    output: Annotated[Path, arg(aliases=["-o"], metavar="R.parquet")]
    """The table to write."""
    axes: Axes = Axes()
    passes: Passes = Passes()
    part: Part = field(default_factory=Part)
    model: Annotated[str | None, option("M")] = None
    """The model, if the traces do not say: a name, a Hugging Face id or a config.json."""
    skip_impossible: FlagCreatePairsOff[bool] = False
    """Leave out combinations that cannot be run, instead of refusing the sweep."""
    sort: Annotated[Literal["tpot_s", "hit_rate"] | None, option("tpot_s|hit_rate")] = None
    """Which rows are the best, in what is printed."""
    json: Json = False
    """Print one JSON object."""

    def run(self) -> None:
        from specmd_jax.study.journal import Journal, journal_of, write_table
        from specmd_jax.study.sweep import plan, run_jobs

        begun = time.perf_counter()
        if self.sort == "tpot_s" and self.axes.hardware is None:
            raise InputError("--sort tpot_s needs times: add --hardware")
        setups = self.axes.grid().setups()
        spec = load_model(self.model)
        jobs, refused = plan(self._sources(spec), setups, spec)
        _judge(jobs, refused, self.skip_impossible)
        journal = Journal(journal_of(self.output))
        enable_compilation_cache()

        def kept() -> str:
            rows = f"{len(journal.rows())} of {len(jobs)} rows"
            return f"with {rows} kept in {journal.path}: the same command goes on from there"

        try:
            with remark(kept), progress(f"{len(jobs)} configurations") as on_progress:
                rows = run_jobs(jobs, journal, spec, on_progress)
                write_table(rows, self.output)
        except InputError:
            journal.remove_if_empty()
            raise
        journal.remove()
        self._report(rows, len(refused), time.perf_counter() - begun)

    def _sources(self, spec: "ModelSpec | None") -> "list[Source]":
        if not self.traces:
            raise InputError("no trace is given: name at least one")
        seen: set[Path] = set()
        for path in self.traces:
            if path.resolve() in seen:
                raise InputError(f"{path} is given twice: give each trace once")
            seen.add(path.resolve())
        if self.output.resolve() in seen:
            raise InputError(f"{self.output} is one of the traces: write to another file")
        return [
            source
            for path in self.traces
            for source in self.passes.sources(str(path), load_trace(path, spec, self.part))
        ]

    def _report(self, rows: list[dict[str, Any]], skipped: int, took_s: float) -> None:
        from rich.text import Text

        from specmd_jax.report.comparison import show_comparison
        from specmd_jax.report.summary_table import labels

        best = sort_rows(rows, self.sort)
        if self.json:
            print_json(
                {
                    "output": str(self.output),
                    "rows": len(rows),
                    "skipped": skipped,
                    "seconds": took_s,
                    "best": best[0],
                }
            )
            return
        console = stdout()
        more = f", the best {SHOWN}:" if len(rows) > SHOWN else ""
        title = Text(f"\n  {len(rows)} rows in {self.output}{more}   ", "bold")
        console.print(title.append_text(labels(best[0] | {"open_loop": False})))
        console.print()
        show_comparison(best, console, SHOWN)
        console.print(Text(f"  {took_s:.1f} s", "dim"))


def sort_rows(rows: list[dict[str, Any]], key: str | None) -> list[dict[str, Any]]:
    """Returns the best rows first: by time a token where times are known, else by hits."""
    timed = any(row["tpot_s"] is not None for row in rows)
    if key == "hit_rate" or not timed:
        return sorted(rows, key=lambda row: -(row["hit_rate"] or 0.0))
    return sorted(rows, key=lambda row: (row["tpot_s"] is None, row["tpot_s"]))


def _values(name: str, text: str) -> list[Any]:
    """Returns the values of an axis as a `Choice` takes them."""
    flag = f"--{name.replace('_', '-')}"
    values: list[Any] = _split(flag, text)
    if name in WHOLE:
        return [_whole(flag, value) for value in values]
    if name in YES_OR_NO:
        return [_truth(flag, value) for value in values]
    if name == "precision":
        return [tuple(value.split("+")) for value in values]
    return [value.replace("+", ",") for value in values] if name == "capacity" else values


def _split(what: str, text: str) -> list[str]:
    values = [value.strip() for value in text.split(",")]
    if not all(values):
        raise InputError(f"{what} {text!r} has an empty value: write it like a,b,c")
    if len(set(values)) < len(values):
        raise InputError(f"{what} {text!r} names a value twice: give each once")
    return values


def _whole(flag: str, text: str) -> int:
    try:
        return int(text)
    except ValueError as error:
        raise InputError(f"{flag} {text!r} is no whole number: write it like 1,2,4") from error


def _truth(flag: str, text: str) -> bool:
    if text not in ("true", "false"):
        raise InputError(f"{flag} {text!r} is neither: write true, false or true,false")
    return text == "true"


def _judge(jobs: "list[Job]", refused: "list[Refusal]", skip: bool) -> None:
    """Refuses a sweep with impossible combinations, or says which are left out."""
    if not refused:
        return
    names = list(dict.fromkeys(refusal.name for refusal in refused))
    shown = ", ".join(names[:4]) + (", ..." if len(names) > 4 else "")
    what = f"{len(refused)} of {len(jobs) + len(refused)} combinations cannot be run ({shown})"
    if not jobs:
        raise InputError(f"{what}: {refused[0].reason}")
    if not skip:
        raise InputError(f"{what}: {refused[0].reason}; or leave such out with --skip-impossible")
    say(f"specmd: {what} and are left out: {refused[0].reason}")
