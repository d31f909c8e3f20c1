"""The headers of safetensors files: what lies about where tensors are is refused in one line."""

import json
import os
import struct
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from specmd_jax.core.errors import InputError
from specmd_jax.core.tensors import read_header


def with_header(text: str, data: int = 64) -> bytes:
    return struct.pack("<Q", len(text.encode())) + text.encode() + bytes(data)


def tensor(begin: int, end: int, shape: list[Any], dtype: str = "U8") -> dict[str, object]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


def header(**tensors: object) -> bytes:
    return with_header(json.dumps(tensors))


WRONG = {
    "two overlap": (header(a=tensor(0, 8, [8]), b=tensor(7, 15, [8])), "b in bytes of a"),
    "one in another": (header(a=tensor(0, 32, [32]), b=tensor(8, 16, [8])), "b in bytes of a"),
    "outside the file": (header(a=tensor(60, 68, [8])), "is cut short"),
    "not as large as its shape": (header(a=tensor(0, 8, [9])), "holds a of type U8 and shape"),
    "its end before its beginning": (header(a=tensor(8, 0, [8])), "in bytes 8 to 0"),
    "a negative size": (header(a=tensor(0, 8, [-8])), "no safetensors header"),
    "a size beyond 64 bits": (header(a=tensor(0, 8, [10**400])), "beyond 64 bits"),
    "a size of no number": (header(a=tensor(0, 8, [None])), "no safetensors header"),
    "a thousand axes": (header(a=tensor(0, 8, [1] * 1000)), "no safetensors header"),
    "a null tensor": (header(a=None), "no safetensors header"),
    "a type that is no text": (header(a=tensor(0, 8, [8]) | {"dtype": 8}), "no safetensors header"),
    "a list": (with_header("[]"), "holds no JSON object"),
    "nested without end": (with_header('{"a":' * 300 + "{}" + "}" * 300), "nests deeper"),
    "a name twice": (
        with_header(f'{{"a": {json.dumps(tensor(0, 8, [8]))}, "a": {json.dumps(None)}}}'),
        "'a' is given twice",
    ),
    "a header longer than any": (struct.pack("<Q", 1 << 40) + b"{}", "no safetensors header"),
    "a header longer than the file": (struct.pack("<Q", 1 << 20) + b"{}", "claims a header of"),
    "half a length": (b"\x01\x00\x00", "no safetensors header"),
}


@pytest.mark.parametrize(("data", "message"), WRONG.values(), ids=WRONG)
def test_a_header_that_lies_is_refused(data, message, tmp_path):
    (tmp_path / "x").write_bytes(data)
    with pytest.raises(InputError, match=message) as caught:
        read_header(tmp_path / "x")
    assert "\n" not in str(caught.value)


def test_a_pipe_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "x")
    with pytest.raises(InputError, match="is a pipe: give a file"):
        read_header(tmp_path / "x")


def test_places_are_those_of_the_library(tmp_path):
    arrays = {"a": np.arange(6, dtype=np.int16).reshape(2, 3), "b": np.ones(4, np.float32)}
    save_file(arrays, tmp_path / "x", metadata={"format": "pt"})
    data = (tmp_path / "x").read_bytes()
    places = read_header(tmp_path / "x")
    assert places.keys() == arrays.keys()
    for name, place in places.items():
        assert data[place.begin : place.begin + place.nbytes] == arrays[name].tobytes()
        assert place.shape == arrays[name].shape
