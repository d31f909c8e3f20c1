"""JSON that a user hands in: read within bounds, strictly, with one line for whatever is wrong.

Strictly means UTF-8, no whole number beyond 64 bits, no key given twice, no half of a surrogate
pair in a text. NaN and Infinity parse, for configs on Hugging Face hold them in fields that nobody
reads here; a schema refuses them, as it does whatever else a value must not be (`core.schema`).
"""

import json
import os
import reprlib
import stat
from collections import Counter
from pathlib import Path
from typing import Any

from specmd_jax.core.errors import InputError

MAX_BYTES = 4 << 20  # of a file that people write or read
MAX_DEPTH = 64
_MAX_DIGITS = 19  # of a whole number: 64 bits

_SHORT = reprlib.Repr()  # which looks no deeper and no further than it shows
_SHORT.maxlevel, _SHORT.maxstring, _SHORT.maxother = 3, 200, 200
_SHORT.maxlist = _SHORT.maxtuple = _SHORT.maxdict = 16


def read_object(path: Path, wanted: str, max_bytes: int = MAX_BYTES) -> dict[str, Any]:
    """Returns the JSON object in a file.

    Args:
      path: of a file, or of a pipe that somebody writes to.
      wanted: what the message asks for instead, such as "give a config.json".
      max_bytes: a longer file is refused before it is parsed.

    Raises:
      InputError: it cannot be read or is too long, is not strict JSON, or holds no object.
    """
    try:
        data = _read(path, max_bytes)
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror}): {wanted}") from error
    except ValueError as error:  # a NUL in the name, or what `_read` says
        raise InputError(f"{path} cannot be read ({error}): {wanted}") from error
    if len(data) > max_bytes:
        raise InputError(f"{path} is longer than {max_bytes >> 20} MiB: {wanted}")
    return parse_object(data, str(path), wanted)


def parse_object(data: str | bytes, where: str, wanted: str) -> dict[str, Any]:
    """Returns the JSON object that a text or its UTF-8 bytes hold.

    Args:
      data: the text; a byte order mark is skipped.
      where: it is from, as a message begins.
      wanted: what the message asks for instead.

    Raises:
      InputError: it is not strict JSON, or holds no object.
    """
    try:
        value = _parse(data)
    except RecursionError as error:
        raise InputError(f"{where} nests deeper than {MAX_DEPTH} levels: {wanted}") from error
    except ValueError as error:  # JSON's, UTF-8's and those of the hooks below
        raise InputError(f"{where} is not JSON ({_reason(error)}): {wanted}") from error
    if not isinstance(value, dict):
        raise InputError(f"{where} holds no JSON object: {wanted}")
    return value


def shown(value: Any, most: int = 40) -> str:
    """Returns a value as a message shows it: on one line and short, and found in no time."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, int) and abs(value) > 10**30:
        return "a number of over 30 digits"
    text = _SHORT.repr(value)
    return text if len(text) <= most else f"{text[: most - 3]}..."


def _read(path: Path, max_bytes: int) -> bytes:
    """Returns the first bytes, one more than allowed; opening never waits for a writer."""
    with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
        mode = os.fstat(file.fileno()).st_mode
        if stat.S_ISDIR(mode):
            raise ValueError("it is a folder")
        if not (stat.S_ISREG(mode) or stat.S_ISFIFO(mode)):
            raise ValueError("it is a device")
        os.set_blocking(file.fileno(), True)
        return file.read(max_bytes + 1)


def _parse(data: str | bytes) -> Any:
    text = data.decode("utf-8-sig") if isinstance(data, bytes) else data
    if not text.strip():
        raise ValueError("it is empty")
    value = json.loads(
        text,
        object_pairs_hook=_once_each,
        parse_int=_int64,
    )
    _check_depth_and_texts(value)
    return value


def _check_depth_and_texts(value: Any) -> None:
    level, depth = [value], 0
    while level:
        if depth > MAX_DEPTH:
            raise RecursionError
        below: list[Any] = []
        for one in level:
            if isinstance(one, str):
                one.encode()  # half of a surrogate pair has no UTF-8, so it cannot be printed
            elif isinstance(one, dict):
                below += [*one, *one.values()]
            elif isinstance(one, list):
                below += one
        level, depth = below, depth + 1


def _once_each(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        twice = Counter(key for key, _ in pairs).most_common(1)[0][0]
        raise ValueError(f"the key {shown(twice)} is given twice")
    return found


def _int64(digits: str) -> int:
    if len(digits.lstrip("-")) > _MAX_DIGITS or abs(int(digits)) >= 1 << 63:
        raise ValueError(f"the number {digits[:20]}... is beyond 64 bits")
    return int(digits)


def _reason(error: ValueError) -> str:
    if isinstance(error, UnicodeDecodeError):
        return f"byte {error.start} is not UTF-8"
    if isinstance(error, UnicodeEncodeError):
        return "a text holds half of a surrogate pair"
    return str(error)
