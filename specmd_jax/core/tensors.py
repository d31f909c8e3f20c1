"""Safetensors files: headers that are checked before they are believed, and writing.

A file is a length (8 bytes, little-endian), a JSON header that names each tensor's type, shape
and place, and the data.
"""

import errno
import json
import math
import os
import re
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from typing import Annotated, NamedTuple

import msgspec
import numpy as np
from jaxtyping import Shaped
from msgspec import Meta
from safetensors import SafetensorError
from safetensors.numpy import save_file

from specmd_jax.core.errors import InputError
from specmd_jax.core.files import replace_file
from specmd_jax.core.inputs import open_input
from specmd_jax.core.json_files import parse_object

_LONGEST_HEADER = 100_000_000  # bytes, safetensors' own limit
_BYTES = {
    "BOOL": 1, "U8": 1, "I8": 1, "F8_E5M2": 1, "F8_E4M3": 1,
    "U16": 2, "I16": 2, "F16": 2, "BF16": 2,
    "U32": 4, "I32": 4, "F32": 4,
    "U64": 8, "I64": 8, "F64": 8,
}  # fmt: skip
_OS_ERROR = re.compile(r"os error (\d+)")

_Size = Annotated[int, Meta(ge=0, lt=1 << 48)]


class _Entry(msgspec.Struct):
    """A tensor, as the header has it."""

    dtype: str
    shape: Annotated[list[_Size], Meta(max_length=16)]
    data_offsets: tuple[_Size, _Size]


class Place(NamedTuple):
    """Where a tensor lies."""

    file: Path
    dtype: str  # as the header names it
    shape: tuple[int, ...]
    begin: int  # bytes from the beginning of the file
    nbytes: int


def read_header(path: Path) -> dict[str, Place]:
    """Returns where the tensors of a safetensors file lie, by name.

    Raises:
      InputError: it is no such file or is cut short, a name is given twice, or tensors overlap,
        lie outside the file or are not as large as their shapes.
    """
    try:
        with open_input(path) as file:
            size = os.fstat(file.fileno()).st_size
            start = 8 + int.from_bytes(file.read(8), "little")
            if size < 8 or not 8 < start <= 8 + _LONGEST_HEADER:
                raise InputError(_no_header(path))
            if start > size:
                raise InputError(
                    f"{path} claims a header of {start - 8} bytes in a file of {size}: it is cut "
                    "short, or no safetensors file"
                )
            header = parse_object(file.read(start - 8), f"{path}: its header", _AGAIN)
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}") from error
    header.pop("__metadata__", None)
    try:
        entries = msgspec.convert(header, dict[str, _Entry])
    except msgspec.ValidationError as error:
        raise InputError(f"{_no_header(path)} ({error})") from error
    places = {name: _place(path, name, entry, start) for name, entry in entries.items()}
    _check_overlap(path, places, start, size)
    return places


_AGAIN = "download or write it again"


def _no_header(path: Path) -> str:
    return f"{path} has no safetensors header: it is cut short or of another format, {_AGAIN}"


def _place(path: Path, name: str, entry: _Entry, start: int) -> Place:
    begin, end = entry.data_offsets
    claimed = math.prod(entry.shape) * _BYTES.get(entry.dtype, 0)
    if end < begin or (entry.dtype in _BYTES and end - begin != claimed):
        raise InputError(
            f"{path} holds {name[:80]} of type {entry.dtype[:20]} and shape {entry.shape} in bytes "
            f"{begin} to {end}: {_AGAIN}"
        )
    return Place(path, entry.dtype, tuple(entry.shape), start + begin, end - begin)


def _check_overlap(path: Path, places: Mapping[str, Place], start: int, size: int) -> None:
    in_order = sorted(
        ((place.begin, place.begin + place.nbytes, name) for name, place in places.items())
    )
    end = max((end for _, end, _ in in_order), default=start)
    if size < end:
        raise InputError(f"{path} is cut short: {size} bytes of {end}, {_AGAIN}")
    for (_, end, before), (begin, _, name) in pairwise(in_order):
        if begin < end:
            raise InputError(f"{path} holds {name[:80]} in bytes of {before[:80]}: {_AGAIN}")


def write_tensors(
    tensors: Mapping[str, Shaped[np.ndarray, "..."]], path: Path, metadata: Mapping[str, str]
) -> None:
    """Writes a safetensors file, whole or not at all; the same bytes for the same contents.

    Raises:
      InputError: it cannot be written.
    """
    with replace_file(path) as half:
        try:
            save_file(dict(tensors), half, metadata=dict(metadata))
        except SafetensorError as error:  # which tells the system's errors in words alone
            found = _OS_ERROR.search(str(error))
            code = int(found[1]) if found else errno.EIO
            raise OSError(code, os.strerror(code)) from error
        _sort_metadata(half)


def _sort_metadata(path: Path) -> None:
    """Puts the metadata in the header in order: the library writes them in one that it draws."""
    with path.open("r+b") as file:
        size = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(size))
        header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
        text = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode()
        assert len(text) <= size, "the same header takes no more room"
        file.seek(8)
        file.write(text.ljust(size))
