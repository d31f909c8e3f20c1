"""Reads what `torch.save` writes, without torch and without unpickling.

The pickle inside is treated as data: a small interpreter runs the few opcodes that plain
containers, numbers, strings and tensors need. It calls nothing that the file names; a name that is
not in `_GLOBALS` is refused, and so is every other opcode.
Format: https://github.com/pytorch/pytorch/blob/main/torch/serialization.py (the zip layout), and
Python's pickletools for the opcodes.
"""

import io
import math
import pickletools
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Shaped

from specmd_jax.core.errors import InputError
from specmd_jax.traces.importers._archive import read_members

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
_GLOBALS = {*_DTYPES, _TENSOR, _ORDERED}

_LITERALS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
_NUMBERS_AND_TEXT = {
    "BININT", "BININT1", "BININT2", "LONG1", "LONG4", "BINFLOAT",
    "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8",
}  # fmt: skip
_EMPTY = {"EMPTY_DICT": dict, "EMPTY_LIST": list, "EMPTY_TUPLE": tuple}
_TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}
_MEMO_PUT, _MEMO_GET = {"BINPUT", "LONG_BINPUT", "MEMOIZE"}, {"BINGET", "LONG_BINGET"}
_OBEYED = {
    *_LITERALS, *_NUMBERS_AND_TEXT, *_EMPTY, *_TUPLES, *_MEMO_PUT, *_MEMO_GET,
    "PROTO", "FRAME", "STOP", "MARK", "TUPLE", "APPEND", "APPENDS", "SETITEM", "SETITEMS",
    "GLOBAL", "STACK_GLOBAL", "BINPERSID", "REDUCE",
}  # fmt: skip
_BY_CODE = {opcode.code: opcode for opcode in pickletools.opcodes}
_DAMAGE = (ValueError, IndexError, KeyError, TypeError, AttributeError, OverflowError)


class _Global(NamedTuple):
    """A name in the file: only compared, never looked up."""

    name: str


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
    members = read_members(path)
    pickled = [name for name in members if name.endswith("data.pkl")]
    if len(pickled) != 1:
        raise InputError(f"{len(pickled)} data.pkl inside: expected one, as torch.save writes")
    root = pickled[0].removesuffix("data.pkl")
    if members.get(f"{root}byteorder", b"little") != b"little":
        raise InputError("big-endian tensors are not supported: save on a little-endian machine")
    try:
        return _Machine(members, root).run(members[pickled[0]])
    except InputError:
        raise
    except _DAMAGE as error:
        reason = " ".join(str(error).split())[:80] or type(error).__name__
        raise InputError(f"data.pkl is damaged ({reason}): copy the file again") from error


class _Machine:
    """The stack, the marks in it and the memo, as in pickletools."""

    def __init__(self, members: dict[str, bytes], root: str) -> None:
        self._members = members
        self._root = root
        self._stack: list[Any] = []
        self._marks: list[int] = []
        self._memo: dict[int, Any] = {}

    def run(self, code: bytes) -> Any:
        """Steps through the opcodes; a strange one is refused before its argument is read."""
        stream = io.BytesIO(code)
        while (opcode := _opcode(stream)).name != "STOP":
            self._step(opcode.name, _argument(opcode, stream))
        return self._stack.pop()

    def _step(self, name: str, argument: Any) -> None:
        push = self._stack.append
        if name in _NUMBERS_AND_TEXT:
            push(argument)
        elif name in _LITERALS:
            push(_LITERALS[name])
        elif name in _EMPTY:
            push(_EMPTY[name]())
        elif name in _TUPLES:
            push(tuple(self._top(_TUPLES[name])))
        elif name == "MARK":
            self._marks.append(len(self._stack))
        elif name == "TUPLE":
            push(tuple(self._marked()))
        elif name in _MEMO_PUT:
            self._memo[len(self._memo) if argument is None else argument] = self._stack[-1]
        elif name in _MEMO_GET:
            push(self._memo[argument])
        elif name in ("APPEND", "APPENDS"):
            self._append(self._marked() if name == "APPENDS" else self._top(1))
        elif name in ("SETITEM", "SETITEMS"):
            self._set_items(self._marked() if name == "SETITEMS" else self._top(2))
        elif name == "GLOBAL":
            push(_allowed(argument))
        elif name == "STACK_GLOBAL":
            push(_allowed(" ".join(self._top(2))))
        elif name == "BINPERSID":
            push(self._storage(*self._top(1)))
        elif name == "REDUCE":
            push(self._rebuilt(*self._top(2)))

    def _top(self, count: int) -> list[Any]:
        """Takes `count` items off the stack."""
        if not 0 <= count <= len(self._stack):
            raise ValueError("the stack is empty")
        cut = len(self._stack) - count
        items = self._stack[cut:]
        del self._stack[cut:]
        return items

    def _marked(self) -> list[Any]:
        """Takes what is above the last mark."""
        return self._top(len(self._stack) - self._marks.pop())

    def _append(self, items: list[Any]) -> None:
        target = self._stack[-1]
        if not isinstance(target, list):
            raise ValueError("append to what is no list")
        target.extend(items)

    def _set_items(self, items: list[Any]) -> None:
        target = self._stack[-1]
        if not isinstance(target, dict):
            raise ValueError("item of what is no dict")
        target.update(zip(items[::2], items[1::2], strict=True))

    def _storage(self, identity: Any) -> _Storage:
        kind, dtype, key, _device, _count = identity
        if kind != "storage" or not isinstance(dtype, _Global) or dtype.name not in _DTYPES:
            raise ValueError("a storage of unknown kind")
        return _Storage(dtype.name, key)

    def _rebuilt(self, function: Any, arguments: Any) -> Any:
        if function == _Global(_ORDERED) and arguments == ():
            return {}
        if function != _Global(_TENSOR):
            raise ValueError("a call of what is no tensor")
        storage, offset, shape, strides = arguments[:4]
        data = np.frombuffer(
            self._members[f"{self._root}data/{storage.key}"], _DTYPES[storage.dtype]
        )
        return _strided(data, offset, shape, strides)


def _opcode(stream: io.BytesIO) -> pickletools.OpcodeInfo:
    code = stream.read(1).decode("latin-1")
    if not code:
        raise ValueError("it ends too early")
    opcode = _BY_CODE.get(code)
    if opcode is None:
        raise ValueError(f"no opcode {code!r}")
    if opcode.name not in _OBEYED:
        raise InputError(
            f"data.pkl uses {opcode.name}, which tensors and lists do not need: refused"
        )
    return opcode


def _argument(opcode: pickletools.OpcodeInfo, stream: io.BytesIO) -> Any:
    if opcode.name == "GLOBAL":  # two lines of plain text: pickletools would undo escapes in them
        module, name = (stream.readline().decode("ascii").rstrip("\n") for _ in range(2))
        return f"{module} {name}"
    return opcode.arg.reader(stream) if opcode.arg else None


def _allowed(name: str) -> _Global:
    if name not in _GLOBALS:
        raise InputError(
            f"data.pkl names {name.replace(' ', '.')[:60]!r}: refused, only tensors and "
            "plain containers are read"
        )
    return _Global(name)


def _strided(
    data: Shaped[np.ndarray, " S"], offset: int, shape: tuple[int, ...], strides: tuple[int, ...]
) -> Shaped[np.ndarray, "..."]:
    """A tensor's view of its storage, refused if it reaches outside."""
    if len(shape) != len(strides) or min(offset, *shape, *strides, 0) < 0:
        raise ValueError("a tensor of negative or uneven shape")
    if math.prod(shape) == 0:
        return np.zeros(shape, data.dtype)
    last = offset + sum((size - 1) * stride for size, stride in zip(shape, strides, strict=True))
    if last >= data.size or math.prod(shape) > data.size:
        raise ValueError(f"a tensor of shape {shape} in a storage of {data.size}")
    steps = [stride * data.itemsize for stride in strides]
    return np.lib.stride_tricks.as_strided(data[offset:], shape, steps, writeable=False)
