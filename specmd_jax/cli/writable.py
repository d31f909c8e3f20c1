"""Whether a result may be written where it shall be, asked before the work that it shall hold.

Nothing is lost by a slip: not a file that the command reads, nor a result of other settings.
"""

import hashlib
import json
from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Annotated, Any

from tyro.conf import FlagCreatePairsOff, arg

from specmd_jax.core.errors import InputError
from specmd_jax.core.files import check_target

Force = Annotated[
    FlagCreatePairsOff[bool],
    arg(help_behavior_hint="", help="Replace a file that is there, whatever it holds."),
]
OUTPUTS = ("output", "trace_out")
NO_SETTINGS = (*OUTPUTS, "force", "json")
HEAD = 1 << 20  # bytes of a file among which its mark is looked for
FOREIGN = (".csv", ".tsv", ".parquet", ".json", ".jsonl", ".md", ".html", ".npz", ".npy", ".pt")


def check_output(path: Path, command: Any) -> None:
    """Refuses an output that cannot be written, or whose writing would lose something.

    Args:
      path: of the output.
      command: the flags that ask for it; a result that bears their `mark` may be replaced.

    Raises:
      InputError: there can be no file, the command reads it, or it holds something else.
    """
    check_place(path, command)
    if path.exists() and not command.force and not _bears(path, mark(command)):
        raise holds_other(path)


def check_place(path: Path, command: Any) -> None:
    """Refuses an output that cannot be written, or that the command reads.

    Raises:
      InputError: it is so.
    """
    check_target(path)
    if not path.exists():
        return
    for source in _inputs(command):
        if source.samefile(path):
            raise InputError(f"{path} is read by this command: give another name to write")


def check_trace_name(path: Path) -> None:
    """Refuses a trace under a name that promises something else.

    Raises:
      InputError: it is so.
    """
    if path.suffix.lower() in FOREIGN:
        raise InputError(f"{path}: a trace is no {path.suffix}, give a name like {path.stem}.st")


def holds_other(path: Path) -> InputError:
    """Returns what to tell of a result that is not to be lost."""
    return InputError(
        f"{path} is there and holds something else than this command writes: give another name, "
        "or --force to replace it"
    )


def mark(command: Any) -> str:
    """Returns what tells the results of these flags from those of others, to be written in them."""
    told = json.dumps([type(command).__name__, _told(command)], sort_keys=True)
    return f"asked {hashlib.sha256(told.encode()).hexdigest()[:16]}"


def _told(value: Any) -> Any:
    """Returns flags as JSON: of a file its contents, whatever it is called."""
    if is_dataclass(value):
        names = [field.name for field in fields(value) if field.name not in NO_SETTINGS]
        return {name: _told(getattr(value, name)) for name in names}
    if isinstance(value, tuple):
        return [_told(entry) for entry in value]
    if isinstance(value, Path):
        return _contents(value) if value.is_file() else str(value)
    return value


def _contents(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror}): give another") from error


def _inputs(value: Any) -> Iterator[Path]:
    """Yields every file that a flag names, alone or among others, or that is in such a folder."""
    if is_dataclass(value):
        for field in fields(value):
            if field.name not in OUTPUTS:
                yield from _inputs(getattr(value, field.name))
    elif isinstance(value, tuple):
        for entry in value:
            yield from _inputs(entry)
    elif isinstance(value, str):
        for part in {value, *value.split(",")}:
            yield from _files(Path(part))
    elif isinstance(value, Path):
        yield from _files(value)


def _files(path: Path) -> Iterator[Path]:
    try:
        if path.is_file():
            yield path
        elif path.is_dir() and path != Path():
            yield from (entry for entry in path.rglob("*") if entry.is_file())
    except (OSError, ValueError):  # a text that is no name of a file
        return


def _bears(path: Path, told: str) -> bool:
    try:
        with path.open("rb") as file:
            return told.encode() in file.read(HEAD)
    except OSError:
        return False
