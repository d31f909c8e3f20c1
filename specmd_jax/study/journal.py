"""Where a sweep's rows go while it runs: a journal beside the table to come."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from msgspec import Struct

from specmd_jax.core.errors import InputError
from specmd_jax.core.files import unwritable
from specmd_jax.core.json_files import parse_object
from specmd_jax.core.schema import read_record

LONGEST_LINE = 1 << 20  # bytes; no row is near it


class JournalEntry(Struct):
    """A line of the journal."""

    key: str
    row: dict[str, bool | int | float | str | None]


class Journal:
    """Finished rows, a line of JSON each, in a file that only grows.

    The last line may be cut short by a kill: what does not parse is computed again.
    """

    def __init__(self, path: Path):
        """Opens the journal, so that an output that cannot be written is known at once.

        Raises:
          InputError: it cannot.
        """
        self.path = path
        try:
            path.touch()
        except OSError as error:
            raise unwritable(path, error) from error

    def rows(self) -> dict[str, dict[str, Any]]:
        """Returns the finished rows by key."""
        found = {}
        with self.path.open("rb") as file:
            while line := file.readline(LONGEST_LINE):
                try:
                    parsed = parse_object(line, str(self.path), "it is computed again")
                    entry = read_record(parsed, JournalEntry, str(self.path), "computed again")
                except InputError:
                    continue
                found[entry.key] = entry.row
        return found

    def append(self, rows: Mapping[str, Mapping[str, Any]]) -> None:
        """Adds rows and sees them to the disk."""
        lines = [json.dumps({"key": key, "row": row}) for key, row in rows.items()]
        with self.path.open("a", encoding="utf-8") as file:
            file.write("\n" + "\n".join(lines) + "\n")  # a line cut short must not swallow these
            file.flush()
            os.fsync(file.fileno())

    def remove(self) -> None:
        self.path.unlink(missing_ok=True)

    def remove_if_empty(self) -> None:
        """Leaves nothing behind where nothing was finished."""
        if not self.path.stat().st_size:
            self.remove()


def journal_of(output: Path) -> Path:
    """Returns where the finished rows of a sweep into `output` are kept meanwhile.

    Raises:
      InputError: `output` is a folder.
    """
    if output.is_dir():
        raise InputError(f"{output} is a folder: give a file in it, for example sweep.parquet")
    return output.with_name(f"{output.name}.partial.jsonl")
