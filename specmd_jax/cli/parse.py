"""Arguments into a dataclass of flags, and whatever is wrong with them into one line."""

import contextlib
import io
import re
from collections.abc import Sequence
from typing import TypeVar

import tyro

from specmd_jax.core.errors import InputError

Flags = TypeVar("Flags")

REPEATABLE = ("--param",)
_NO_TYPE = re.compile(r"no type matching \{None\}\|(\w+) could be instantiated from \[(.*?)\].*")
_NO_INT = re.compile(
    r"Error parsing (\S+): (?:invalid literal for int\(\) with base 10|"
    r"Could not find valid parse for arguments): (.*)"
)
_BORDER = set("─-╰╯")


def parse(flags: type[Flags], prog: str, arguments: Sequence[str]) -> Flags | None:
    """Returns the flags that `arguments` give, None if they only asked for help.

    Raises:
      InputError: an argument is unknown, missing, given twice or not of its type.
    """
    _check_repeated(arguments)
    complaint = io.StringIO()
    try:
        with contextlib.redirect_stderr(complaint):
            return tyro.cli(
                flags, prog=prog, args=list(arguments), config=(tyro.conf.OmitArgPrefixes,)
            )
    except SystemExit as stop:
        if not stop.code:
            return None
        raise InputError(f"{_one_line(complaint.getvalue())}: see {prog} --help") from stop


def _check_repeated(arguments: Sequence[str]) -> None:
    """Of a flag given twice the parser would silently take the last."""
    seen: set[str] = set()
    for argument in arguments:
        if not argument.startswith("--"):
            continue
        flag = argument.partition("=")[0].replace("_", "-").replace("--no-", "--", 1)
        if flag in seen and flag not in REPEATABLE:
            raise InputError(f"{flag} is given twice: give it once")
        seen.add(flag)


def _one_line(box: str) -> str:
    """Returns what the parser's box says: its first section, and the flag it suggests.

    The first line is the title. Lines that are indented further explain a flag, which is what
    --help is for. Where the terminal knows no box characters they are spaces and hyphens.
    """
    sections: list[list[str]] = [[]]
    for line in box.splitlines()[1:]:
        inner = line[2:].rstrip(" │")
        if inner and set(inner) <= _BORDER:
            sections.append([])
        elif inner and not inner.startswith(" " * 8):
            sections[-1].append(inner.strip())
    sections = [section for section in sections if section]
    message = _NO_TYPE.sub(r"\2 is no \1", " ".join(sections[0])).rstrip(".: ")
    message = _NO_INT.sub(r"\1 \2 is no whole number", message)
    for section in sections[1:]:
        if section[0].startswith("Perhaps you meant"):
            message += f"; perhaps you meant {section[1].split()[0]}"
    return message[:1].lower() + message[1:]
