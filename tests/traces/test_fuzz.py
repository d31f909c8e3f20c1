"""Ten thousand mutated files: every importer either reads one or raises `InputError`."""

import io
import re
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from specmd_jax.core.errors import InputError
from specmd_jax.traces import IMPORTERS, ImportOptions, import_trace
from tests.traces.samples import SAMPLES, zipped

TOTAL = 10_000  # mutated files, shared evenly by the formats
BLOCK = 10  # files that one example of hypothesis makes from as many mutations in a row

HOSTILE = [
    b"",
    b"-1",
    b"-7",
    b"0",
    b"3",
    b"8",
    b"4096",
    b"99999",
    b"2147483648",
    b"9" * 25,
    b"9" * 5000,
    b"1e999",
    b"NaN",
    b"nan",
    b"Infinity",
    b"-inf",
    b"null",
    b"true",
    b'""',
    b"{}",
    b"[]",
    b"[" * 3000,
    b",",
    b"\t",
    b"\t\t",
    b"\n",
    b"\r\n",
    b"\x00",
    b"\xff\xfe",
    b"\xf0\x9f",
    b"#",
    b'"',
    b"}",
    b"]",
    b":",
    b"0.5",
    b"-0.5",
    b"prefill",
    b"\x80\x04",
    b"cos\nsystem\n",
]
NUMBER = re.compile(rb"-?\d+(\.\d+)?")

Mutation = tuple[str, int, int, bytes]  # kind, two places, and what to put there

mutations = st.lists(
    st.tuples(
        st.sampled_from(
            [
                "flip",
                "cut",
                "double",
                "end",
                "insert",
                "number",
                "drop line",
                "double line",
                "swap lines",
            ]
        ),
        st.integers(0, 1 << 16),
        st.integers(0, 1 << 16),
        st.sampled_from(HOSTILE),
    ),
    min_size=BLOCK,
    max_size=BLOCK,
)


def mutated(data: bytes, mutation: Mutation) -> bytes:
    """The data with one thing changed; places are taken modulo the size."""
    kind, first, second, hostile = mutation
    at = first % (len(data) + 1)
    end = min(at + 1 + second % 16, len(data))
    if kind == "flip":
        changed = bytes([data[at] ^ (1 << second % 8)]) if at < len(data) else b""
        return data[:at] + changed + data[at + 1 :]
    if kind == "cut":
        return data[:at] + data[end:]
    if kind == "double":
        return data[:end] + data[at:]
    if kind == "end":
        return data[:at]
    if kind == "insert":
        return data[:at] + hostile + data[at:]
    if kind == "number":
        return _with_number(data, first, hostile)
    return _with_lines(kind, data.split(b"\n"), first, second)


def _with_number(data: bytes, which: int, hostile: bytes) -> bytes:
    found = list(NUMBER.finditer(data))
    if not found:
        return hostile
    match = found[which % len(found)]
    return data[: match.start()] + hostile + data[match.end() :]


def _with_lines(kind: str, lines: list[bytes], first: int, second: int) -> bytes:
    i, j = first % len(lines), second % len(lines)
    if kind == "drop line":
        del lines[i]
    elif kind == "double line":
        lines.insert(j, lines[i])
    else:
        lines[i], lines[j] = lines[j], lines[i]
    return b"\n".join(lines)


def plain(sample: Path) -> tuple[bytes, Callable[[bytes], bytes]]:
    """The bytes to mutate, and how to make the file of them."""
    return sample.read_bytes(), lambda data: data


def inside(name: str) -> Callable[[Path], tuple[bytes, Callable[[bytes], bytes]]]:
    """Mutates one member of an archive, whose checksum is then right again."""

    def open_member(sample: Path) -> tuple[bytes, Callable[[bytes], bytes]]:
        with zipfile.ZipFile(io.BytesIO(sample.read_bytes())) as archive:
            members = {item: archive.read(item) for item in archive.namelist()}
        return members[name], lambda data: zipped(members | {name: data})

    return open_member


TARGETS = {name: (name, plain) for name in SAMPLES} | {
    "npz, experts": ("npz", inside("experts.npy")),
    "npz, weights": ("npz", inside("weights.npy")),
    "sglang, pickle": ("sglang", inside("archive/data.pkl")),
    "sglang, tensor": ("sglang", inside("archive/data/0")),
}


@pytest.mark.parametrize("target", TARGETS)
def test_only_input_errors_escape(target, tmp_path):
    name, opened = TARGETS[target]
    path = SAMPLES[name](tmp_path)
    file = path if path.is_file() else next(path.iterdir())
    data, packed = opened(file)
    format_name = max((known for known in IMPORTERS if name.startswith(known)), key=len)
    options = (ImportOptions(), ImportOptions(format=format_name, num_experts=8, top_k=2))

    @settings(
        max_examples=-(-TOTAL // (BLOCK * len(TARGETS))),
        deadline=None,
        database=None,
        derandomize=True,
        phases=[Phase.generate],
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
    )
    @given(mutations)
    def run(changes):
        current = data
        for number, change in enumerate(changes):
            current = mutated(current if number % 3 else data, change)  # up to three at once
            file.write_bytes(packed(current))
            try:
                import_trace(path, options[number % 2])
            except InputError as error:
                assert "\n" not in str(error)
                assert len(str(error)) < 400

    run()
