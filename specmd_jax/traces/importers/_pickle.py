"""A pickle as data: the few opcodes of plain containers, run without calling anything.

Whatever else a pickle may do is refused before its argument is read. All work is bounded by the
length of the pickle: numbers have 64 bits, keys are texts, the memo grows one by one.
Format: Python's pickletools.
"""

import io
import pickletools
from collections.abc import Callable
from typing import Any

from specmd_jax.core.errors import InputError

DAMAGE = (ValueError, IndexError, KeyError, TypeError, AttributeError, OverflowError)

_LITERALS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
_ARGUMENTS = {
    "BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT",
    "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8",
}  # fmt: skip
_TUPLES = {"EMPTY_TUPLE": 0, "TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}
_ANY_CONTAINERS = 1 << 18  # that a pickle may hold however short it is
_BYTES_A_CONTAINER = 16  # beyond those: with what is in it, one takes more than this
_BY_CODE = {opcode.code.encode("latin-1"): opcode for opcode in pickletools.opcodes}


class Global:
    """A name in the file: only compared, never looked up."""

    def __init__(self, name: str) -> None:
        self.name = name


def run_pickle(
    code: bytes,
    names: frozenset[str],
    load: Callable[[Any], Any],
    call: Callable[[Any, Any], Any],
) -> Any:
    """Returns what a pickle describes.

    Args:
      code: the pickle.
      names: "module name" of each global that it may refer to.
      load: what a persistent id stands for.
      call: what a call returns, from the function as a `Global` and the arguments.

    Raises:
      InputError: an opcode or a name is not one of those that plain containers need.
      DAMAGE: the pickle is damaged.
    """
    return _Machine(code, names, load, call).run()


class _Machine:
    """The stack, the marks in it and the memo, as in pickletools."""

    def __init__(
        self,
        code: bytes,
        names: frozenset[str],
        load: Callable[[Any], Any],
        call: Callable[[Any, Any], Any],
    ) -> None:
        self._stream = io.BytesIO(code)
        self._names = names
        self._load = load
        self._call = call
        self._stack: list[Any] = []
        self._marks: list[int] = []
        self._memo: list[Any] = []
        self._containers_left = _ANY_CONTAINERS + len(code) // _BYTES_A_CONTAINER
        self._steps = self._table()

    def run(self) -> Any:
        """Steps through the opcodes; a strange one is refused before its argument is read."""
        while (code := self._stream.read(1)) != b".":
            step = self._steps.get(code)
            if step is None:
                raise _refusal(code)
            step()
        return self._stack.pop()

    def _table(self) -> dict[bytes, Callable[[], object]]:
        """What to do for each opcode; none of it looks further than its own argument."""
        push = self._stack.append
        named: dict[str, Callable[[], object]] = {
            "MARK": lambda: self._marks.append(len(self._stack)),
            "TUPLE": lambda: push(self._counted(tuple(self._marked()))),
            "EMPTY_LIST": lambda: push(self._counted([])),
            "EMPTY_DICT": lambda: push(self._counted({})),
            "MEMOIZE": lambda: self._memo.append(self._stack[-1]),
            "APPEND": lambda: self._append(self._top(1)),
            "APPENDS": lambda: self._append(self._marked()),
            "SETITEM": lambda: self._set_items(self._top(2)),
            "SETITEMS": lambda: self._set_items(self._marked()),
            "GLOBAL": lambda: push(self._global(*self._two_lines())),
            "STACK_GLOBAL": lambda: push(self._global(*self._top(2))),
            "BINPERSID": lambda: push(self._load(*self._top(1))),
            "REDUCE": lambda: push(self._call(*self._top(2))),
        }
        for name, value in _LITERALS.items():
            named[name] = lambda value=value: push(value)
        for name, size in _TUPLES.items():
            named[name] = lambda size=size: push(self._counted(tuple(self._top(size))))
        table = {}
        for code, opcode in _BY_CODE.items():
            read = opcode.arg.reader if opcode.arg else None
            if opcode.name in named:
                table[code] = named[opcode.name]
            elif read and opcode.name in _ARGUMENTS:
                table[code] = lambda read=read: push(_of_64_bits(read(self._stream)))
            elif read and opcode.name in ("BINPUT", "LONG_BINPUT"):
                table[code] = lambda read=read: self._put(read(self._stream))
            elif read and opcode.name in ("BINGET", "LONG_BINGET"):
                table[code] = lambda read=read: push(self._memo[read(self._stream)])
            elif read and opcode.name in ("PROTO", "FRAME"):
                table[code] = lambda read=read: read(self._stream)
        return table

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

    def _counted(self, container: Any) -> Any:
        self._containers_left -= 1
        if self._containers_left < 0:
            raise InputError("data.pkl holds more containers than a recording of its length would")
        return container

    def _put(self, index: int) -> None:
        if index > len(self._memo):
            raise ValueError(f"entry {index} of a memo of {len(self._memo)}")
        self._memo[index : index + 1] = [self._stack[-1]]

    def _append(self, items: list[Any]) -> None:
        target = self._stack[-1]
        if not isinstance(target, list):
            raise ValueError("append to what is no list")
        target.extend(items)

    def _set_items(self, items: list[Any]) -> None:
        target = self._stack[-1]
        if not isinstance(target, dict):
            raise ValueError("item of what is no dict")
        for key, value in zip(items[::2], items[1::2], strict=True):
            if not isinstance(key, str):  # others may take for ever to be hashed
                raise InputError(f"data.pkl has a key of type {type(key).__name__}: refused")
            target[key] = value

    def _two_lines(self) -> list[str]:
        """Plain text: pickletools would undo escapes in them."""
        return [self._stream.readline().decode("ascii").rstrip("\n") for _ in range(2)]

    def _global(self, module: Any, name: Any) -> Global:
        if not isinstance(module, str) or not isinstance(name, str):
            raise ValueError("a global without a name")
        if f"{module} {name}" not in self._names:
            raise InputError(
                f"data.pkl names {f'{module[:40]}.{name[:40]}'[:60]!r}: refused, only tensors and "
                "plain containers are read"
            )
        return Global(f"{module} {name}")


def _of_64_bits(value: Any) -> Any:
    if isinstance(value, int) and not -(1 << 63) <= value < 1 << 63:
        raise ValueError("a number of over 64 bits")
    return value


def _refusal(code: bytes) -> Exception:
    if not code:
        return ValueError("it ends too early")
    opcode = _BY_CODE.get(code)
    if opcode is None:
        return ValueError(f"no opcode {code.decode('latin-1')!r}")
    return InputError(f"data.pkl uses {opcode.name}, which tensors and lists do not need: refused")
