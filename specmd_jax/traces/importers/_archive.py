"""Zip archives and NumPy arrays of strangers: sizes are checked before anything is allocated."""

import math
import re
import struct
import zipfile
import zlib
from pathlib import Path

import numpy as np
from jaxtyping import Shaped

from specmd_jax.core.errors import InputError

ZIP = b"PK\x03\x04"
NPY = b"\x93NUMPY"

_NPY_HEADER = re.compile(
    rb"\{'descr': '([^']+)', 'fortran_order': (True|False), 'shape': \(([0-9, ]{0,200})\),? *\}\s*"
)
_NPY_TYPES = ("b1", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "f2", "f4", "f8")
_DEFLATE_LIMIT = 1032  # deflate cannot shrink more than this
_DAMAGE = (  # what zipfile raises for damaged input
    zipfile.BadZipFile, zlib.error, struct.error,
    EOFError, IndexError, NotImplementedError, OverflowError, RuntimeError, ValueError,
)  # fmt: skip


def member_names(path: Path) -> list[str]:
    """Names in a zip archive; none if it is no archive."""
    try:
        with zipfile.ZipFile(path) as archive:
            return archive.namelist()
    except (OSError, *_DAMAGE):
        return []


def read_members(path: Path, suffix: str = "") -> dict[str, bytes]:
    """The contents of a zip archive by name, those whose name ends in `suffix`.

    Raises:
      InputError: the archive is damaged, or claims more than its size can hold.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            chosen = [item for item in archive.infolist() if item.filename.endswith(suffix)]
            _check_claims(chosen, path.stat().st_size)
            return {item.filename: _member(archive, item) for item in chosen}
    except InputError:
        raise
    except _DAMAGE as error:
        reason = str(error)[:80] or type(error).__name__
        raise InputError(f"a damaged zip archive ({reason}): copy the file again") from error


def parse_npy(data: bytes, name: str) -> Shaped[np.ndarray, "..."]:
    """The array of a `.npy` file, numbers only.

    Its header is matched, not evaluated, and Python objects are refused.

    Raises:
      InputError: the bytes are no such array, or hold less or more than the header claims.
    """
    if data[:6] != NPY or len(data) < 12:
        raise InputError(f"{name} is not a NumPy array: save it with numpy.save")
    start, length = (10, data[8:10]) if data[6] == 1 else (12, data[8:12])
    body = start + int.from_bytes(length, "little")
    match = _NPY_HEADER.fullmatch(data[start:body])
    if match is None:
        raise InputError(f"{name} has a NumPy header that is damaged: {data[start:body][:60]!r}")
    dtype = _npy_type(match[1].decode("latin-1"), name)
    shape = tuple(int(size) for size in match[3].replace(b",", b" ").split())
    claimed, held = math.prod(shape) * dtype.itemsize, len(data) - body
    if claimed != held:
        raise InputError(
            f"{name} claims {claimed} bytes (shape {shape}) and holds {held}: it is cut short or "
            "damaged"
        )
    order = "F" if match[2] == b"True" else "C"
    return np.frombuffer(data, dtype, offset=body).reshape(shape, order=order)


def _npy_type(code: str, name: str) -> np.dtype:
    if code.startswith("|O"):
        raise InputError(
            f"{name} holds Python objects (a pickle), which are never read: save numbers"
        )
    if code[0] not in "<>|=" or code[1:] not in _NPY_TYPES:
        raise InputError(f"{name} is of type {code[:20]!r}: save integers or floats")
    return np.dtype(code)


def _check_claims(items: list[zipfile.ZipInfo], file_size: int) -> None:
    stored = sum(item.compress_size for item in items)
    if stored > file_size:
        raise InputError(
            f"a zip archive of {file_size} bytes claims {stored} inside: it is damaged"
        )
    for item in items:
        if item.file_size > _DEFLATE_LIMIT * (item.compress_size + 1):
            raise InputError(
                f"{item.filename[:40]} claims {item.file_size} bytes from {item.compress_size} "
                "compressed ones: it is damaged"
            )


def _member(archive: zipfile.ZipFile, item: zipfile.ZipInfo) -> bytes:
    if item.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise InputError(f"{item.filename[:40]} is compressed in a way that NumPy does not use")
    with archive.open(item) as member:
        return member.read(item.file_size)
