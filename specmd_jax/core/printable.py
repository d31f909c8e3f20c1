"""Text from files as it may be shown: what would steer a terminal or a page is written out."""

import unicodedata
from collections.abc import Mapping
from typing import Any

_STEERING = frozenset(("Cc", "Cf", "Cs", "Zl", "Zp"))  # controls, directions, halves, line breaks
_JOINERS = "\u200c\u200d"  # which scripts and emoji need


def printable(text: str, keep: str = "") -> str:
    r"""Returns `text` with every character that is not seen but acts written as `\x1b` or `\u202e`.

    Bytes of a file's name that are no text are written as `\xff`.

    Args:
      text: from anywhere.
      keep: characters to leave alone all the same.
    """
    if text.isprintable():
        return text
    return "".join(char if char in keep else _shown(char) for char in text)


def printable_prose(text: str) -> str:
    """Returns a text of several lines, in any script, as it may be shown."""
    return printable(text, keep=f"\n\t{_JOINERS}")


def printable_record(value: Any) -> Any:
    """Returns a record, as for JSON, with all its texts as they may be shown."""
    if isinstance(value, str):
        return printable(value)
    if isinstance(value, Mapping):
        return {printable_record(key): printable_record(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [printable_record(entry) for entry in value]
    return value


def _shown(char: str) -> str:
    if unicodedata.category(char) not in _STEERING:
        return char
    if "\udc80" <= char <= "\udcff":  # a byte, as Python hands on what it cannot decode
        return f"\\x{ord(char) - 0xDC00:02x}"
    return char.encode("unicode_escape").decode("ascii")
