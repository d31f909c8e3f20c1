"""Files made to crash, to hang or to fill memory, and paths that are no files: one line each."""

import io
import os
import socket
import subprocess
import sys
import threading
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from specmd_jax.core.errors import InputError
from specmd_jax.traces import ImportOptions, import_trace
from tests.traces.samples import SAMPLES, torch_bytes, zipped

START, END = b"\x80\x02}X\x07\x00\x00\x00records", b"s."


def pickled(value: bytes) -> bytes:
    """A recorder's file whose records are what some opcodes leave on the stack."""
    return zipped({"archive/data.pkl": START + value + END})


def doubled(times: int) -> bytes:
    """A tuple of two that are the same tuple of two, and so on: 2^times leaves in few bytes."""
    memo = [b"q" + bytes([i]) + b"h" + bytes([i]) + b"\x86" for i in range(times)]
    return b")" + b"".join(memo)


def deflated(member: str, size: int) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(member, bytes(size))
    return buffer.getvalue()


def wide(rows: int, width: int) -> bytes:
    narrow = [f"{token},0,1" for token in range(rows)]
    return "\n".join(
        ["token,layer,experts", *narrow, f"{rows},0," + " ".join(map(str, range(width)))]
    ).encode()


HOSTILE: dict[str, tuple[Callable[[], bytes], str]] = {
    "a key that takes for ever to hash": (
        lambda: zipped({"archive/data.pkl": b"\x80\x02}" + doubled(60) + b"Ns."}),
        "a key of type tuple",
    ),
    "a list that is endless when written out": (
        lambda: pickled(doubled(60)),
        "nests deeper|over and over",
    ),
    "lists of lists that are the same": (
        lambda: pickled(b"](]q\x00(" + b"N" * 999 + b"e" + b"h\x00" * 999 + b"e"),
        "over and over",
    ),
    "a list that holds itself": (lambda: pickled(b"]q\x00h\x00a"), "nests deeper"),
    "a tuple in a tuple in a tuple": (lambda: pickled(b")" + b"\x85" * 5000), "nests deeper"),
    "a memo with holes": (lambda: pickled(b"Nr\xff\xff\xff\x0f"), "entry 268435455 of a memo"),
    "a number without end": (lambda: pickled(b"\x8a\xff" + b"\x01" * 255), "over 64 bits"),
    "a compressed pickle": (lambda: deflated("archive/data.pkl", 1 << 20), "is compressed"),
    "a member that unpacks to hundreds of times the file": (
        lambda: deflated("experts.npy", 100 << 20),
        "made to fill the memory",
    ),
    "one row far wider than the others": (lambda: wide(4500, 4000), "token .*4500.* is that row"),
    "a line of brackets": (
        lambda: b'{"token": 0, "layer": 0, "experts": [1], "request": ' + b"[" * 500 + b"]" * 500,
        "line 1: not JSON",
    ),
    "brackets that do close": (
        lambda: b'{"token": 0, "layer": 0, "experts": [1]}\n{"experts": ' + b"[" * 99 + b"]" * 99,
        "line 2: not JSON",
    ),
    "UTF-16 without a mark": (lambda: "token,layer,experts\n".encode("utf-16-le"), "UTF-16"),
    "a preamble of one long word": (
        lambda: b"# route_trace v1\n# " + b"a" * 500_000,
        "no routing decision",
    ),
}


@pytest.mark.parametrize(("data", "message"), HOSTILE.values(), ids=HOSTILE)
def test_a_hostile_file_is_refused_in_one_line(data, message, tmp_path):
    path = tmp_path / "x"
    path.write_bytes(data())
    with pytest.raises(InputError, match=message) as caught:
        import_trace(path)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 400


def test_containers_are_counted(tmp_path, monkeypatch):
    monkeypatch.setattr("specmd_jax.traces.importers._pickle._ANY_CONTAINERS", 1000)
    path = tmp_path / "x.pt"
    path.write_bytes(pickled(b")" + b"\x85" * 2000))
    with pytest.raises(InputError, match="more containers than"):
        import_trace(path)


def test_counts_are_not_dealt_out_without_end(tmp_path, monkeypatch):
    """Few counts can stand for many choices: what they become is bounded, too."""
    monkeypatch.setattr("specmd_jax.traces.importers.sglang._MOST_DEALT", 1000)
    records = [{"global_physical_count": np.full((2, 2), 64, np.int32)} for _ in range(9)]
    path = tmp_path / "x.pt"
    path.write_bytes(torch_bytes({"records": records}))
    with pytest.raises(InputError, match="over 1000 choices"):
        import_trace(path, ImportOptions(top_k=2))


def test_a_member_that_is_not_needed_is_not_unpacked(tmp_path):
    path = SAMPLES["npz"](tmp_path)
    expected = import_trace(path)
    with zipfile.ZipFile(path, "a", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("other.npy", bytes(100 << 20))
    assert np.array_equal(import_trace(path).experts, expected.experts)


def parquet(path: Path, experts: pa.Array, phase: pa.Array) -> Path:
    rows = {name: pa.array(np.zeros(len(phase), np.int64)) for name in ("prompt_id", "layer_idx")}
    rows |= {"token_idx": pa.array(np.arange(len(phase)))}
    table = pa.table(rows | {"selected_experts": experts, "phase": phase})
    pq.write_table(table, path, compression="zstd")
    return path


def test_a_list_that_runs_on_in_parquet_is_not_unpacked(tmp_path):
    long = pa.ListArray.from_arrays(pa.array([0, 1 << 23], pa.int32()), np.zeros(1 << 23, np.int8))
    path = parquet(tmp_path / "x", long, pa.array(["decode"]))
    with pytest.raises(InputError, match="unpacks to over 4194304 values"):
        import_trace(path)


def test_a_text_of_all_rows_in_parquet_is_unpacked_once(tmp_path):
    rows = np.zeros(4096, np.int32)
    text = pa.DictionaryArray.from_arrays(pa.array(rows), pa.array(["x" * 1_000_000]))
    path = parquet(tmp_path / "x", pa.array([[1]] * len(rows)), text)
    with pytest.raises(InputError, match="ph is 'xxx"):
        import_trace(path)


@pytest.mark.parametrize(
    ("experts", "phase"), [(["1 2"], ["decode"]), ([[["a"]]], ["decode"]), ([[1]], [[1]])]
)
def test_a_parquet_column_of_another_type_is_named(experts, phase, tmp_path):
    path = parquet(tmp_path / "x", pa.array(experts), pa.array(phase))
    with pytest.raises(InputError, match=r"column \w+ is of type \w+.*: expected (texts|numbers)"):
        import_trace(path)


def test_a_long_first_line_is_recognised(tmp_path):
    """Recognition looks at the whole first line, however many tokens a record holds."""
    path = tmp_path / "router_trace_rank0.jsonl"
    tokens = [[token % 7, 7] for token in range(9_000)]
    path.write_text(f'{{"rank": 0, "step": 0, "layer": 0, "top_indices": {tokens}}}\n')
    assert import_trace(path).num_tokens == 9_000


@pytest.mark.parametrize(
    "name", [name for name in SAMPLES if "folder" not in name and name != "esft"]
)
def test_every_format_comes_through_a_pipe(name, tmp_path):
    path = SAMPLES[name](tmp_path)
    through = tmp_path / "pipe"
    os.mkfifo(through)
    writer = threading.Thread(target=lambda: through.write_bytes(path.read_bytes()))
    writer.start()
    trace = import_trace(through, ImportOptions(num_experts=8))
    writer.join()
    assert np.array_equal(trace.experts, import_trace(path, ImportOptions(num_experts=8)).experts)


def test_what_is_longer_than_a_pipe_holds_comes_through_stdin(tmp_path):
    rows = "".join(f"{token},0,{token % 8}\n" for token in range(20_000))
    code = "from specmd_jax.traces import import_trace as i; t = i('/dev/stdin'); "
    code += "print(t.num_tokens, t.provenance.source)"
    done = subprocess.run(
        [sys.executable, "-c", code], input="token,layer,expert\n" + rows, text=True,
        capture_output=True, check=True,
    )  # fmt: skip
    assert done.stdout.split() == ["20000", "stdin"]


def test_a_pipe_that_nobody_writes_to_is_not_waited_for(tmp_path, monkeypatch):
    monkeypatch.setattr("specmd_jax.core.inputs._PATIENCE_S", 0.01)
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(InputError, match="nobody writes to this pipe"):
        import_trace(tmp_path / "pipe")


def test_a_pipe_without_end_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("specmd_jax.core.inputs._LARGEST_PIPE", 1 << 16)
    with subprocess.Popen(["yes"], stdout=subprocess.PIPE) as endless:
        assert endless.stdout is not None
        with pytest.raises(InputError, match="come through this pipe"):
            import_trace(f"/dev/fd/{endless.stdout.fileno()}")
        endless.kill()


@pytest.mark.parametrize("device", ["/dev/zero", "/dev/null", "/dev/full"])
def test_a_device_is_refused(device):
    with pytest.raises(InputError, match="it is a device: give a file"):
        import_trace(device)


def test_a_socket_is_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # its name has to be short
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind("here")
        with pytest.raises(InputError, match="it is a socket: give a file"):
            import_trace("here")


def test_a_name_with_a_nul_is_refused():
    with pytest.raises(InputError, match="is no file name"):
        import_trace("a\0b")


@pytest.mark.parametrize(
    "name", ["trace.npz", "expert_weights_1.txt", "router_trace_rank0.jsonl", "a.npy", "meta.json"]
)
def test_a_folder_whose_files_are_pipes_is_not_waited_for(name, tmp_path):
    if name == "meta.json":
        SAMPLES["npz"](tmp_path)
        (tmp_path / name).unlink()
    os.mkfifo(tmp_path / name)
    with pytest.raises(InputError, match=r"is a pipe|without trace files|it is empty"):
        import_trace(tmp_path)


def test_a_file_that_is_gone_is_named(tmp_path):
    with pytest.raises(InputError, match="cannot be read"):
        import_trace(Path(tmp_path, "gone"))
