"""kill -9 at random moments: what comes after is what would have come anyway.

python -m tests.faults.kills --count 50 --seed 0

A sweep goes on from the rows it has. A recording and a tuning begin again: they keep nothing of a
killed process, and leave nothing half-written either.
"""

import random
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import tyro

from tests.faults.verbs import Verb, left_over, prepare, start, undisturbed


@dataclass(frozen=True)
class Options:
    """How many, and of which verbs."""

    count: int = 50
    seed: int = 0
    within_s: float | None = None
    """The moments to draw from; by default all of an undisturbed run."""
    verbs: tuple[str, ...] = ("sweep", "record", "tune")


def kill_often(
    verb: Verb, moments: list[float], whole: Path, folder: Path
) -> tuple[int, list[str]]:
    """Kills a command at each of the moments, then lets it end.

    Returns:
      How often it was killed before its end, and what is wrong.
    """
    scratch = Path(tempfile.mkdtemp(dir=folder))
    output, killed, faults = scratch / f"out{verb.suffix}", 0, []
    for moment in moments:
        process = start(verb, output, folder)
        time.sleep(moment)
        killed += process.poll() is None
        process.kill()
        process.communicate()
        if output.exists() and output.read_bytes() != whole.read_bytes():
            faults.append(f"{verb.name}, killed after {moment:.2f} s: half-written")
    undisturbed(verb, output, folder)
    if output.read_bytes() != whole.read_bytes():
        faults.append(f"{verb.name}: the result is another one")
    if left_over(scratch):
        faults.append(f"{verb.name}: {left_over(scratch)} is left")
    return killed, faults


def run(options: Options, folder: Path) -> int:
    """Kills `options.count` times, tells how that went, and returns how many faults there are."""
    draw, known, wrong, killed = random.Random(options.seed), prepare(folder), 0, 0
    for number, name in enumerate(options.verbs):
        whole = folder / f"{name}-whole{known[name].suffix}"
        took = undisturbed(known[name], whole, folder)
        share = range(number, options.count, len(options.verbs))
        moments = [draw.uniform(0, options.within_s or took) for _ in share]
        times, faults = kill_often(known[name], moments, whole, folder)
        print(
            f"{name}: {took:.1f} s undisturbed, killed {times} times",
            *faults,
            sep="\n  ",
            flush=True,
        )
        killed, wrong = killed + times, wrong + len(faults)
    print(f"{killed} kills, {wrong} faults")
    return wrong


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as scratch:
        sys.exit(bool(run(tyro.cli(Options), Path(scratch))))
