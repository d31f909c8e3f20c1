"""`specmd sweep`: traces through a grid of caches, one row of a table each."""

import itertools
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from tyro.conf import FlagCreatePairsOff, Positional, UseAppendAction, arg

from specmd_jax.cli.flags import (
    FLAGGED,
    Json,
    Part,
    axes_of,
    load_model,
    load_trace,
    option,
    regroup,
)
from specmd_jax.cli.interrupts import remark
from specmd_jax.cli.jit_cache import enable_compilation_cache
from specmd_jax.cli.output import print_json, progress, say, stdout
from specmd_jax.cli.writable import Force, check_place, holds_other
from specmd_jax.core.errors import InputError
from specmd_jax.core.printable import printable_record
from specmd_jax.core.quantities import plural
from specmd_jax.study.choice import OPTIONS
from specmd_jax.study.option import WHOLE, parse_axis, split_values

if TYPE_CHECKING:
    from specmd_jax.model_zoo import ModelSpec
    from specmd_jax.study.resolve import Refusal
    from specmd_jax.study.sweep import Grid, Job, Merged, Source
    from specmd_jax.traces import Trace

SHOWN = 12  # rows of the table that is printed


@dataclass(frozen=True, kw_only=True)
class Axes(axes_of(FLAGGED)):
    """What is varied: values apart by commas, of a flag left out the default alone.

    Where one value is a list itself, its parts are joined by +, as in
    --capacity 5%,8+8+4+4 and --precision bf16,int8+int4+int2.
    """

    param: Annotated[UseAppendAction[tuple[str, ...]], arg(metavar="FAMILY.NAME=VALUE,...")] = ()
    """Parameters, applied to the combinations that have them."""

    def grid(self) -> "Grid":
        """Returns the combinations that the flags ask for.

        Raises:
          InputError: a value is empty or no number, or a parameter is given twice.
        """
        from specmd_jax.policies.params import split_assignment
        from specmd_jax.study.sweep import Grid

        axes = {
            name: parse_axis(name, OPTIONS[name].kind, text)
            for name, text in vars(self).items()
            if name != "param" and text is not None
        }
        params: dict[str, list[str]] = {}
        for text in self.param:
            name, values = split_assignment(text)
            if name in params:
                raise InputError(f"parameter {name} is given twice: join its values by commas")
            params[name] = split_values(f"parameter {name}", values)
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
            *(
                [None] if text is None else parse_axis(name, WHOLE, text)
                for name, text in vars(self).items()
            )
        )
        return [Source(name, regroup(trace, *grouping), *grouping) for grouping in groupings]


@dataclass(frozen=True, kw_only=True)
class Sweep:
    """Replay traces through every combination of a grid and write a table, one row each.

    A sweep that is interrupted goes on where it was when it is called again.

    Rows that the table holds already are not computed again.
    """

    traces: Annotated[
        Positional[tuple[Path, ...]], arg(metavar="T ...", help_behavior_hint="(at least one)")
    ]
    """Traces of any known format."""
    output: Annotated[Path, arg(aliases=["-o"], metavar="R.parquet")]
    """The table to write: .parquet, .csv, .jsonl or .md."""
    force: Force = False
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
        from specmd_jax.study.journal import Journal, journal_of
        from specmd_jax.study.sweep import plan, run_jobs
        from specmd_jax.study.table import table_kind, write_table

        begun = time.perf_counter()
        if self.sort == "tpot_s" and self.axes.hardware is None:
            raise InputError("--sort tpot_s needs times: add --hardware")
        check_place(self.output, self)
        table_kind(self.output)
        setups, merged = self.axes.grid().setups()
        spec = load_model(self.model)
        jobs, refused = plan(self._sources(spec), setups, spec)
        _judge(jobs, refused, self.skip_impossible)
        if not self.json:  # which lists them
            _tell_merged(merged, len(setups))
        known = self._known(jobs)
        journal = Journal(journal_of(self.output))
        enable_compilation_cache()

        def kept() -> str:
            rows = f"{len(journal.rows())} of {len(jobs)} rows"
            return f"with {rows} kept in {journal.path}: the same command goes on from there"

        try:
            with remark(kept), progress(f"{len(jobs)} configurations") as on_progress:
                rows = run_jobs(jobs, journal, spec, on_progress, known)
                if len(known) < len(rows):
                    write_table(rows, self.output)
        except InputError:
            journal.remove_if_empty()
            raise
        journal.remove()
        self._report(rows, (refused, merged), time.perf_counter() - begun)

    def _known(self, jobs: "list[Job]") -> dict[str, dict[str, Any]]:
        """Returns the rows that the table holds already, by key.

        Raises:
          InputError: it holds others, which would be lost.
        """
        from specmd_jax.study.table import read_table

        if self.force or not self.output.exists():
            return {}
        try:
            known = {str(row["key"]): row for row in read_table(self.output)}
        except (InputError, KeyError) as error:
            raise holds_other(self.output) from error
        if not known or set(known) - {job.short for job in jobs}:
            raise holds_other(self.output)
        if len(known) == len(jobs):
            say(f"{self.output} is complete: its {plural(len(jobs), 'row')} are shown as they are")
        return known

    def _sources(self, spec: "ModelSpec | None") -> "list[Source]":
        if not self.traces:
            raise InputError("no trace is given: name at least one")
        seen: set[Path] = set()
        for path in self.traces:
            if path.resolve() in seen:
                raise InputError(f"{path} is given twice: give each trace once")
            seen.add(path.resolve())
        return [
            source
            for path in self.traces
            for source in self.passes.sources(str(path), load_trace(path, spec, self.part))
        ]

    def _report(
        self,
        rows: list[dict[str, Any]],
        left_out: "tuple[list[Refusal], list[Merged]]",
        took_s: float,
    ) -> None:
        from rich.text import Text

        from specmd_jax.report.comparison import show_comparison
        from specmd_jax.report.summary_table import labels

        best = sort_rows(rows, self.sort)
        if self.json:
            print_json(
                {
                    "output": str(self.output),
                    "rows": len(rows),
                    "skipped": len(left_out[0]),
                    "refused": [refusal._asdict() for refusal in left_out[0]],
                    "merged": [one._asdict() for one in left_out[1]],
                    "seconds": took_s,
                    "best": best[0],
                }
            )
            return
        best, console = printable_record(best), stdout()
        more = f", the best {SHOWN}:" if len(rows) > SHOWN else ""
        title = Text(f"\n  {plural(len(rows), 'row')} in {self.output}{more}   ", "bold")
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


def _judge(jobs: "list[Job]", refused: "list[Refusal]", skip: bool) -> None:
    """Refuses a sweep with impossible combinations, or says which are left out."""
    if not refused:
        return
    what = f"{len(refused)} of {len(jobs) + len(refused)} combinations cannot be run"
    reasons = _by_reason((refusal.reason, refusal.name) for refusal in refused)
    if not jobs:
        raise InputError(f"{what} {'; '.join(reasons)}")
    if not skip:
        told = "; ".join(reasons)
        raise InputError(f"{what} {told}; or leave such out with --skip-impossible")
    say("\n  ".join([f"specmd: left out: {what} {reasons[0]}", *reasons[1:]]))


def _tell_merged(merged: "list[Merged]", kept: int) -> None:
    """Says which combinations are others in other words."""
    if merged:
        why = ((", ".join(one.idle) or "spelled otherwise", one.name) for one in merged)
        what = f"{len(merged)} of {len(merged) + kept} combinations are others in other words"
        reasons = _by_reason(why)
        say("\n  ".join([f"specmd: {what} {reasons[0]}", *reasons[1:]]))


def _by_reason(why: Iterable[tuple[str, str]]) -> list[str]:
    """Returns "(these): for this reason", one text for each reason."""
    names: dict[str, dict[str, None]] = {}
    for reason, name in why:
        names.setdefault(reason, {})[name] = None
    return [f"({_some(list(alike))}): {reason}" for reason, alike in names.items()]


def _some(names: list[str]) -> str:
    more = f", and {len(names) - SHOWN} more, see --json" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more
