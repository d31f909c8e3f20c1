"""Every policy by the name it has in docs/semantics.md."""

from typing import Any

from tests.oracle import eviction, history, miss, prefetch, queues, routing

EVICTIONS = {
    "lru": eviction.Eviction,
    "fifo": eviction.Fifo,
    "lfu": eviction.Lfu,
    "lfu-in-cache": eviction.LfuInCache,
    "lfu-decay": eviction.LfuDecay,
    "lhu": eviction.Lhu,
    "fld": eviction.Fld,
    "fld-cyclic": eviction.FldCyclic,
    "score-based": history.ScoreBased,
    "least-stale": eviction.LeastStale,
    "least-stale-fifo": eviction.LeastStaleFifo,
    "least-stale-lru": eviction.LeastStaleLru,
    "lfru": eviction.Lfru,
    "sieve": queues.Sieve,
    "s3-fifo": queues.S3Fifo,
    "random": eviction.Random,
    "static": eviction.Static,
    "hobbit": history.Hobbit,
    "linear": history.Linear,
    "mrs": history.Mrs,
    "belady": eviction.Belady,
    "belady-bypass": eviction.Belady,
}

PREFETCHERS = {
    "none": prefetch.Prefetcher,
    "next-gate": prefetch.NextGate,
    "next-gate-quantile": prefetch.NextGateQuantile,
    "next-gate-mass": prefetch.NextGateMass,
    "next-gate-percentile": prefetch.NextGatePercentile,
    "previous": prefetch.Previous,
    "hottest": prefetch.Hottest,
    "transition": prefetch.Transition,
    "activation-matrix": prefetch.ActivationMatrix,
    "noisy-oracle": prefetch.NoisyOracle,
    "oracle": prefetch.Oracle,
}

MISSES = {
    "fetch": miss.Fetch,
    "fetch-lowest-bit": miss.FetchLowestBit,
    "fetch-priority": miss.FetchPriority,
    "drop-priority": miss.DropPriority,
    "drop-priority-cascade": miss.DropPriorityCascade,
    "substitute": miss.Substitute,
    "substitute-unbounded": miss.SubstituteUnbounded,
    "cpu": miss.Cpu,
}

ROUTINGS = {
    "standard": routing.Standard,
    "cache-prior": routing.CachePrior,
    "max-rank": routing.MaxRank,
    "cumulative-mass": routing.CumulativeMass,
}

_MODULES = {
    "EVICTIONS": "eviction",
    "PREFETCHERS": "prefetch",
    "MISSES": "miss",
    "ROUTINGS": "routing",
}


def twin(table: str, name: str) -> Any:
    """Returns a policy in plain Python; where there is none, the error names the line to add."""
    policies = globals()[table]
    if name in policies:
        return policies[name]
    module, named = _MODULES[table], name.title().replace("-", "")
    raise LookupError(
        f"{name!r} has no twin in plain Python: write class {named} in tests/oracle/{module}.py "
        f'and add the line "{name}": {module}.{named}, to {table} in tests/oracle/registry.py'
    )
