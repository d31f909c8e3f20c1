"""Mutated files against every reader of the package, in processes with limits.

    python -m tests.fuzz                    100,000 cases, about a quarter of an hour
    python -m tests.fuzz --total 1000       a thousand
    python -m tests.fuzz --only 4711        writes one case, tells its file and reads it

A case passes where its file is read, or refused with one `InputError` of one line, within 5 s of
the processor and 1 GB of memory. Exit code 1 where any does not.
"""

import argparse
import sys
import tempfile
from pathlib import Path

from tests.fuzz.run import run_cases


def main() -> int:
    """Runs what the arguments ask for; returns the exit code."""
    parser = argparse.ArgumentParser("python -m tests.fuzz", description="Fuzzes every reader.")
    parser.add_argument("--total", type=int, default=100_000, help="cases")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--first", type=int, default=0, help="number of the first case")
    parser.add_argument("--only", type=int, help="read this case alone, in this process")
    options = parser.parse_args()
    if options.only is not None:
        from tests.fuzz.worker import write_case

        name, file, target = write_case(options.seed, options.only, Path(tempfile.mkdtemp()))
        print(name, file, flush=True)
        target.read(options.only)
        return 0
    report = run_cases(options.seed, options.first, options.first + options.total)
    for problem in report.problems:
        print(problem)
    print(
        f"{report.cases} cases in {report.seconds:.0f} s: {len(report.problems)} problems; "
        f"{report.peak_bytes / 1e6:.0f} MB at most"
    )
    return 1 if report.problems else 0


if __name__ == "__main__":
    sys.exit(main())
