"""Text files read line by line, so that every complaint can name its line."""

import json
from collections.abc import Iterator
from io import TextIOWrapper
from pathlib import Path
from types import TracebackType
from typing import Any

from specmd_jax.core.errors import InputError
from specmd_jax.core.inputs import open_input

_DEEPEST = 32  # lists and objects inside each other; what is deeper cannot be shown or compared


class at_line:
    """Puts the line number before the message of an `InputError` raised inside."""

    def __init__(self, number: int) -> None:
        self._number = number

    def __enter__(self) -> None:
        pass

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if isinstance(error, InputError):
            raise InputError(f"line {self._number}: {error}") from error


def numbered_lines(path: Path) -> Iterator[tuple[int, str]]:
    """Yields the lines that are not blank, with their numbers from 1.

    Raises:
      InputError: the file is not UTF-8 text.
    """
    number = 0
    try:
        with TextIOWrapper(open_input(path), encoding="utf-8-sig", newline="\n") as file:
            for number, line in enumerate(file, 1):
                if line.strip():
                    yield number, line.rstrip("\r\n")
    except UnicodeDecodeError as error:
        raise InputError(
            f"after line {number}: byte {error.object[error.start]:#04x} is not UTF-8 "
            "text: convert the file, or unpack it first"
        ) from error


def json_value(line: str) -> Any:
    """Parses one JSON value.

    Raises:
      InputError: the text is not JSON, or nests too deeply.
    """
    try:
        value = json.loads(line)
        if line.count("[") + line.count("{") > _DEEPEST and _is_deep(value):
            raise ValueError(f"it nests deeper than {_DEEPEST} levels")
    except (ValueError, RecursionError) as error:
        reason = str(error).split(":")[0][:60]
        raise InputError(f"not JSON ({reason}): {line[:40]!r}; was it cut off?") from error
    return value


def _is_deep(value: Any) -> bool:
    level = [[value]]
    for _ in range(_DEEPEST + 1):
        level = [
            child
            for item in level
            for child in (item.values() if isinstance(item, dict) else item)
            if isinstance(child, list | dict)
        ]
    return bool(level)


def json_object(line: str) -> dict[str, Any]:
    """Parses one JSON object.

    Raises:
      InputError: the text is not JSON, or the value is no object.
    """
    value = json_value(line)
    if not isinstance(value, dict):
        raise InputError(f"expected a JSON object, got {line[:40]!r}")
    return value


def json_objects(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yields one JSON object a line, with its line number.

    Raises:
      InputError: a line is not one; the message names it.
    """
    for number, line in numbered_lines(path):
        with at_line(number):
            record = json_object(line)
        yield number, record


def first_line(head: bytes) -> str:
    """The first line that is not blank, as far as `head` goes; what is no text is replaced."""
    raw = next((line for line in head.split(b"\n") if line.strip()), b"")
    return raw.decode("utf-8-sig", errors="replace").strip()


def first_object(head: bytes) -> dict[str, Any]:
    """The first line of `head` if it is a JSON object, else {}."""
    try:
        return json_object(first_line(head))
    except InputError:
        return {}
