"""Other programs that replay traces, measured beside ours where they are installed.

They answer a narrower question: libCacheSim serves single objects, moe-policylang single layers,
both one access at a time. The rates are comparable as costs of a replay, the hit rates are not.
"""

import tempfile
from collections.abc import Callable, Iterator
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from specmd_jax.traces import PAD, Trace

HASHPOWER = 12  # libCacheSim's default of 24 is for millions of objects and slower here
SHARE = 0.25  # of all experts on the device


class Peer(NamedTuple):
    """A program to compare with."""

    name: str
    module: str
    replays: Callable[[Trace], Iterator[tuple[str, Callable[[], object]]]]


def installed() -> list[Peer]:
    """Returns the peers that can be imported here."""
    return [peer for peer in PEERS if find_spec(peer.module) is not None]


def missing() -> list[str]:
    """Returns the names of the peers that are not installed."""
    return [peer.name for peer in PEERS if find_spec(peer.module) is None]


def _libcachesim(trace: Trace) -> Iterator[tuple[str, Callable[[], object]]]:
    libcachesim: Any = import_module("libcachesim")  # its annotations lag behind its classes
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "trace.oracleGeneral"
        as_oracle_general(trace).tofile(path)
        slots = int(SHARE * trace.shape.num_layers * trace.num_experts)
        for policy, kind in (("lru", "LRU"), ("fifo", "FIFO"), ("lfu", "LFU")):

            def replay(kind: str = kind) -> object:
                reader = libcachesim.TraceReader(
                    str(path), libcachesim.TraceType.ORACLE_GENERAL_TRACE
                )
                cache = getattr(libcachesim, kind)(cache_size=slots, hashpower=HASHPOWER)
                return cache.process_trace(reader)

            yield policy, replay


def as_oracle_general(trace: Trace) -> np.ndarray:
    """Returns the accesses as records of libCacheSim's binary format, in order of execution."""
    layer = np.arange(trace.shape.num_layers)[None, :, None]
    chosen = trace.experts != PAD
    objects = (layer * trace.num_experts + trace.experts)[chosen] + 1  # 0 is no object
    fields = [("time", "<u4"), ("object", "<u8"), ("size", "<u4"), ("next", "<i8")]
    records = np.zeros(objects.size, dtype=fields)
    records["object"], records["size"], records["next"] = objects, 1, -1
    return records


def _moe_policylang(trace: Trace) -> Iterator[tuple[str, Callable[[], object]]]:
    replay_policies = import_module("moe_policylang.benchmark.replay").replay_policies
    recorder = import_module("moe_policylang.integrations.trace_recorder")
    probs = _probabilities(trace)
    layers, top_k = trace.shape.num_layers, trace.shape.top_k
    entries = [
        recorder.TraceEntry(
            prompt_id=0,
            token_idx=token,
            layer_idx=layer,
            selected_experts=trace.experts[token, layer].tolist(),
            router_scores=[0.0] * top_k,
            router_softmax=probs[token, layer].tolist(),
        )
        for token in range(trace.num_tokens)
        for layer in range(layers)
    ]
    recording = recorder.TraceRecording(
        model_name="bench",
        num_layers=layers,
        num_experts=trace.num_experts,
        top_k=top_k,
        entries=entries,
        records_full_softmax=True,
    )
    for policy, name in (("lru", "topk_lru"), ("lfu", "topk_lfu")):

        def replay(name: str = name) -> object:
            return replay_policies(recording, top_k, [name], [SHARE])

        yield policy, replay


def _probabilities(trace: Trace) -> Float[np.ndarray, "T L N"]:
    assert trace.logits is not None
    grown = np.exp(trace.logits - trace.logits.max(axis=-1, keepdims=True))
    return grown / grown.sum(axis=-1, keepdims=True)


PEERS = (
    Peer("libcachesim", "libcachesim", _libcachesim),
    Peer("moe-policylang", "moe_policylang", _moe_policylang),
)
