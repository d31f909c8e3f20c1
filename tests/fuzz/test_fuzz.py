"""A thousand mutated files, and that the run notices what it looks for."""

import sys
from random import Random

import pytest

from specmd_jax.core.errors import InputError
from tests.fuzz import run
from tests.fuzz.mutations import mutated_bytes
from tests.fuzz.targets import Target
from tests.fuzz.worker import _problem


def test_a_thousand_mutated_files_are_read_or_refused_in_one_line():
    report = run.run_cases(seed=1, first=0, stop=1000)
    assert report.problems == []


def fail(case: int) -> None:
    raise InputError("one line") if case == 0 else KeyError(case)


def spill(case: int) -> None:
    raise InputError("two\nlines")


@pytest.mark.parametrize(
    ("read", "case", "problem"),
    [(fail, 0, ""), (fail, 1, "KeyError"), (spill, 0, "a message of 9 characters")],
)
def test_a_traceback_is_a_problem_and_a_refusal_is_none(read, case, problem, tmp_path):
    file = tmp_path / "x"
    file.write_bytes(b"valid")
    found = _problem(Target(file, b"valid", (mutated_bytes,), read), case, Random(0))
    assert found.startswith(problem) and bool(found) == bool(problem)
    assert file.read_bytes() == b"valid"


WORKERS = {
    "a hang": ("import time; print(7, flush=True); time.sleep(60)", "case 7: no end within"),
    "a crash": ("import os; print(7, flush=True); os.abort()", "case 7: the process died of -6"),
    "a finding": ("print(7); print(7, 'is wrong'); print(8)", "case 7 is wrong"),
}


@pytest.mark.parametrize(("code", "problem"), WORKERS.values(), ids=WORKERS)
def test_a_worker_that_hangs_or_dies_is_noticed(code, problem, tmp_path, monkeypatch):
    monkeypatch.setattr(run, "WAIT_S", 1.0)
    monkeypatch.setattr(run, "command", lambda *arguments: [sys.executable, "-c", code])
    problems: list[str] = []
    after = run._work(0, 7, 9, tmp_path, problems)
    assert [found[: len(problem)] for found in problems] == [problem]
    assert after == (9 if "wrong" in problem else 8)
