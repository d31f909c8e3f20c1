"""Files that a user hands in: opened without waiting, and only where there is a file to read."""

import os
import select
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import BinaryIO

from specmd_jax.core.errors import InputError

_LARGEST_PIPE = 1 << 30  # bytes: what comes through a pipe is kept on disk meanwhile
_PATIENCE_S = 2.0  # for someone who writes to a named pipe; a writer may then take its time
_CHUNK = 1 << 20


def open_input(path: Path) -> BinaryIO:
    """Opens a plain file; opening never waits.

    Raises:
      InputError: it is a folder, a pipe, a device or a socket.
      OSError: it cannot be opened.
    """
    kind = _kind(path)
    if kind:
        raise InputError(f"{path.name or path} is {kind}: give a file")
    return open(path, "rb", opener=_without_waiting)


@contextmanager
def spooled(path: Path) -> Iterator[Path]:
    """Yields a path that can be read more than once: of a pipe, that of a temporary copy.

    The copy has the pipe's name, or is called `pipe` where that is only a number, so that what is
    read does not depend on which number a shell gave.

    Args:
      path: a file, a folder, or a pipe such as /dev/stdin.

    Raises:
      InputError: it is a device or a socket, a pipe that nobody writes to, or one without end.
      OSError: it cannot be opened, or its copy not be written.
    """
    kind = _kind(path)
    if kind not in ("", "a folder", "a pipe"):
        raise InputError(f"it is {kind}: give a file")
    if kind != "a pipe":
        yield path
        return
    with TemporaryDirectory(prefix="specmd-") as folder:
        copy = Path(folder, "pipe" if path.name.isdigit() else path.name)
        _drain(path, copy)
        yield copy


def _kind(path: Path) -> str:
    """What there is in place of a plain file; "" for a plain file.

    Raises:
      InputError: the name cannot be one of a file.
      OSError: there is nothing, or it cannot be looked at.
    """
    try:
        mode = path.stat().st_mode
    except ValueError as error:  # a NUL in it
        raise InputError(f"{str(path)!r:.80} is no file name: give another") from error
    kinds = {
        stat.S_IFREG: "",
        stat.S_IFDIR: "a folder",
        stat.S_IFIFO: "a pipe",
        stat.S_IFSOCK: "a socket",
    }
    return kinds.get(stat.S_IFMT(mode), "a device")


def _drain(path: Path, copy: Path) -> None:
    """Copies all that is written to a pipe, waiting for as long as someone holds it open."""
    size = 0
    with open(path, "rb", 0, opener=_without_waiting) as pipe, copy.open("wb") as file:
        while True:
            ready = select.select([pipe], [], [], _PATIENCE_S)[0]
            chunk = pipe.read(_CHUNK)  # None: there is a writer, but nothing yet
            if chunk:
                size += file.write(chunk)
            elif chunk is not None and not ready and not size:
                raise InputError("nobody writes to this pipe: start the writer first")
            elif chunk is not None:
                return
            if size > _LARGEST_PIPE:
                raise InputError(
                    f"over {_LARGEST_PIPE >> 30} GiB come through this pipe: save them to a file"
                )


def _without_waiting(name: str, flags: int) -> int:
    return os.open(name, flags | getattr(os, "O_NONBLOCK", 0))
