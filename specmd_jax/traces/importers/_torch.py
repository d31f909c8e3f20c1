"""Reads what `torch.save` writes, without torch and without unpickling.

The pickle inside is treated as data: `_pickle` runs the few opcodes that plain containers,
numbers, strings and tensors need. It calls nothing that the file names; a name that is not in
`_GLOBALS` is refused. What comes out is a tree of bounded depth that holds no more than the file.
Format: https://github.com/pytorch/pytorch/blob/main/torch/serialization.py (the zip layout).
"""

import math
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Shaped

from specmd_jax.core.errors import InputError
from specmd_jax.traces.importers._archive import Archive, opened
from specmd_jax.traces.importers._pickle import DAMAGE, Global, run_pickle

_DTYPES = {
    "torch BoolStorage": np.bool_,
    "torch ByteStorage": np.uint8,
    "torch CharStorage": np.int8,
    "torch ShortStorage": np.int16,
    "torch IntStorage": np.int32,
    "torch LongStorage": np.int64,
    "torch HalfStorage": np.float16,
    "torch FloatStorage": np.float32,
    "torch DoubleStorage": np.float64,
}
_TENSOR = "torch._utils _rebuild_tensor_v2"
_ORDERED = "collections OrderedDict"
_GLOBALS = frozenset({*_DTYPES, _TENSOR, _ORDERED})

_DEEPEST = 32  # containers inside each other
_MOST_AXES = 8
_MOST_EMPTY = 1 << 24  # elements that an empty tensor would have, were no axis 0
_REPEATED = 2  # times that what the file holds may be referred to, on the whole


class _Storage(NamedTuple):
    """The memory behind a tensor."""

    dtype: str
    key: str


def read_torch(path: Path) -> Any:
    """The saved object, with tensors as NumPy arrays.

    Raises:
      InputError: the file is damaged, or holds anything but containers, numbers, strings and
        tensors; the message names the first such thing.
    """
    with opened(path) as members:
        pickled = [name for name in members.names if name.endswith("data.pkl")]
        if len(pickled) != 1:
            raise InputError(f"{len(pickled)} data.pkl inside: expected one, as torch.save writes")
        tensors = _Tensors(members, root=pickled[0].removesuffix("data.pkl"))
        try:
            code = members.read(pickled[0], packed=False)
            saved = run_pickle(code, _GLOBALS, tensors.storage, tensors.rebuilt)
            _check_tree(saved, _REPEATED * (len(code) + path.stat().st_size))
        except InputError:
            raise
        except DAMAGE as error:
            reason = " ".join(str(error).split())[:80] or type(error).__name__
            raise InputError(f"data.pkl is damaged ({reason}): copy the file again") from error
    return saved


class _Tensors:
    """Makes arrays of the archive's members, each unpacked once."""

    def __init__(self, members: Archive, root: str) -> None:
        if f"{root}byteorder" in members.names and members.read(f"{root}byteorder") != b"little":
            raise InputError("big-endian tensors are not supported: save on a little-endian one")
        self._members = members
        self._root = root
        self._held: dict[str, bytes] = {}

    def storage(self, identity: Any) -> _Storage:
        """What a persistent id of the pickle stands for."""
        kind, dtype, key, _device, _count = identity
        known = isinstance(dtype, Global) and dtype.name in _DTYPES
        if kind != "storage" or not known or not isinstance(key, str) or len(key) > 20:
            raise ValueError("a storage of unknown kind")
        return _Storage(dtype.name, key)

    def rebuilt(self, function: Any, arguments: Any) -> Any:
        """What a call of the pickle returns: a tensor, or an empty dictionary."""
        if not isinstance(function, Global) or not isinstance(arguments, tuple):
            raise ValueError("a call of what is no function")
        if function.name == _ORDERED and not arguments:
            return {}
        if function.name != _TENSOR:
            raise ValueError("a call of what is no tensor")
        storage, offset, shape, strides = arguments[:4]
        if not isinstance(storage, _Storage):
            raise ValueError("a tensor without storage")
        data = np.frombuffer(self._bytes(storage.key), _DTYPES[storage.dtype])
        return _strided(data, offset, shape, strides)

    def _bytes(self, key: str) -> bytes:
        if key not in self._held:
            self._held[key] = self._members.read(f"{self._root}data/{key}")
        return self._held[key]


def _strided(data: Shaped[np.ndarray, " S"], offset: Any, shape: Any, strides: Any) -> np.ndarray:
    """A tensor's view of its storage, refused if it reaches outside."""
    for sizes in (shape, strides):
        if not isinstance(sizes, tuple) or len(sizes) > _MOST_AXES:
            raise ValueError("a tensor without a shape")
        if any(type(size) is not int or size < 0 for size in (offset, *sizes)):
            raise ValueError("a tensor of negative or uneven shape")
    last = offset + sum((size - 1) * stride for size, stride in zip(shape, strides, strict=True))
    if not math.prod(shape) and math.prod(size or 1 for size in shape) <= _MOST_EMPTY:
        return np.zeros(shape, data.dtype)
    if last >= data.size or math.prod(shape) > data.size:
        raise ValueError(f"a tensor of shape {shape} in a storage of {data.size}")
    steps = [stride * data.itemsize for stride in strides]
    return np.lib.stride_tricks.as_strided(data[offset:], shape, steps, writeable=False)


def _check_tree(saved: Any, most: int) -> None:
    """Refuses what is nested too deeply, and what refers to the same things again and again.

    Written out, a file of references to references can be larger than any memory. So its size is
    added up level by level; a container that holds itself never comes to an end, so it is too
    deep as well.
    """
    level, size = [saved], 0
    for _ in range(_DEEPEST):
        below: list[Any] = []
        for item in level:
            if isinstance(item, dict):
                below += item.values()
            elif isinstance(item, list | tuple) and not isinstance(item, _Storage):
                below += item
            size += 1 if not isinstance(item, np.ndarray) else item.nbytes
            if size + len(below) > most:
                raise InputError(
                    "data.pkl refers to the same things over and over: written out, it is larger "
                    f"than {most} bytes"
                )
        if not below:
            return
        level = below
    raise InputError(f"data.pkl nests deeper than {_DEEPEST} levels: a recorder's file has 6")
