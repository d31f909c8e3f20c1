"""Ctrl-C and SIGTERM: the process ends at once and says so in one line, wherever it is.

An exception would have to find its way out of imports, callbacks and compiled code, and any of
them may swallow it. Nothing needs one: files are replaced whole, a sweep's rows are on the disk.
Where something in hand is worth keeping (`keeping`), the work stops at its next `check` instead;
a second signal ends that too.
"""

import atexit
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import NoReturn

from specmd_jax.core.printable import printable

WORDS = {signal.SIGINT: "interrupted", signal.SIGTERM: "terminated"}
PATIENCE_S = 0.25  # until a signal that no line of Python was there to hear ends the process
FAILED = 1  # what Python returns after a traceback

_heard: int | None = None  # the first signal
_code = FAILED
_ending = threading.Lock()
_worth: list[Callable[[], bool]] = []
_remarks: list[Callable[[], str]] = []


def take_over() -> None:
    """Hears Ctrl-C and SIGTERM from now to the very end of this process.

    A signal that the process was started to ignore, as by nohup, stays ignored.
    """
    for number in WORDS:
        if signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, _on_signal)
    listen, ring = os.pipe()
    os.set_blocking(ring, False)
    signal.set_wakeup_fd(ring, warn_on_full_buffer=False)
    threading.Thread(target=_watch, args=(listen,), name="interrupts", daemon=True).start()
    atexit.register(_leave)  # registered first, called last


def leave_with(code: int) -> None:
    """Sets what the process returns once Python has cleaned up."""
    global _code
    _code = code


def word() -> str:
    """Returns what happened, for a message."""
    return WORDS[signal.Signals(_heard or signal.SIGINT)]


def exit_code() -> int:
    """Returns what a process returns that this signal ended: 130 for Ctrl-C, 143 for SIGTERM."""
    return 128 + (_heard or signal.SIGINT)


@contextmanager
def keeping(worth: Callable[[], bool]) -> Iterator[None]:
    """While `worth()`, a signal is left to `check`, or to the end of the block.

    Raises:
      KeyboardInterrupt: a signal came and the block did not end of it.
    """
    _worth.append(worth)
    try:
        yield
    finally:
        _worth.remove(worth)
    check()


def heard() -> bool:
    """Says whether a signal has come that did not end the process at once."""
    return _heard is not None


def check() -> None:
    """Raises KeyboardInterrupt if a signal has come that did not end the process at once."""
    if heard():
        raise KeyboardInterrupt(word())


def checked(on_progress: Callable[[float], None]) -> Callable[[float], None]:
    """Returns `on_progress` with a `check` after it."""

    def call(share: float) -> None:
        on_progress(share)
        check()

    return call


@contextmanager
def remark(message: Callable[[], str]) -> Iterator[None]:
    """Adds `message()` to the one line, should the process be interrupted meanwhile."""
    _remarks.append(message)
    try:
        yield
    except KeyboardInterrupt as interrupt:
        raise KeyboardInterrupt(f"{word()} {message()}") from interrupt
    finally:
        _remarks.remove(message)


def _on_signal(number: int, frame: FrameType | None) -> None:
    global _heard
    first, _heard = _heard is None, _heard or number
    if not first:
        _end()
    if not any(worth() for worth in _worth):
        _end(*_remarks[-1:])


def _watch(listen: int) -> None:
    """Ends the process where the main thread is in compiled code and hears nothing."""
    global _heard
    rung = 0
    while data := os.read(listen, 1):
        if data[0] not in WORDS:
            continue
        rung += 1
        time.sleep(PATIENCE_S)  # the main thread is better at it
        if rung > 1 or not any(worth() for worth in _worth):
            _heard = _heard or data[0]
            _end(*(_remarks[-1:] if rung == 1 else ()))


def _end(*remarks: Callable[[], str]) -> NoReturn:
    if not _ending.acquire(blocking=False):
        while True:  # the other thread is at it
            time.sleep(1)
    try:
        _clear_away()
        line = f"specmd: {word()}"
        with suppress(Exception):
            line += "".join(f" {message()}" for message in remarks)
        clear = "\r\x1b[2K\x1b[?25h" if sys.stderr.isatty() and _draws() else ""
        os.write(2, f"{clear}{printable(line)}\n".encode(errors="backslashreplace"))
    finally:
        os._exit(exit_code())


def _clear_away() -> None:
    """Removes what is half-written. Nothing may be imported here: an import may be under way."""
    files = sys.modules.get("specmd_jax.core.files")
    discard = getattr(files, "discard_all", None)
    if discard is not None:
        discard()


def _draws() -> bool:
    """Says whether a bar may stand on the terminal, and the cursor be hidden."""
    return os.environ.get("TERM", "dumb") not in ("dumb", "unknown")


def _leave() -> None:
    """Ends the process before Python takes down what hears signals, some of it long."""
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):
            stream.flush()
    with suppress(AttributeError):  # Windows
        # Runs the handler of what has come and was not heard yet; what comes now is too late.
        signal.pthread_sigmask(signal.SIG_BLOCK, WORDS)
    os._exit(_code)
