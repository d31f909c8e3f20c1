"""Sweeps: every combination of a grid over every trace, one row each, resumable.

Combinations that differ only in numbers share one compile and one vmap. Finished rows are kept in
a journal beside the output until all are there, so that a killed sweep loses at most the chunk in
hand.
"""

import hashlib
import itertools
import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, field
from importlib.metadata import version
from typing import Any, NamedTuple

import numpy as np

from specmd_jax.core.errors import InputError
from specmd_jax.model_zoo import ModelSpec
from specmd_jax.policies.params import list_params
from specmd_jax.study.choice import Choice, make_setup
from specmd_jax.study.journal import Journal
from specmd_jax.study.metrics import summarise_result
from specmd_jax.study.run import compare
from specmd_jax.study.setup import Setup, check_setup, describe
from specmd_jax.traces import Trace

MOST = 1_000_000  # combinations: a slip of one value too many should not fill the memory
OF_PREFETCH = ("lookahead", "guard", "touch_on_prefetch_insert", "touch_on_prefetch_hit")
CHUNK = 256  # configurations between two writes to the journal: as many as fill a vmap


@dataclass(frozen=True)
class Grid:
    """The values that each field of a `Choice` takes, and each parameter of a policy."""

    axes: Mapping[str, Sequence[Any]] = field(default_factory=dict)
    params: Mapping[str, Sequence[str]] = field(default_factory=dict)  # by family.name

    def setups(self) -> list[Setup]:
        """Returns every combination once.

        What a combination has no use for (a parameter of another policy, a lookahead without a
        prefetcher, an admission that the policy fixes) is left out of it.

        Raises:
          InputError: a value is unknown or out of range, or no combination has a parameter.
        """
        size = math.prod(len(values) for values in (*self.axes.values(), *self.params.values()))
        if size > MOST:
            raise InputError(f"the grid has {size:,} combinations: vary less, at most {MOST:,}")
        setups: dict[tuple, Setup] = {}
        used = set()
        for values in itertools.product(*self.axes.values()):
            choice = _settled(dict(zip(self.axes, values, strict=True)))
            known = list_params(make_setup(Choice(**choice)).params)
            names = [name for name in self.params if name in known]
            used.update(names)
            for settings in itertools.product(*(self.params[name] for name in names)):
                given = tuple(zip(names, settings, strict=True))
                setup = make_setup(Choice(**choice, params=given))
                setups.setdefault(_identity(setup), setup)
        if unused := set(self.params) - used:
            raise InputError(
                f"no combination has the parameter {min(unused)}: add the policy that reads it"
            )
        return list(setups.values())


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


class Refusal(NamedTuple):
    """A combination that cannot be run."""

    name: str
    reason: str


def plan(
    sources: Sequence[Source], setups: Sequence[Setup], spec: ModelSpec | None = None
) -> tuple[list[Job], list[Refusal]]:
    """Returns the rows to compute and the combinations that are impossible."""
    jobs, refused = [], []
    for source in sources:
        digest = _digest(source.trace, spec)
        for setup in setups:
            try:
                check_setup(source.trace, setup, spec)
            except InputError as error:
                refused.append(Refusal(f"{setup.name} at {setup.capacity}", str(error)))
            else:
                jobs.append(Job(source, setup, _key(digest, source, setup)))
    return jobs, refused


def run_jobs(
    jobs: Sequence[Job],
    journal: Journal,
    spec: ModelSpec | None = None,
    on_progress: Callable[[float], None] = lambda share: None,
) -> list[dict[str, Any]]:
    """Returns the row of each job, in order; those that the journal holds are not run again."""
    rows = journal.rows()
    todo = [job for job in jobs if job.key not in rows]
    done = len(jobs) - len(todo)
    for chunk in _chunks(todo):

        def progress(share: float, before: int = done, size: int = len(chunk)) -> None:
            on_progress((before + share * size) / len(jobs))

        trace = chunk[0].source.trace
        answers = compare(trace, [job.setup for job in chunk], spec, progress)
        about = about_trace(chunk[0].source)
        fresh = {
            job.key: about | flat_row(summarise_result(trace, answer), answer.setup)
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
    scalars = {k: v for k, v in summary.items() if not isinstance(v, list | dict)}
    scalars.pop("stall_percentiles_s", None)
    return {
        **scalars,
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
        setup = job.setup
        warm = setup.capacity if setup.start != "cold" else None
        key = (job.source.identity, setup.strategy, setup.precisions, setup.hardware is None, warm)
        groups.setdefault(key, []).append(job)
    for group in groups.values():
        for start in range(0, len(group), CHUNK):
            yield group[start : start + CHUNK]


def _settled(choice: dict[str, Any]) -> dict[str, Any]:
    """Returns the choice without the settings that have no say in it."""
    strategy = make_setup(Choice(**_without(choice, {"lookahead", "admission"}))).strategy
    idle: set[str] = set() if strategy.prefetches else set(OF_PREFETCH)
    if strategy.eviction.admission:
        idle.add("admission")
    return _without(choice, idle)


def _without(choice: dict[str, Any], names: Set[str]) -> dict[str, Any]:
    return {name: value for name, value in choice.items() if name not in names}


def _identity(setup: Setup) -> tuple:
    """Returns what tells two setups apart; how they were spelled does not."""
    return (*(getattr(setup, name) for name in setup.__dataclass_fields__ if name != "name"),)


def _digest(trace: Trace, spec: ModelSpec | None) -> str:
    digest = hashlib.sha256(f"{trace.shape} {spec} {version('specmd-jax')}".encode())
    for name in trace.__dataclass_fields__:
        value = getattr(trace, name)
        data = value.tobytes() if isinstance(value, np.ndarray) else repr(value).encode()
        digest.update(f"{name} {len(data)} ".encode() + data)
    return digest.hexdigest()


def _key(digest: str, source: Source, setup: Setup) -> str:
    decided = describe(setup) | {"name": setup.name, "capacity": setup.capacity}
    decided |= {"source": source.identity, "start": setup.start, "precisions": setup.precisions}
    decided |= {"scope": setup.strategy.scope, "admission": setup.strategy.admission}
    decided |= {"touch": setup.strategy[-2:], "hardware": repr(setup.hardware)}
    return hashlib.sha256((digest + json.dumps(decided, sort_keys=True)).encode()).hexdigest()
