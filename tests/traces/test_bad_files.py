"""Files broken on purpose, one way each: the message must name what is wrong, in one line."""

import gzip
import io
import json
import pickle
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from specmd_jax.core.errors import InputError
from specmd_jax.traces import ImportOptions, import_trace
from tests.traces.samples import EXPERTS, SAMPLES, ids, sglang_records, torch_bytes, zipped

Breaker = Callable[[Path], Path]


def given(name: str, data: str | bytes) -> Breaker:
    """A file of that content."""

    def write(folder: Path) -> Path:
        (folder / name).write_bytes(data.encode() if isinstance(data, str) else data)
        return folder / name

    return write


def edited(sample: str, old: str, new: str) -> Breaker:
    """A sample with one piece of its text replaced, once."""

    def write(folder: Path) -> Path:
        path = SAMPLES[sample](folder)
        text = path.read_text()
        assert old in text
        path.write_text(text.replace(old, new, 1))
        return path

    return write


def cut(sample: str, keep: float) -> Breaker:
    """A sample of which only a part is there."""

    def write(folder: Path) -> Path:
        path = SAMPLES[sample](folder)
        data = path.read_bytes()
        path.write_bytes(data[: int(len(data) * keep)])
        return path

    return write


def without_lines(sample: str, start: int, stop: int) -> Breaker:
    """A sample that lacks some of its lines."""

    def write(folder: Path) -> Path:
        path = SAMPLES[sample](folder)
        lines = path.read_text().splitlines()
        path.write_text("\n".join(lines[:start] + lines[stop:]))
        return path

    return write


def arrays(**values: np.ndarray) -> Breaker:
    """An npz archive."""

    def write(folder: Path) -> Path:
        np.savez(folder / "trace.npz", allow_pickle=False, **values)
        return folder / "trace.npz"

    return write


def npy_claiming(shape: str, descr: str = "<i4", data: bytes = bytes(64)) -> bytes:
    """A .npy file whose header says what it likes."""
    header = f"{{'descr': '{descr}', 'fortran_order': False, 'shape': {shape}, }}".encode()
    header += b" " * (-(len(header) + 11) % 64) + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header + data


def objects() -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, np.array([{"a": 1}], dtype=object), allow_pickle=True)
    return buffer.getvalue()


class Evil:
    """Would call print, were it unpickled."""

    def __reduce__(self) -> tuple:
        return print, ("never",)


def recorder(**changes: object) -> Breaker:
    """An SGLang recording whose first record is changed."""
    first, *rest = sglang_records()
    return given("recorder.pt", torch_bytes({"records": [first | changes, *rest]}))


def an_empty_folder(folder: Path) -> Path:
    (folder / "nothing").mkdir()
    return folder / "nothing"


def uneven_documents(folder: Path) -> Path:
    path = SAMPLES["esft"](folder)
    last = path / "expert_weights_2.txt"
    last.write_text(last.read_text().split("\n")[0])
    return path


def uneven_requests(folder: Path) -> Path:
    path = SAMPLES["vllm folder"](folder)
    np.save(path / "request_3.npy", ids()[:, :1])
    return path


def pipeline_stages(folder: Path) -> Path:
    text = SAMPLES["megatron"](folder).read_text()
    (folder / "router_trace_rank1.jsonl").write_text(
        text.replace('"rank": 0', '"rank": 1').replace('"layer": 1', '"layer": 2')
    )
    return folder


CSV = "request,token,layer,experts\n"
HUGE = "9" * 5000

BROKEN: dict[str, tuple[Breaker, str]] = {
    # what is no trace at all
    "nothing there": (lambda folder: folder / "absent", "No such file"),
    "empty": (given("x", b""), "the file is empty"),
    "blank": (given("x", b"\n \n\n"), "no format of"),
    "an empty folder": (an_empty_folder, "folder without trace files"),
    "garbage": (given("x", bytes(range(128, 256))), "no format of"),
    "gzip": (given("x.jsonl.gz", gzip.compress(b"[[0, 1]]")), "gzip: unpack"),
    "UTF-16": (given("x", CSV.encode("utf-16")), "UTF-16 text: convert"),
    "UTF-16 later on": (given("x.csv", CSV.encode() + "0,0,0,1".encode("utf-16")), "not UTF-8"),
    "a pickle": (given("x.pkl", pickle.dumps({"experts": [1]})), "Python pickle, which is never"),
    "a zip of something": (given("x", zipped({"a.txt": b"a"})), "zip archive of no known kind"),
    "prose": (given("x.txt", "It was a dark and stormy night.\n"), "no format of"),
    # specmd
    "specmd: cut short": (cut("specmd", 0.9), "is cut short"),
    "specmd: a billion tokens": (
        given(
            "x",
            struct.pack("<Q", 90) + b'{"experts":{"dtype":"I16","shape":[1000000000,16,8],'
            b'"data_offsets":[0,256000000000]}}     ' + bytes(32),
        ),
        "is cut short",
    ),
    # npz and npy
    "npz: truncated": (cut("npz", 0.7), "no format of|zip archive"),
    "npz: NaN weights": (
        arrays(experts=ids(), weights=np.full(ids().shape, np.nan, np.float16)),
        "weights holds NaN",
    ),
    "npz: negative weights": (
        arrays(experts=ids(), weights=np.full(ids().shape, -1, np.float32)),
        "must not be negative",
    ),
    "npz: two axes": (arrays(experts=ids()[0]), "expected 3 axes of integers"),
    "npz: floats for ids": (arrays(experts=ids() * 0.5), "expected 3 axes of integers"),
    "npz: negative ids": (arrays(experts=ids() - 5), "expert id -5 is outside"),
    "npz: all padding": (arrays(experts=ids() * 0 - 1), "all padding"),
    "npz: no tokens": (arrays(experts=ids()[:0]), "the trace is empty"),
    "npz: requests too few": (
        arrays(experts=ids(), request=np.zeros(3, np.int32)),
        "request has 3 entries for 6",
    ),
    "npz: steps with a gap": (
        arrays(experts=ids(), step=np.array([0, 1, 2, 4, 5, 6])),
        "steps must start at 0",
    ),
    "npz: objects": (given("x.npz", zipped({"experts.npy": objects()})), "Python objects"),
    "npy: a billion tokens": (
        given("x.npy", npy_claiming("(1000000000, 16, 8)")),
        "claims 512000000000 bytes",
    ),
    "npy: a shape that wraps": (
        given("x.npy", npy_claiming("(4611686018427387904, 2, 2)")),
        "and holds 64",
    ),
    "npy: a header that is code": (
        given("x.npy", npy_claiming("(__import__('os').getpid(), 1)")),
        "header that is damaged",
    ),
    "npy: text": (given("x.npy", npy_claiming("(1, 1, 1)", "<U16")), "save integers or floats"),
    "npy: floats": (given("x.npy", npy_claiming("(4, 2, 2)", "<f4")), "expected integers"),
    "vllm: requests of two models": (uneven_requests, "requests differ in"),
    # sglang
    "sglang: a call": (
        given("x.pt", zipped({"a/data.pkl": pickle.dumps(Evil(), 2)})),
        "names '__builtin__.print'",
    ),
    "sglang: a newer pickle": (
        given("x.pt", zipped({"a/data.pkl": pickle.dumps({1, 2}, 4)})),
        "uses EMPTY_SET",
    ),
    "sglang: half a pickle": (
        given("x.pt", zipped({"a/data.pkl": pickle.dumps([1], 2)[:-1]})),
        "ends too early",
    ),
    "sglang: mode stat": (
        given("x.pt", torch_bytes({"logical_count": np.zeros((2, 2), np.int32)})),
        "mode stat",
    ),
    "sglang: no records": (given("x.pt", torch_bytes({"records": []})), "no record has tokens"),
    "sglang: lengths do not add up": (recorder(extend_seq_lens=[2]), "do not add up to 3 tokens"),
    "sglang: too few positions": (recorder(positions=[0]), "no \\[layers, 1 tokens, k\\]"),
    "sglang: counts without top-k": (
        given(
            "x.pt", torch_bytes({"records": [{"global_physical_count": np.eye(2, dtype=np.int32)}]})
        ),
        "does not record top-k",
    ),
    # bigmoe
    "bigmoe: version 2": (edited("bigmoe", "route_trace v1", "route_trace v2"), "v2 is not supp"),
    "bigmoe: no header": (without_lines("bigmoe", 4, 5), "line 5: no column turn"),
    "bigmoe: NaN weight somewhere": (edited("bigmoe", "0.75", "nan"), "a weight for some experts"),
    "bigmoe: infinite weight": (edited("bigmoe", "0.75", "1e999"), "expected a finite number"),
    "bigmoe: id beyond the model": (
        edited("bigmoe", f"n_expert={EXPERTS}", "n_expert=4"),
        "in a model of 4 experts",
    ),
    "bigmoe: cut in a line": (cut("bigmoe", 0.98), "cut off"),
    "bigmoe: unknown phase": (edited("bigmoe", "0,0,0,0,0,", "0,7,0,0,0,"), "phase 7"),
    "bigmoe: no experts": (
        edited("bigmoe", "expert_bytes=1000", "expert_bytes=0"),
        "positive, got 0",
    ),
    # JSON of one kind or another
    "swarm: cut short": (cut("swarm", 0.8), "not JSON"),
    "swarm: a layer missing": (
        edited("swarm", '"num_layers": 2', '"num_layers": 3'),
        "num_layers says 3 and expert_trace has 2",
    ),
    "swarm: ragged": (edited("swarm", "[0, 5]", "[0, 5, 6]"), "top-k must be one"),
    "nvmoe: three numbers": (edited("nvmoe", "[0, 3]", "[0, 3, 1]"), "line 2: .* is not a"),
    "nvmoe: an expert twice": (edited("nvmoe", "[0, 5]", "[0, 0]"), "names an expert twice"),
    "nvmoe: an expert missing": (edited("nvmoe", "[0, 0], ", ""), "choose 1 to 2 experts"),
    "nvmoe: a layer missing": (
        edited("nvmoe", ", [1, 5], [1, 2]", ""),
        "no experts at layer 1",
    ),
    "nvmoe: a layer beyond any model": (
        given("x", "[[0, 1], [1000000000, 1]]\n"),
        "layer 1000000000 is outside 0..4095",
    ),
    "llama.cpp: a negative layer": (given("x.csv", "layer,expert\n-1,2\n"), "layer -1 is outside"),
    "nvmoe: true for an id": (edited("nvmoe", "[0, 5]", "[0, true]"), "expected a whole number"),
    "nvmoe: nested without end": (given("x", "[[0, 1], " + "[" * 100_000), "line 1: not JSON"),
    "nvmoe: a number without end": (given("x", f"[[0, 1], [0, {HUGE}]]"), "line 1: not JSON"),
    "grouped-nf4: a step missing": (
        without_lines("grouped-nf4", 3, 4),
        "step 3 where 2 comes next",
    ),
    "grouped-nf4: the end missing": (without_lines("grouped-nf4", 6, 7), "was it cut off"),
    "grouped-nf4: top-k differs": (
        edited("grouped-nf4", '"top_k": 2', '"top_k": 4'),
        "top_k 4 and the file has 2",
    ),
    "grouped-nf4: negative layer": (edited("grouped-nf4", '"0": [', '"x": ['), "layer is 'x'"),
    "megatron: counts differ": (
        edited("megatron", '"num_tokens": 3', '"num_tokens": 5'),
        "says 5 tokens",
    ),
    "megatron: pipeline stages": (pipeline_stages, "pipeline stages"),
    "policylang: entries missing": (without_lines("policylang", 9, 10), "12 entries and .* has 11"),
    "policylang: negative probability": (
        edited("policylang", '"sm": [0.5', '"sm": [-0.5'),
        "cannot be negative",
    ),
    "policylang: a phase of its own": (
        edited("policylang", '"ph": "decode"', '"ph": "warm-up"'),
        "expected prefill or decode",
    ),
    "policylang: a softmax missing": (
        edited("policylang", '"sm": ', '"xx": '),
        "record all or none",
    ),
    "policylang: parquet cut short": (cut("policylang parquet", 0.5), "damaged parquet"),
    "cache-lab: version 3": (
        edited("cache-lab v1", '"format_version": 1', '"format_version": 3'),
        "format_version 3 is not supported",
    ),
    "cache-lab: a token twice": (
        edited("cache-lab v1", '"token_position": 4', '"token_position": 3'),
        "given layer 0 twice",
    ),
    "cache-lab: nothing chosen": (
        edited("cache-lab v1", '"selected_experts": [0, 5]', '"selected_experts": []'),
        "name at least one expert",
    ),
    "colibri: no gate": (edited("colibri", "0 1 0 3:0.7500", "0 1 0 3"), "was it cut off"),
    "colibri: a gate that is none": (edited("colibri", ":0.7500", ":nan"), "a gate is 'nan'"),
    "llama.cpp: rows cut off": (
        without_lines("llama.cpp positions", 11, 12),
        "no experts at layer 1",
    ),
    "llama.cpp: a cell missing": (edited("llama.cpp", "0,5", "0"), "has 1 numbers"),
    "llama.cpp: header alone": (given("x", "layer,expert\n"), "no routing decision"),
    # ESFT
    "esft: documents differ": (uneven_documents, "the files differ in documents"),
    "esft: weights missing": (given("x", "0\t1\t\t0.5\n"), "2 ids and 1 weights"),
    "esft: no weights": (given("x", "0\t1\t2\n"), "expected ids, two tabs, weights"),
    # tables
    "table: requests out of order": (
        given("x.csv", CSV + "0,0,0,1\n1,0,0,1\n0,2,0,1\n0,1,0,1\n"),
        "token 1 comes after 2",
    ),
    "table: steps out of order": (
        given(
            "x.csv",
            "request,token,step,layer,experts\n0,0,0,0,1\n0,1,1,0,1\n1,0,0,0,1\n0,2,1,0,2\n",
        ),
        "begins again",
    ),
    "table: negative id": (given("x.csv", CSV + "0,0,0,-3\n"), "line 2: expert id -3 is negative"),
    "table: id beyond any model": (given("x.csv", CSV + "0,0,0,70000\n"), "id 70000 is outside"),
    "table: huge id": (given("x.csv", CSV + f"0,0,0,{HUGE}\n"), "expected a whole number"),
    "table: two phases": (
        given("x.csv", "token,layer,expert,phase\n0,0,1,prefill\n0,1,1,decode\n"),
        "both prefill",
    ),
    "table: numbered phase": (
        given("x.csv", "token,layer,expert,phase\n0,0,1,1\n"),
        "phase is '1'",
    ),
    "table: no token": (
        given("x.jsonl", '{"layer": 0, "experts": [1]}\n'),
        r"no column of token .*: the columns are layer, experts",
    ),
    "table: meta data alone": (given("x.jsonl", '{"num_experts": 8}\n'), "no routing decision"),
    "table: a column twice": (given("x.csv", "token,pos,layer,expert\n0,0,0,1\n"), "mean the same"),
    "table: NaN in JSON": (
        given("x.jsonl", '{"token": 0, "layer": 0, "experts": [1], "weights": [NaN]}\n'),
        "line 1: weights is nan: expected a finite number",
    ),
    "table: weights too few": (
        given("x.jsonl", '{"token": 0, "layer": 0, "experts": [1, 2], "weights": [0.5]}\n'),
        "one each",
    ),
    "table: no JSON": (
        given("x.jsonl", '{"token": 0, "layer": 0, "experts": [1]}\n{"token": 1,\n'),
        "line 2: not",
    ),
}


@pytest.mark.parametrize(("broken", "message"), BROKEN.values(), ids=BROKEN)
def test_the_message_names_the_problem(broken, message, tmp_path):
    with pytest.raises(InputError, match=message) as caught:
        import_trace(broken(tmp_path))
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 400


def test_an_unknown_format_name_offers_the_near_one():
    with pytest.raises(InputError, match="no format 'vlm': try vllm"):
        import_trace(__file__, ImportOptions(format="vlm"))


@pytest.mark.parametrize("name", SAMPLES)
def test_another_format_by_name_is_an_input_error(name, tmp_path):
    """Telling an importer to read the wrong kind of file is a mistake to name, not to crash on."""
    path = SAMPLES[name](tmp_path)
    for wrong in ("specmd", "npz", "bigmoe", "swarm", "vllm", "sglang", "colibri", "policylang"):
        if not name.startswith(wrong):
            with pytest.raises(InputError):
                import_trace(path, ImportOptions(format=wrong))


@pytest.mark.parametrize(
    "options", [{"num_experts": 0}, {"num_experts": 1 << 20}, {"top_k": 0}, {"top_k": -8}]
)
def test_options_out_of_range_are_refused(options):
    with pytest.raises(InputError, match="is outside 1"):
        ImportOptions(**options)


def test_a_top_k_that_does_not_divide_is_refused(tmp_path):
    with pytest.raises(InputError, match="top-k 3 does not divide"):
        import_trace(SAMPLES["esft"](tmp_path), ImportOptions(top_k=3))


def test_experts_of_our_own_file_cannot_be_overruled(tmp_path):
    with pytest.raises(InputError, match="has 8 experts a layer, not 16"):
        import_trace(SAMPLES["specmd"](tmp_path), ImportOptions(num_experts=16))


def test_meta_json_beside_an_npz_is_checked(tmp_path):
    path = SAMPLES["npz"](tmp_path)
    (tmp_path / "meta.json").write_text(json.dumps({"experts": 4}))
    with pytest.raises(InputError, match="in a model of 4 experts"):
        import_trace(path)
    (tmp_path / "meta.json").write_bytes(b"\xff")
    with pytest.raises(InputError, match=r"meta.json is not JSON \(byte 0 is not UTF-8\)"):
        import_trace(path)
