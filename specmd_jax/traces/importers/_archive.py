"""Zip archives and NumPy arrays of strangers: sizes are checked before anything is allocated."""

import math
import re
import struct
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from jaxtyping import Shaped

from specmd_jax.core.errors import InputError
from specmd_jax.core.inputs import open_input

ZIP = b"PK\x03\x04"
NPY = b"\x93NUMPY"

_NPY_HEADER = re.compile(
    rb"\{'descr': '([^']+)', 'fortran_order': (True|False), 'shape': \(([0-9, ]{0,200})\),? *\}\s*"
)
_NPY_TYPES = ("b1", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "f2", "f4", "f8")
_DEFLATE_LIMIT = 1032  # deflate cannot shrink more than this
_ROUTING_LIMIT = 64  # nor routing more than this: an archive that does is made to fill memory
_ALWAYS = 64 << 20  # bytes that any archive may hold
_DAMAGE = (  # what zipfile raises for damaged input
    zipfile.BadZipFile, zlib.error, struct.error,
    EOFError, IndexError, NotImplementedError, OverflowError, RuntimeError, ValueError,
)  # fmt: skip


def member_names(path: Path) -> list[str]:
    """Names in a zip archive; none if it is no archive.

    Raises:
      InputError: it is no plain file.
    """
    try:
        with open_input(path) as file, zipfile.ZipFile(file) as archive:
            return archive.namelist()
    except InputError:
        raise
    except (OSError, *_DAMAGE):
        return []


@contextmanager
def opened(path: Path) -> Iterator["Archive"]:
    """Opens a zip archive, whose members are then read one by one.

    Raises:
      InputError: it is no plain file; or it is damaged, here or wherever a member is read.
    """
    try:
        with open_input(path) as file, zipfile.ZipFile(file) as archive:
            yield Archive(archive, path.stat().st_size)
    except InputError:
        raise
    except _DAMAGE as error:
        reason = str(error)[:80] or type(error).__name__
        raise InputError(f"a damaged zip archive ({reason}): copy the file again") from error


class Archive:
    """The members of a zip archive: only what is read is unpacked, in bounds that suit its size."""

    def __init__(self, archive: zipfile.ZipFile, size: int) -> None:
        self._archive = archive
        self._size = size
        self._left = max(_ALWAYS, _ROUTING_LIMIT * size)
        self._items: dict[str, zipfile.ZipInfo] = {}
        for item in archive.infolist():
            if self._items.setdefault(item.filename, item) is not item:
                raise InputError(f"{_named(item)} is inside twice: keep one")

    @property
    def names(self) -> list[str]:
        return list(self._items)

    def read(self, name: str, *, packed: bool = True) -> bytes:
        """Unpacks a member; where it may not be `packed`, one that is compressed is refused.

        Raises:
          InputError: it claims more than its size can hold, or all that was read is more than
            routing could be packed into an archive of this size.
        """
        item = self._items[name]
        if item.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise InputError(f"{_named(item)} is compressed in a way that NumPy does not use")
        if item.compress_type != zipfile.ZIP_STORED and not packed:
            raise InputError(f"{_named(item)} is compressed: leave it as it was written")
        self._left -= item.file_size
        least = item.file_size // _DEFLATE_LIMIT - 1
        if item.compress_size < least or self._size < least or self._left < 0:
            raise InputError(
                f"{_named(item)} claims {item.file_size} bytes in an archive of {self._size}: "
                "it is damaged, or made to fill the memory"
            )
        with self._archive.open(item) as member:
            return member.read(item.file_size)


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


def _named(item: zipfile.ZipInfo) -> str:
    return repr(item.filename[:40])
