"""A small valid file of every format, written from one trace: what tests import, break and mutate.

`SAMPLES[name](folder)` writes the file below `folder` and returns its path.
"""

import io
import json
import pickle
import sys
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any
from unittest.mock import patch

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from specmd_jax.traces import Trace, write_trace

TOKENS, LAYERS, EXPERTS, TOP_K = 6, 2, 8, 2
PROMPT = 3  # leading tokens that are prefill, where a format knows phases


def ids() -> np.ndarray:
    """[T, L, K]: distinct ids whose highest is EXPERTS - 1."""
    token, layer, slot = np.indices((TOKENS, LAYERS, TOP_K))
    return (3 * token + 2 * layer + 5 * slot) % EXPERTS


def gates() -> np.ndarray:
    """[T, L, K] in quarters, so that every text and float format holds them exactly."""
    return np.where(np.arange(TOP_K) == 0, 0.75, 0.25) * np.ones((TOKENS, LAYERS, TOP_K))


def trace() -> Trace:
    """The trace of which the samples are recordings: one request, a prefill of three tokens."""
    phase = (np.arange(TOKENS) < PROMPT).astype(np.uint8)
    step = np.maximum(np.arange(TOKENS) - PROMPT + 1, 0).astype(np.int32)
    return Trace(
        ids().astype(np.int16),
        EXPERTS,
        step,
        np.zeros(TOKENS, np.int32),
        phase,
        weights=gates().astype(np.float32),
    )


def _text(name: str, lines: list[str]) -> Callable[[Path], Path]:
    def write(folder: Path) -> Path:
        path = folder / name
        path.write_text("\n".join(lines) + "\n")
        return path

    return write


def _jsonl(name: str, records: list[Any]) -> Callable[[Path], Path]:
    return _text(name, [json.dumps(record) for record in records])


def _cells() -> list[tuple[int, int]]:
    """(token, layer) in the order of execution: the prompt layer by layer, then the tokens."""
    prompt = [(token, layer) for layer in range(LAYERS) for token in range(PROMPT)]
    return prompt + [(t, layer) for t in range(PROMPT, TOKENS) for layer in range(LAYERS)]


def _chosen(token: int, layer: int) -> list[int]:
    return ids()[token, layer].tolist()


def _gated(token: int, layer: int) -> list[float]:
    return gates()[token, layer].tolist()


def _softmax(token: int, layer: int) -> list[float]:
    probabilities = np.full(EXPERTS, 0.25 / (EXPERTS - TOP_K))
    probabilities[_chosen(token, layer)] = (0.5, 0.25)
    return probabilities.tolist()


def _specmd(folder: Path) -> Path:
    write_trace(trace(), folder / "trace.safetensors")
    return folder / "trace.safetensors"


def _npz(folder: Path) -> Path:
    phase = (np.arange(TOKENS) >= PROMPT).astype(np.uint8)
    np.savez(
        folder / "trace.npz",
        experts=ids().astype(np.int16),
        phase=phase,
        request=np.zeros(TOKENS, np.int32),
        weights=gates().astype(np.float16),
    )
    (folder / "meta.json").write_text(json.dumps({"experts": EXPERTS, "model": "toy"}))
    return folder / "trace.npz"


def _bigmoe() -> list[str]:
    lines = ["# route_trace v1", f"# model=toy arch=toy n_layer=2 n_expert={EXPERTS}"]
    lines += [f"# layer={layer} expert_bytes=1000 dense_bytes=10" for layer in range(LAYERS)]
    lines.append("turn,phase,step,layer,slot,expert,weight,residency,expert_bytes")
    for token, layer in _cells():
        for slot, expert in enumerate(_chosen(token, layer)):
            gate = _gated(token, layer)[slot]
            lines.append(f"0,{int(token >= PROMPT)},{token},{layer},{slot},{expert},{gate},0,1000")
    return lines


def _swarm(folder: Path) -> Path:
    layers = {str(layer): ids()[:, layer].tolist() for layer in range(LAYERS)}
    record = {
        "model": "toy",
        "num_layers": LAYERS,
        "num_experts": EXPERTS,
        "top_k": TOP_K,
        "num_generated_tokens": TOKENS,
        "expert_trace": layers,
        "config": {},
    }
    (folder / "expert_indices.json").write_text(json.dumps(record))
    return folder / "expert_indices.json"


def _nvmoe() -> list[Any]:
    return [
        [[layer, e] for layer in range(LAYERS) for e in _chosen(t, layer)] for t in range(TOKENS)
    ]


def _grouped_nf4() -> list[Any]:
    meta = {
        "model": "toy",
        "prompt": "code",
        "steps": TOKENS,
        "layers": LAYERS,
        "top_k": TOP_K,
        "n_experts": EXPERTS,
    }
    steps = [
        {"step": token, "routed": {str(layer): _chosen(token, layer) for layer in range(LAYERS)}}
        for token in range(TOKENS)
    ]
    return [{"meta": meta}, *steps]


def _esft(folder: Path) -> Path:
    target = folder / "esft"
    target.mkdir()
    for layer in range(LAYERS):
        lines = []
        for document in (slice(0, 4), slice(4, TOKENS)):
            experts = "\t".join(map(str, ids()[document, layer].ravel()))
            weights = "\t".join(map(str, gates()[document, layer].ravel()))
            lines.append(f"{experts}\t\t{weights}\n")
        (target / f"expert_weights_{layer + 1}.txt").write_text("".join(lines))
    return target


def _vllm_npy(folder: Path) -> Path:
    np.save(folder / "request_0.npy", ids().astype(np.uint8))
    return folder / "request_0.npy"


def _vllm_npz(folder: Path) -> Path:
    np.savez(
        folder / "routed.npz",
        prompt_routed_experts=ids()[:PROMPT].astype(np.int16),
        routed_experts=ids()[PROMPT:].astype(np.int16),
    )
    return folder / "routed.npz"


def _vllm_folder(folder: Path) -> Path:
    target = folder / "requests"
    target.mkdir()
    np.save(target / "request_2.npy", ids()[:PROMPT].astype(np.int32))
    np.save(target / "request_10.npy", ids()[PROMPT:].astype(np.int32))
    return target


def sglang_records() -> list[dict[str, Any]]:
    """One prefill pass, then three decode passes; layer 0 is dense, and two slots are spare."""
    passes = [range(PROMPT), *([token] for token in range(PROMPT, TOKENS))]
    return [_sglang_record(number, list(tokens)) for number, tokens in enumerate(passes)]


def _sglang_record(number: int, tokens: list[int]) -> dict[str, Any]:
    topk = np.full((LAYERS + 1, len(tokens), 4), -1, np.int32)
    topk[1:, :, :TOP_K] = ids()[tokens].transpose(1, 0, 2)
    counts = np.stack([np.bincount(row[row >= 0], minlength=EXPERTS) for row in topk])
    return {
        "forward_pass_id": number,
        "rank": 0,
        "gatherer_key": "primary",
        "input_ids": list(tokens),
        "positions": list(tokens),
        "extend_seq_lens": [len(tokens)] if number == 0 else None,
        "forward_mode": 1 if number == 0 else 2,
        "topk_ids_of_layer": topk,
        "misc_objects": [],
        "global_physical_count": counts.astype(np.int32),
    }


def torch_bytes(saved: Any) -> bytes:
    """What `torch.save` would write, with arrays as tensors; torch itself is not needed."""
    modules = {name: ModuleType(name) for name in ("torch", "torch._utils")}
    storages = {np.int32: "IntStorage", np.int64: "LongStorage", np.float32: "FloatStorage"}
    for name in storages.values():
        setattr(modules["torch"], name, type(name, (), {"__module__": "torch"}))
    rebuild = type("_rebuild_tensor_v2", (), {"__module__": "torch._utils"})
    setattr(modules["torch._utils"], "_rebuild_tensor_v2", rebuild)  # noqa: B010
    tensors: list[np.ndarray] = []

    class Pickler(pickle.Pickler):
        def persistent_id(self, obj: Any) -> Any:
            if not isinstance(obj, memoryview):
                return None
            array = np.asarray(obj.obj)
            storage = getattr(modules["torch"], storages[array.dtype.type])
            return ("storage", storage, str(len(tensors) - 1), "cpu", array.size)

        def reducer_override(self, obj: Any) -> Any:
            if not isinstance(obj, np.ndarray):
                return NotImplemented
            tensors.append(np.ascontiguousarray(obj))
            strides = tuple(step // obj.itemsize for step in tensors[-1].strides)
            whole = memoryview(tensors[-1].data)
            return rebuild, (whole, 0, obj.shape, strides, False, OrderedDict())

    code = io.BytesIO()
    with patch.dict(sys.modules, modules):
        Pickler(code, protocol=2).dump(saved)
    return zipped(
        {"archive/data.pkl": code.getvalue(), "archive/byteorder": b"little"}
        | {f"archive/data/{i}": array.tobytes() for i, array in enumerate(tensors)}
    )


def zipped(members: dict[str, bytes]) -> bytes:
    """A zip archive, stored without compression."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return buffer.getvalue()


def _sglang(folder: Path) -> Path:
    table = np.tile(np.arange(EXPERTS), (LAYERS + 1, 1))
    saved = {"records": sglang_records(), "last_physical_to_logical_map": table}
    (folder / "recorder.pt").write_bytes(torch_bytes(saved))
    return folder / "recorder.pt"


def _activations() -> list[str]:
    rows = [f"{layer},{e}" for token, layer in _cells() for e in _chosen(token, layer)]
    return ["layer,expert", *rows]


def _positions() -> list[str]:
    position = [t - PROMPT for t in range(TOKENS)]
    return [
        f"{position[t]},{layer},{','.join(map(str, _chosen(t, layer)))}" for t, layer in _cells()
    ]


def _megatron() -> list[Any]:
    passes = [list(range(PROMPT)), *([token] for token in range(PROMPT, TOKENS))]
    return [
        {
            "step": step,
            "stage": "pre_dispatch",
            "block": "decoder",
            "layer": layer,
            "rank": 0,
            "num_tokens": len(tokens),
            "topk": TOP_K,
            "top_indices": [_chosen(token, layer) for token in tokens],
        }
        for step, tokens in enumerate(passes)
        for layer in range(LAYERS)
    ]


def policylang_entries() -> list[dict[str, Any]]:
    """Entries of the JSONL, softmax and phases included."""
    return [
        {
            "p": 0,
            "t": t,
            "l": layer,
            "e": _chosen(t, layer),
            "s": _gated(t, layer),
            "sm": _softmax(t, layer),
            "ph": "prefill" if t < PROMPT else "decode",
        }
        for t, layer in _cells()
    ]


def _policylang() -> list[Any]:
    header = {
        "model_name": "toy",
        "num_layers": LAYERS,
        "num_experts": EXPERTS,
        "top_k": TOP_K,
        "num_entries": TOKENS * LAYERS,
        "records_full_softmax": True,
    }
    return [header, *policylang_entries()]


def _parquet(folder: Path) -> Path:
    long = {
        "p": "prompt_id",
        "t": "token_idx",
        "l": "layer_idx",
        "e": "selected_experts",
        "s": "router_scores",
        "sm": "router_softmax",
        "ph": "phase",
    }
    entries = [{long[key]: value for key, value in e.items()} for e in policylang_entries()]
    pq.write_table(pa.Table.from_pylist(entries), folder / "trace.parquet", compression="zstd")
    return folder / "trace.parquet"


def _cache_lab(version: int) -> list[Any]:
    meta = {
        "record_type": "metadata",
        "format": "moe-cache-lab.routing-jsonl",
        "format_version": version,
        "model_id": "toy",
    }
    stage = {"num_experts": EXPERTS}
    if version == 2:
        stage = {
            "routing_stages": [
                {
                    "routing_stage": "decoder",
                    "num_experts": EXPERTS,
                    "assigned_experts_per_token": TOP_K,
                    "allows_unassigned": False,
                }
            ]
        }
    prefix = "decoder_" if version == 2 else ""
    extra = {"routing_stage": "decoder", "assignment_state": "assigned"} if version == 2 else {}
    events = [
        {
            "record_type": "routing_selection",
            "token_position": t,
            "layer": layer,
            **extra,
            "phase": prefix + ("prompt" if t < PROMPT else "generated"),
            "selected_experts": _chosen(t, layer),
            "selected_probabilities": _gated(t, layer),
        }
        for t, layer in _cells()
    ]
    return [meta | stage, *events]


def _colibri() -> list[str]:
    lines, call, last = [], -1, None
    for token, layer in _cells():
        row = token if token < PROMPT else 0
        call, last = call + (last != layer or row == 0), layer
        pairs = zip(_chosen(token, layer), _gated(token, layer), strict=True)
        lines.append(f"{call} {row} {layer} " + " ".join(f"{e}:{gate:.4f}" for e, gate in pairs))
    return lines


def _table_csv() -> list[str]:
    lines = ["request,position,phase,layer,expert,weight"]
    for token, layer in _cells():
        phase = "prefill" if token < PROMPT else "decode"
        lines += [
            f"a,{token},{phase},{layer},{expert},{gate}"
            for expert, gate in zip(_chosen(token, layer), _gated(token, layer), strict=True)
        ]
    return lines


def _table_jsonl() -> list[Any]:
    return [{"num_experts": EXPERTS, "model": "toy"}] + [
        {
            "token_idx": t,
            "layer_idx": layer,
            "selected_ids": _chosen(t, layer),
            "gate_weights": _gated(t, layer),
            "phase": "prompt" if t < PROMPT else "generated",
        }
        for t, layer in _cells()
    ]


SAMPLES: dict[str, Callable[[Path], Path]] = {
    "specmd": _specmd,
    "npz": _npz,
    "bigmoe": _text("gemma.route.csv", _bigmoe()),
    "cache-lab v1": _jsonl("lab.jsonl", _cache_lab(1)),
    "cache-lab v2": _jsonl("lab2.jsonl", _cache_lab(2)),
    "policylang": _jsonl("policy.jsonl", _policylang()),
    "policylang parquet": _parquet,
    "megatron": _jsonl("router_trace_rank0.jsonl", _megatron()),
    "swarm": _swarm,
    "grouped-nf4": _jsonl("granite.jsonl", _grouped_nf4()),
    "nvmoe": _jsonl("smoke.jsonl", _nvmoe()),
    "esft": _esft,
    "vllm npy": _vllm_npy,
    "vllm npz": _vllm_npz,
    "vllm folder": _vllm_folder,
    "sglang": _sglang,
    "llama.cpp": _text("moe_trace.csv", _activations()),
    "llama.cpp positions": _text("moe-trace.csv", _positions()),
    "colibri": _text("route.txt", _colibri()),
    "table csv": _text("table.csv", _table_csv()),
    "table jsonl": _jsonl("table.jsonl", _table_jsonl()),
}
