"""`specmd.trace/1`: what is written is read, whole or in chunks, and lies are refused."""

import json
import struct
from dataclasses import fields, replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import save_file

from specmd_jax.core.errors import InputError
from specmd_jax.traces import (
    FORMAT,
    PAD,
    Provenance,
    Trace,
    read_trace,
    slice_passes,
    stream_trace,
    write_trace,
)
from tests.traces.samples import trace


def full_trace(tokens: int = 7, seed: int = 0) -> Trace:
    """A trace with every optional field, in passes of one to three tokens."""
    rng = np.random.default_rng(seed)
    layers, experts, top_k, lookahead = 3, 5, 2, 2
    ids = np.argsort(rng.random((tokens, layers, experts)))[..., :top_k].astype(np.int16)
    ids[0, 0, 1] = PAD
    step = np.cumsum(np.r_[0, rng.random(tokens - 1) < 0.6]).astype(np.int32)
    return Trace(
        experts=ids,
        num_experts=experts,
        step=step,
        request=rng.integers(0, 3, tokens).astype(np.int32),
        phase=(step % 2).astype(np.uint8),
        weights=rng.random((tokens, layers, top_k)).astype(np.float32),
        logits=rng.normal(size=(tokens, layers, experts)).astype(np.float16),
        predicted=rng.random((tokens, layers, lookahead, experts)).astype(np.float32),
        expert_bytes=np.array([10, 20, 30]),
        provenance=Provenance(model="toy", producer="test", notes=("one", "zwei ü")),
    )


def assert_same(found: Trace, wanted: Trace) -> None:
    for field in fields(Trace):
        left, right = getattr(found, field.name), getattr(wanted, field.name)
        if isinstance(right, np.ndarray):
            np.testing.assert_array_equal(left, right, err_msg=field.name)
        else:
            assert left == right, field.name


@pytest.fixture(scope="module")
def shared_file(tmp_path_factory):
    """Written anew by each example of a property."""
    return tmp_path_factory.mktemp("format") / "trace.safetensors"


@given(tokens=st.integers(2, 12), seed=st.integers(0, 2**32 - 1))
def test_what_is_written_is_read(shared_file, tokens, seed):
    wanted = full_trace(tokens, seed)
    write_trace(wanted, shared_file)
    assert_same(read_trace(shared_file), wanted)


def test_types_are_compact_and_lose_nothing(tmp_path):
    write_trace(full_trace(), tmp_path / "trace")
    found = read_trace(tmp_path / "trace")
    assert found.experts.dtype == np.int16
    assert found.logits is not None and found.logits.dtype == np.float16
    assert found.weights is not None and found.weights.dtype == np.float32  # not exact in half


@given(tokens=st.integers(2, 12), seed=st.integers(0, 99), chunk=st.integers(1, 5))
def test_a_stream_equals_the_whole(shared_file, tokens, seed, chunk):
    wanted = full_trace(tokens, seed)
    write_trace(wanted, shared_file)
    chunks = list(stream_trace(shared_file, chunk))
    assert len(chunks) == -(-wanted.num_passes // chunk)
    for number, found in enumerate(chunks):
        stop = min((number + 1) * chunk, wanted.num_passes)
        piece = slice_passes(wanted, number * chunk, stop)
        assert_same(found, replace(piece, provenance=wanted.provenance))


def test_a_chunk_of_padding_alone_is_streamed(tmp_path):
    whole = trace()
    experts = whole.experts.copy()
    experts[-1] = PAD
    write_trace(replace(whole, experts=experts, weights=None), tmp_path / "trace")
    *_, last = stream_trace(tmp_path / "trace", 1)
    assert (last.experts == PAD).all()


def test_a_failed_write_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "trace.safetensors"
    write_trace(trace(), path)
    before = path.read_bytes()

    def full_disk(*_arguments, **_options):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("specmd_jax.core.files.os.replace", full_disk)
    with pytest.raises(InputError, match="No space left"):
        write_trace(full_trace(), path)
    assert path.read_bytes() == before
    assert [item.name for item in tmp_path.iterdir()] == [path.name]


def test_a_folder_that_does_not_exist_is_named(tmp_path):
    with pytest.raises(InputError, match="nowhere"):
        write_trace(trace(), tmp_path / "nowhere" / "trace")


def test_chunks_must_hold_a_pass(tmp_path):
    write_trace(trace(), tmp_path / "trace")
    with pytest.raises(InputError, match="at least 1"):
        next(stream_trace(tmp_path / "trace", 0))


def _tensors() -> dict[str, np.ndarray]:
    whole = trace()
    return {name: getattr(whole, name) for name in ("experts", "step", "request", "phase")}


def _metadata(**changes: str) -> dict[str, str]:
    shape = json.dumps({"num_layers": 2, "num_experts": 8, "top_k": 2})
    return {"format": FORMAT, "shape": shape, "provenance": "{}"} | changes


def _claiming(header: dict) -> bytes:
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + bytes(64)


def _huge(tokens: int) -> bytes:
    """A header of very many tokens before 64 bytes of data."""
    cells = tokens * 4 * 2
    return _claiming(
        {
            "__metadata__": _metadata(),
            "experts": {"dtype": "I16", "shape": [tokens, 2, 2], "data_offsets": [0, cells]},
        }
    )


DAMAGED = {
    "empty": (b"", "no safetensors header"),
    "a length that lies": (struct.pack("<Q", 1 << 62) + b"{}", "no safetensors header"),
    "a length beyond the file": (struct.pack("<Q", 9) + b"{}", "claims a header of 9 bytes"),
    "a length of zero": (struct.pack("<Q", 0) + b"{}", "no safetensors header"),
    "no JSON": (struct.pack("<Q", 8) + b"notjson!", "its header is not JSON"),
    "a billion tokens": (_huge(10**9), "is cut short"),
    "a header that wraps": (_huge(1 << 61), "beyond 64 bits"),
    "no metadata": (_claiming({}), "not a whole safetensors file|of format 'none'"),
}


@pytest.mark.parametrize(("data", "message"), DAMAGED.values(), ids=DAMAGED)
def test_damaged_files_are_refused(data, message, tmp_path):
    (tmp_path / "trace").write_bytes(data)
    with pytest.raises(InputError, match=message) as caught:
        read_trace(tmp_path / "trace")
    assert "\n" not in str(caught.value)


def test_every_truncation_is_refused(tmp_path):
    write_trace(full_trace(), tmp_path / "whole")
    data = (tmp_path / "whole").read_bytes()
    for size in range(0, len(data), 7):
        (tmp_path / "cut").write_bytes(data[:size])
        with pytest.raises(InputError):
            read_trace(tmp_path / "cut")


WRONG = {
    "version": ({"format": "specmd.trace/2"}, {}, "specmd.trace/2"),
    "no shape": ({"shape": "{}"}, {}, "number of experts"),
    "shape no JSON": ({"shape": "{"}, {}, "not JSON"),
    "shape no object": ({"shape": "[]"}, {}, "not a JSON object"),
    "provenance no text": ({"provenance": '{"model": 3}'}, {}, "not text"),
    "notes no list": ({"provenance": '{"notes": "one"}'}, {}, "not text"),
    "experts too wide": ({}, {"experts": np.zeros((6, 2, 2), np.int64)}, "experts as I64"),
    "step of floats": ({}, {"step": np.zeros(6, np.float32)}, "step as F32"),
    "two axes": ({}, {"experts": np.zeros((6, 4), np.int16)}, "expected 3 axes"),
    "lengths differ": ({}, {"phase": np.zeros(5, np.uint8)}, "phase of shape"),
    "weights of integers": ({}, {"weights": np.zeros((6, 2, 2), np.int8)}, "weights as I8"),
    "no tokens": (
        {},
        {
            "experts": np.zeros((0, 2, 2), np.int16),
            "step": np.zeros(0, np.int32),
            "request": np.zeros(0, np.int32),
            "phase": np.zeros(0, np.uint8),
        },
        "needs tokens",
    ),
    "ids too high": ({}, {"experts": np.full((6, 2, 2), 8, np.int16)}, "expert id 8"),
}


@pytest.mark.parametrize(("header", "tensors", "message"), WRONG.values(), ids=WRONG)
def test_files_that_break_the_contract_are_refused(header, tensors, message, tmp_path):
    save_file(_tensors() | tensors, tmp_path / "trace", metadata=_metadata(**header))
    with pytest.raises(InputError, match=message):
        read_trace(tmp_path / "trace")


@pytest.mark.parametrize("name", ["experts", "step", "request", "phase"])
def test_a_missing_tensor_is_named(name, tmp_path):
    tensors = _tensors()
    del tensors[name]
    save_file(tensors, tmp_path / "trace", metadata=_metadata())
    with pytest.raises(InputError, match=f"lacks {name}"):
        read_trace(tmp_path / "trace")


def test_unknown_provenance_of_a_later_version_is_ignored(tmp_path):
    stored = json.dumps({"model": "toy", "colour": "blue"})
    save_file(_tensors(), tmp_path / "trace", metadata=_metadata(provenance=stored))
    assert read_trace(tmp_path / "trace").provenance == Provenance(model="toy")
