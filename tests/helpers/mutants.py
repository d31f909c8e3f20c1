"""Breaks the package one line at a time, and says which breaks no test notices.

    python -m tests.helpers.mutants tests/mutants.toml    # minutes; breaks a copy, not the tree

A mutant is a file, a line of it and what to put in the line's place; each is run against the tests
that belong to it. A suite that was made faster must still find what it found.
"""

import os
import shutil
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]
COPIED = ("specmd_jax", "kernels", "tests", "experiments")


class Mutant(NamedTuple):
    """One broken line."""

    file: str
    find: str  # the line, without its indentation; it stands once in the file
    put: str
    tests: list[str]


def broken(text: str, mutant: Mutant) -> str:
    """Returns the text of a file with the mutant's line in place of the right one.

    Raises:
      ValueError: the line is not there, or more than once.
    """
    lines = text.splitlines(keepends=True)
    places = [i for i, line in enumerate(lines) if line.strip() == mutant.find]
    if len(places) != 1:
        raise ValueError(f"{mutant.file}: {len(places)} lines are {mutant.find!r}, not one")
    (place,) = places
    lines[place] = lines[place].replace(mutant.find, mutant.put)
    return "".join(lines)


def read(path: Path) -> list[Mutant]:
    """Returns the mutants of a file, each with the tests it names written out."""
    table = tomllib.loads(path.read_text())
    names = table["tests"]
    return [
        Mutant(one["file"], one["find"], one["put"], [names[name] for name in one["tests"]])
        for one in table["mutants"]
    ]


def is_noticed(mutant: Mutant, copy: Path) -> bool:
    """Breaks the copy, runs the mutant's tests in it, and mends it again."""
    file = copy / mutant.file
    right = file.read_text()
    file.write_text(broken(right, mutant))
    environment = os.environ | {"PYTHONPATH": f"{copy}:{copy / 'kernels'}"}
    command = [sys.executable, "-m", "pytest", "-x", "-q", "-n0", *mutant.tests]
    try:
        done = subprocess.run(command, cwd=copy, env=environment, capture_output=True, check=False)
    finally:
        file.write_text(right)
    if done.returncode not in (0, 1):
        raise RuntimeError(f"pytest did not run:\n{done.stdout.decode()}{done.stderr.decode()}")
    return done.returncode == 1


def main(path: Path, only: slice = slice(None)) -> int:
    """Runs the mutants of a file and returns how many go unnoticed."""
    unnoticed = 0
    with tempfile.TemporaryDirectory(prefix="specmd-mutants-") as folder:
        copy = Path(folder)
        for name in COPIED:
            shutil.copytree(ROOT / name, copy / name)
        for name in ("pyproject.toml", "README.md", "CONTRIBUTING.md"):
            shutil.copy(ROOT / name, copy)
        for mutant in read(path)[only]:
            noticed = is_noticed(mutant, copy)
            unnoticed += not noticed
            print(f"{'found' if noticed else 'MISSED'} {mutant.file}: {mutant.put}", flush=True)
    return unnoticed


if __name__ == "__main__":
    bounds = [int(text) for text in sys.argv[2:4]]
    sys.exit(min(1, main(Path(sys.argv[1]), slice(*bounds) if bounds else slice(None))))
