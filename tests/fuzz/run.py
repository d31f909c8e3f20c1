"""Starts workers, watches them, and starts the next where one hangs or dies."""

import resource
import select
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

WAIT_S = 30.0  # without a word: on a busy machine more than the 5 s of the processor
START_S = 300.0  # until the first word
CASES_A_WORKER = 20_000
_ROOT = Path(__file__).parents[2]


class Report(NamedTuple):
    """How a run went."""

    cases: int
    seconds: float
    problems: list[str]
    peak_bytes: int  # of the largest worker


def run_cases(seed: int, first: int, stop: int) -> Report:
    """Runs cases `first` to `stop` in one worker after another."""
    begun, problems, case = time.monotonic(), [], first
    with tempfile.TemporaryDirectory(prefix="specmd-fuzz-") as folder:
        while case < stop:
            case = _work(seed, case, min(case + CASES_A_WORKER, stop), Path(folder), problems)
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss << 10
    return Report(stop - first, time.monotonic() - begun, problems, peak)


def command(seed: int, first: int, stop: int, folder: Path) -> list[str]:
    """Returns what starts a worker."""
    cases = map(str, (seed, first, stop))
    return [sys.executable, "-m", "tests.fuzz.worker", *cases, str(folder)]


def _work(seed: int, first: int, stop: int, folder: Path, problems: list[str]) -> int:
    """Runs one worker; returns the case that comes next, behind one that it did not survive."""
    current = None
    with subprocess.Popen(
        command(seed, first, stop, folder), cwd=_ROOT, stdout=subprocess.PIPE, bufsize=0
    ) as worker:
        for line in _lines(worker):
            number, _, problem = line.partition(" ")
            current = int(number)
            if problem:
                problems.append(f"case {line}")
        if worker.poll() is None:
            worker.kill()
            problems.append(f"case {current}: no end within {WAIT_S:.0f} s")
        elif worker.returncode:
            problems.append(f"case {current}: the process died of {worker.returncode}")
        else:
            return stop
    if current is None:
        raise RuntimeError("the worker does not start: see above")
    return current + 1


def _lines(worker: subprocess.Popen) -> Iterator[str]:
    """What a worker writes, until it ends or is silent for too long."""
    assert worker.stdout is not None
    rest, patience = b"", START_S
    while select.select([worker.stdout], [], [], patience)[0]:
        chunk = worker.stdout.read(1 << 16)
        if not chunk:
            worker.wait()
            return
        *lines, rest = (rest + chunk).split(b"\n")
        yield from (line.decode() for line in lines)
        patience = WAIT_S
