"""Ctrl-C and SIGTERM at random moments of every verb that takes its time.

python -m tests.faults.interrupts --count 100 --seed 0
"""

import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import tyro

from tests.faults.verbs import MOST_S, Verb, left_over, prepare, start, undisturbed

CODES = {signal.SIGINT: 130, signal.SIGTERM: 143}


@dataclass(frozen=True)
class Options:
    """How many, and which."""

    count: int = 100
    seed: int = 0
    within_s: float | None = None
    """The moments to draw from; by default all of an undisturbed run."""
    verbs: tuple[str, ...] = ("import", "simulate", "sweep", "tune", "generate", "record")


class Bench:
    """A folder with inputs, and how long each verb takes when nobody disturbs it."""

    def __init__(self, folder: Path, options: Options):
        self.folder, known = folder, prepare(folder)
        self.verbs = [known[name] for name in options.verbs]
        self.whole = {verb.name: folder / f"{verb.name}-whole{verb.suffix}" for verb in self.verbs}
        self.seconds = {
            verb.name: options.within_s or undisturbed(verb, self.whole[verb.name], folder)
            for verb in self.verbs
        }

    def interrupt(self, verb: Verb, number: signal.Signals, after_s: float) -> list[str] | None:
        """Returns what is wrong after a signal; None if the command was faster than it."""
        scratch = Path(tempfile.mkdtemp(dir=self.folder))
        output = scratch / f"out{verb.suffix}"
        process = start(verb, output, self.folder)
        time.sleep(after_s)
        if process.poll() is not None:
            process.communicate()
            return None
        process.send_signal(number)
        try:
            _, error = process.communicate(timeout=MOST_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()
            return ["it went on"]
        return self._faults(verb, process.returncode, CODES[number], error, output)

    def _faults(self, verb: Verb, code: int, wanted: int, error: str, output: Path) -> list[str]:
        found = []
        if code != wanted:
            found.append(f"it ended with {code} instead of {wanted}")
        lines = error.splitlines()
        told = [line for line in lines if line.startswith(("specmd: inter", "specmd: termin"))]
        if len(told) != 1 or "Traceback" in error:
            found.append(f"it said {error!r}")
        if left := left_over(output.parent):
            found.append(f"it left {left}")
        whole = self.whole[verb.name]
        same = verb.name != "record" and whole.exists()  # record keeps the requests that are whole
        if output.exists() and same and output.read_bytes() != whole.read_bytes():
            found.append("its output is half-written")
        return found


def run(options: Options, folder: Path) -> int:
    """Interrupts `options.count` times, tells how that went, and returns how often wrongly."""
    draw, bench = random.Random(options.seed), Bench(folder, options)
    for name, seconds in bench.seconds.items():
        print(f"{name}: within {seconds:.1f} s", flush=True)
    done: Counter[str] = Counter()
    wrong = 0
    while done.total() < options.count:
        verb = bench.verbs[done.total() % len(bench.verbs)]
        number = draw.choice(list(CODES))
        after_s = draw.uniform(0, bench.seconds[verb.name])
        faults = bench.interrupt(verb, number, after_s)
        if faults is None:
            continue
        done[verb.name] += 1
        wrong += bool(faults)
        for fault in faults:
            print(f"{verb.name}, {number.name} after {after_s:.3f} s: {fault}", flush=True)
    print(f"{done.total()} interrupts {dict(done)}: {wrong} wrong")
    return wrong


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as scratch:
        sys.exit(bool(run(tyro.cli(Options), Path(scratch))))
