"""Sweeps: every combination of a grid over every trace, one row each, resumable.

Combinations that differ only in numbers share one compile and one vmap. Finished rows are kept in
a journal beside the output until all are there, so that a killed sweep loses at most the chunk in
hand.
"""

import hashlib
import itertools
import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from typing import Any, NamedTuple

import numpy as np

from specmd_jax.core.errors import InputError
from specmd_jax.core.names import same_name
from specmd_jax.model_zoo import ModelSpec
from specmd_jax.policies.params import list_params
from specmd_jax.study.choice import OPTIONS, Choice
from specmd_jax.study.journal import Journal
from specmd_jax.study.metrics import PHASES, summarise_result
from specmd_jax.study.resolve import Refusal, sort_out
from specmd_jax.study.run import compare, compile_key
from specmd_jax.study.setup import Setup, describe, identity, make_setup
from specmd_jax.traces import Trace

MOST = 1_000_000  # combinations: a slip of one value too many should not fill the memory
CHUNK = 256  # configurations between two writes to the journal: as many as fill a vmap


class Merged(NamedTuple):
    """A combination that is another one in other words."""

    name: str  # of the setup that stands for both
    idle: tuple[str, ...]  # the axes that have no say in it, each with the reason


@dataclass(frozen=True)
class Grid:
    """The values that each field of a `Choice` takes, and each parameter of a policy."""

    axes: Mapping[str, Sequence[Any]] = field(default_factory=dict)
    params: Mapping[str, Sequence[str]] = field(default_factory=dict)  # by family.name

    def setups(self) -> tuple[list[Setup], list[Merged]]:
        """Returns every combination once, and those that are another one in other words.

        What a combination has no use for (a parameter of another policy, a lookahead without a
        prefetcher, an admission that the policy fixes) is left out of it.

        Raises:
          InputError: a value is unknown or out of range, or no combination has a parameter.
        """
        size = math.prod(len(values) for values in (*self.axes.values(), *self.params.values()))
        if size > MOST:
            raise InputError(f"the grid has {size:,} combinations: vary less, at most {MOST:,}")
        setups: dict[str, Setup] = {}
        merged: list[Merged] = []
        used = set()
        for values in itertools.product(*self.axes.values()):
            asked = dict(zip(self.axes, values, strict=True))
            choice, idle = _settled(asked)
            known = list_params(make_setup(Choice(**choice)).params)
            own = {name: same_name(name, known) for name in self.params}
            names = [name for name, found in own.items() if found is not None]
            used.update(names)
            idle += [f"{name} (no policy here reads it)" for name in self.params if not own[name]]
            rest = math.prod(len(values) for name, values in self.params.items() if not own[name])
            for settings in itertools.product(*(self.params[name] for name in names)):
                given = tuple(zip(names, settings, strict=True))
                setup = make_setup(Choice(**choice, params=given))
                key = json.dumps(identity(setup), sort_keys=True)
                again = rest - (key not in setups)
                merged += [Merged(f"{setup.name} at {setup.capacity}", tuple(idle))] * again
                setups.setdefault(key, setup)
        if unused := set(self.params) - used:
            raise InputError(
                f"no combination has the parameter {min(unused)}: add the policy that reads it"
            )
        return list(setups.values()), merged


class Source(NamedTuple):
    """A trace, and what the table calls it."""

    name: str
    trace: Trace
    prefill_tokens: int | None = None  # its tokens were regrouped so
    batch: int | None = None

    @property
    def identity(self) -> tuple:
        """What tells two sources of one sweep apart."""
        return self.name, self.prefill_tokens, self.batch


class Job(NamedTuple):
    """One row to come."""

    source: Source
    setup: Setup
    key: str  # of what decides the row: the trace, the setup, the model and the version

    @property
    def short(self) -> str:
        """As much of the key as a table holds."""
        return self.key[:16]


def plan(
    sources: Sequence[Source], setups: Sequence[Setup], spec: ModelSpec | None = None
) -> tuple[list[Job], list[Refusal]]:
    """Returns the rows to compute and the combinations that are impossible."""
    jobs, refused = [], []
    for source in sources:
        digest = _digest(source.trace, spec)
        possible, impossible = sort_out(source.trace, setups, spec)
        jobs += [Job(source, one.setup, _key(digest, source, one.setup)) for one in possible]
        refused += impossible
    return jobs, refused


def run_jobs(
    jobs: Sequence[Job],
    journal: Journal,
    spec: ModelSpec | None = None,
    on_progress: Callable[[float], None] = lambda share: None,
    known: Mapping[str, dict[str, Any]] | None = None,
) -> list[dict[str, Any]]:
    """Returns the row of each job, in order; those that are there already are not run again.

    Args:
      jobs: of which rows are wanted.
      journal: of the rows of this sweep so far, to which new ones are added.
      spec: the model, if the traces do not say.
      on_progress: called with the share of the rows that is there.
      known: rows of a finished sweep, by their column `key`.
    """
    finished = known or {}
    rows = {job.key: finished[job.short] for job in jobs if job.short in finished}
    rows |= journal.rows()
    todo = [job for job in jobs if job.key not in rows]
    done = len(jobs) - len(todo)
    for chunk in _chunks(todo):

        def progress(share: float, before: int = done, size: int = len(chunk)) -> None:
            on_progress((before + share * size) / len(jobs))

        trace = chunk[0].source.trace
        answers = compare(trace, [job.setup for job in chunk], spec, progress)
        about = about_trace(chunk[0].source)
        fresh = {
            job.key: about
            | flat_row(summarise_result(trace, answer), answer.setup)
            | {"key": job.short}
            for job, answer in zip(chunk, answers, strict=True)
        }
        journal.append(fresh)
        rows |= fresh
        done += len(chunk)
    return [rows[job.key] for job in jobs]


def about_trace(source: Source) -> dict[str, Any]:
    """Returns which part of which trace a row is about."""
    trace = source.trace
    return {
        "trace": source.name,
        "prefill_tokens": source.prefill_tokens,
        "batch": source.batch,
        "requests": len(np.unique(trace.request)),
        "passes": trace.num_passes,
        "tokens": trace.num_tokens,
        "notes": "; ".join(trace.provenance.notes),
    }


def flat_row(summary: Mapping[str, Any], setup: Setup) -> dict[str, Any]:
    """Returns a summary and the setup it belongs to as scalars: a row of the table."""
    described = describe(setup)
    percentiles = summary["stall_percentiles_s"] or {}
    phases = {f"{phase}_{k}": v for phase in PHASES for k, v in summary[phase].items()}
    scalars = {k: v for k, v in summary.items() if not isinstance(v, list | dict)}
    scalars.pop("stall_percentiles_s", None)
    return {
        **scalars,
        **phases,
        **{f"stall_{name}_s": value for name, value in percentiles.items()},
        "precisions": "+".join(summary["precisions"]),
        "warnings": "; ".join(summary["warnings"]),
        **{name: value for name, value in described.items() if name != "params"},
        **described["params"],
    }


def _chunks(jobs: Sequence[Job]) -> Iterator[list[Job]]:
    """Yields jobs that may share one vmap together, in the order of their first."""
    groups: dict[tuple, list[Job]] = {}
    for job in jobs:
        key = (job.source.identity, *compile_key(job.setup))
        groups.setdefault(key, []).append(job)
    for group in groups.values():
        for start in range(0, len(group), CHUNK):
            yield group[start : start + CHUNK]


def _settled(choice: dict[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """Returns the choice without the settings that have no say in it, and why each has none."""
    bare = {n: v for n, v in choice.items() if n not in ("lookahead", "guard", "admission")}
    strategy = make_setup(Choice(**bare)).strategy
    idle: dict[str, str] = {}
    if not strategy.prefetches:
        ahead = (name for name, declared in OPTIONS.items() if declared.needs == "prefetch")
        idle |= dict.fromkeys(ahead, "no prefetcher")
    if strategy.eviction.admission:
        idle["admission"] = "the eviction fixes it"
    kept = {name: value for name, value in choice.items() if name not in idle}
    return kept, [f"{name} ({reason})" for name, reason in idle.items() if name in choice]


def _digest(trace: Trace, spec: ModelSpec | None) -> str:
    digest = hashlib.sha256(f"{trace.shape} {spec} {version('specmd-jax')}".encode())
    for name in trace.__dataclass_fields__:
        value = getattr(trace, name)
        data = value.tobytes() if isinstance(value, np.ndarray) else repr(value).encode()
        digest.update(f"{name} {len(data)} ".encode() + data)
    return digest.hexdigest()


def _key(digest: str, source: Source, setup: Setup) -> str:
    decided = identity(setup) | {"source": source.identity}
    return hashlib.sha256((digest + json.dumps(decided, sort_keys=True)).encode()).hexdigest()
