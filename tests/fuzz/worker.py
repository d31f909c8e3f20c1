"""Runs cases one after another and says before each which it is, so that a crash is known.

Started by `tests.fuzz.run` as `python -m tests.fuzz.worker SEED FIRST STOP FOLDER`. On
standard output: a line `I` before case I; `I problem` where it fails.
"""

import resource
import sys
import time
import traceback
import warnings
from pathlib import Path
from random import Random

from specmd_jax.core.errors import InputError
from tests.fuzz.targets import Target, make_targets, mutated

SECONDS = 5.0  # of the processor, for one case
GIGABYTE = 1 << 30  # of memory, for one case
_LONGEST = 600  # characters of a message


def run(seed: int, first: int, stop: int, folder: Path) -> None:
    """Runs cases `first` to `stop`; the same seed and number make the same case."""
    targets = list(make_targets(folder).items())
    warnings.simplefilter("error")
    _limit_memory()
    for case in range(first, stop):
        print(case, flush=True)
        name, target = targets[case % len(targets)]
        problem = _problem(target, case, Random(f"{seed} {case}"))
        if problem:
            print(case, f"{name}: {problem}", flush=True)


def write_case(seed: int, case: int, folder: Path) -> tuple[str, Path, Target]:
    """Writes the file of one case, for whoever wants to look at it."""
    targets = list(make_targets(folder).items())
    name, target = targets[case % len(targets)]
    target.file.write_bytes(mutated(target, Random(f"{seed} {case}")))
    return name, target.file, target


def _problem(target: Target, case: int, rng: Random) -> str:
    """What is wrong with how a case ends; "" where it is read, or refused in one line."""
    with warnings.catch_warnings(action="ignore"):
        data = mutated(target, rng)
    target.file.write_bytes(data)
    begun = time.process_time()
    try:
        target.read(case)
    except InputError as error:
        if "\n" in str(error) or len(str(error)) > _LONGEST:
            return f"a message of {len(str(error))} characters: {str(error)[:200]!r}"
    except MemoryError:
        return f"over 1 GB of memory: {_place()}"
    except Exception as error:
        return f"{type(error).__name__}: {str(error)[:200]!r} {_place()}"
    finally:
        target.file.write_bytes(target.data)
    seconds = time.process_time() - begun
    return f"{seconds:.1f} s" if seconds > SECONDS else ""


def _place() -> str:
    """Where in the package the exception being handled came from."""
    frames = traceback.extract_tb(sys.exc_info()[2])
    ours = [frame for frame in frames if "specmd_jax" in frame.filename]
    return " < ".join(f"{Path(f.filename).name}:{f.lineno}" for f in reversed(ours[-3:]))


def _limit_memory() -> None:
    """Lets the process allocate a gigabyte more than it has."""
    status = Path("/proc/self/status").read_text()
    held = next(int(line.split()[1]) << 10 for line in status.splitlines() if "VmData" in line)
    resource.setrlimit(resource.RLIMIT_DATA, (held + GIGABYTE, resource.RLIM_INFINITY))


if __name__ == "__main__":
    run(int(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), Path(sys.argv[4]))
