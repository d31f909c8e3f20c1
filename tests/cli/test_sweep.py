"""`specmd sweep`: the rows of every single run, however often it is killed on the way."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from specmd_jax.study import sweep
from tests.cli.conftest import Result, Specmd

COUNTS = ("accesses", "hits", "misses", "collisions", "loads", "evictions", "hit_rate", "cycles")
GRID = ("--eviction", "lru,lfu-decay", "--capacity", "4,25%", "--param", "eviction.decay=0.5,0.9")
ROWS = 6  # LRU has no decay


def rows_of(path: Path) -> list[dict[str, Any]]:
    return pq.read_table(path).to_pylist()


def journal(output: Path) -> Path:
    return output.with_name(f"{output.name}.partial.jsonl")


class Runs:
    """Stands before the simulator: counts what it is asked for, and can be told to be killed."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch):
        self.sizes: list[int] = []
        self.before_kill, self.inner = sys.maxsize, sweep.compare
        monkeypatch.setattr(sweep, "compare", self)

    def __call__(self, trace: Any, setups: Sequence[Any], *rest: Any) -> list[Any]:
        if self.setups + len(setups) > self.before_kill:
            raise KeyboardInterrupt
        self.sizes.append(len(setups))
        return self.inner(trace, setups, *rest)

    @property
    def setups(self) -> int:
        return sum(self.sizes)

    def begin_again(self, before_kill: int = sys.maxsize) -> None:
        self.sizes, self.before_kill = [], before_kill


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch) -> Runs:
    return Runs(monkeypatch)


def test_a_row_is_what_simulate_says(specmd: Specmd, folder: Path, tmp_path: Path) -> None:
    output = tmp_path / "r.parquet"
    result = specmd("sweep", folder / "full.st", *GRID, "-o", output, "--json")
    assert (result.code, result.err) == (0, "")
    assert (result.json["rows"], result.json["output"]) == (ROWS, str(output))
    rows = rows_of(output)
    assert len(rows) == ROWS
    for row in rows:
        decay = row["eviction.decay"]
        flags = () if decay is None else ("--param", f"eviction.decay={decay}")
        cache = ("--eviction", row["eviction"], "--capacity", row["capacity"], *flags)
        alone = specmd("simulate", folder / "full.st", *cache, "--no-regret", "--json").json
        assert {name: row[name] for name in COUNTS} == {name: alone[name] for name in COUNTS}
        assert row["strategy"] == alone["strategy"]
        for phase in ("prefill", "decode"):
            told = {name: row[f"{phase}_{name}"] for name in alone[phase]}
            assert told == alone[phase] and {"hits", "misses", "loads", "bytes_loaded"} <= set(told)
    best = max(row["hit_rate"] for row in rows)
    assert result.json["best"]["hit_rate"] == best
    assert not journal(output).exists()


def test_one_vmap_for_all_that_differs_in_numbers(
    specmd: Specmd, folder: Path, tmp_path: Path, runs: Runs
) -> None:
    assert specmd("sweep", folder / "full.st", *GRID, "-o", tmp_path / "r.parquet").code == 0
    assert runs.sizes == [2, 4], "LRU at two capacities, LFU with two decays at each"


def test_passes_are_an_axis_too(specmd: Specmd, folder: Path, tmp_path: Path) -> None:
    output = tmp_path / "r.parquet"
    axes = ("--batch", "1,2", "--prefill-tokens", "4", "--capacity", "25%")
    result = specmd("sweep", folder / "full.st", *axes, "-o", output)
    assert result.code == 0
    rows = rows_of(output)
    assert [(row["batch"], row["prefill_tokens"]) for row in rows] == [(1, 4), (2, 4)]
    assert rows[0]["passes"] > rows[1]["passes"], "two requests share their passes"
    for row in rows:
        flags = ("--batch", row["batch"], "--prefill-tokens", "4", "--capacity", "25%")
        alone = specmd("simulate", folder / "full.st", *map(str, flags), "--no-regret", "--json")
        assert row["hits"] == alone.json["hits"]


def test_a_choice_that_says_nothing_is_no_second_row(
    specmd: Specmd, folder: Path, tmp_path: Path, runs: Runs
) -> None:
    output = tmp_path / "r.parquet"
    axes = ("--lookahead", "1,2", "--touch-on-prefetch-hit", "true,false", "--capacity", "4,4.0%")
    assert specmd("sweep", folder / "full.st", *axes, "-o", output).code == 0
    assert runs.setups == len(rows_of(output)) == 2, "nothing is prefetched"


@pytest.mark.parametrize("before_kill", [0, 2, 5])
def test_ctrl_c_keeps_what_is_done(
    specmd: Specmd,
    folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    runs: Runs,
    before_kill: int,
) -> None:
    monkeypatch.setattr(sweep, "CHUNK", 1)
    whole, output = tmp_path / "whole.parquet", tmp_path / "r.parquet"
    assert specmd("sweep", folder / "full.st", *GRID, "-o", whole).code == 0
    runs.begin_again(before_kill)
    killed = specmd("sweep", folder / "full.st", *GRID, "-o", output)
    assert (killed.code, killed.out) == (130, "")
    assert f"interrupted with {before_kill} of {ROWS} rows kept" in killed.err
    assert not output.exists(), "half a table is no table"
    runs.begin_again()
    assert specmd("sweep", folder / "full.st", *GRID, "-o", output).code == 0
    assert runs.setups == ROWS - before_kill, "nothing is computed twice"
    assert output.read_bytes() == whole.read_bytes()
    assert not journal(output).exists()


def test_a_journal_torn_by_a_crash_costs_one_row(
    specmd: Specmd, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, runs: Runs
) -> None:
    monkeypatch.setattr(sweep, "CHUNK", 1)
    whole, output = tmp_path / "whole.parquet", tmp_path / "r.parquet"
    specmd("sweep", folder / "full.st", *GRID, "-o", whole)
    runs.begin_again(before_kill=4)
    specmd("sweep", folder / "full.st", *GRID, "-o", output)
    torn = journal(output).read_bytes()
    journal(output).write_bytes(torn[:-40])
    runs.begin_again()
    assert specmd("sweep", folder / "full.st", *GRID, "-o", output).code == 0
    assert runs.setups == ROWS - 3
    assert output.read_bytes() == whole.read_bytes()


@pytest.mark.parametrize(
    ("changes", "rows", "taken_up"),
    [
        ({"--capacity": "4,25%,50%"}, ROWS + 3, 2),  # a larger grid: the old rows hold
        ({"--passes": "0:30"}, ROWS, 0),  # another trace: none does
    ],
)
def test_only_rows_of_the_same_question_are_taken_up(
    specmd: Specmd,
    folder: Path,
    tmp_path: Path,
    runs: Runs,
    changes: dict[str, str],
    rows: int,
    taken_up: int,
) -> None:
    output = tmp_path / "r.parquet"
    runs.begin_again(before_kill=2)
    assert specmd("sweep", folder / "full.st", *GRID, "-o", output).code == 130
    runs.begin_again()
    flags = dict(zip(GRID[::2], GRID[1::2], strict=True)) | changes
    command = [word for flag in flags.items() for word in flag]
    assert specmd("sweep", folder / "full.st", *command, "-o", output).code == 0
    assert len(rows_of(output)) == rows
    assert runs.setups == rows - taken_up


@pytest.mark.skipif(sys.platform == "win32", reason="signals")
def test_a_killed_process_loses_at_most_its_chunk(
    specmd: Specmd, folder: Path, tmp_path: Path
) -> None:
    grid = ("--eviction", "lru,lfu-decay,fifo", "--capacity", "4,8")
    output, whole = tmp_path / "r.parquet", tmp_path / "whole.parquet"
    command = ["sweep", str(folder / "full.st"), *grid, "-o", str(output)]
    process = subprocess.Popen([sys.executable, "-m", "specmd_jax.cli", *command], env=os.environ)
    while process.poll() is None and not (journal(output).exists() and rows_kept(output)):
        time.sleep(0.05)
    os.kill(process.pid, signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL, "it was killed on the way"
    kept = rows_kept(output)
    assert 2 <= kept < 6 and not output.exists()
    assert specmd(*command).code == 0
    assert specmd(*command[:-1], whole).code == 0
    assert output.read_bytes() == whole.read_bytes()


def rows_kept(output: Path) -> int:
    return journal(output).read_text().count('"key"')


def test_what_cannot_be_run_can_be_left_out(specmd: Specmd, folder: Path, tmp_path: Path) -> None:
    axes = ("--prefetch", "none,next-gate", "--capacity", "25%", "--skip-impossible")
    output = tmp_path / "r.parquet"
    result = specmd("sweep", folder / "bare.st", *axes, "-o", output, "--json")
    assert (result.code, result.json["rows"], result.json["skipped"]) == (0, 1, 1)
    assert "1 of 2 combinations cannot be run (lru + next-gate at 25%)" in result.err


def test_times_sort_the_table(specmd: Specmd, folder: Path, tmp_path: Path) -> None:
    machine = ("--model", "olmoe-1b-7b-0924", "--hardware", "rtx-4090", "--sort", "tpot_s")
    axes = (*machine, "--link", "5GB/s,50GB/s", "--capacity", "10%,50%")
    output = tmp_path / "r.parquet"
    result = specmd("sweep", folder / "olmoe.st", *axes, "-o", output)
    assert result.code == 0
    times = sorted(row["tpot_s"] for row in rows_of(output))
    assert len(set(times)) == 4
    heading, *lines = table(result)
    assert heading[:3] == ["strategy", "capacity", "link"] and heading[-1] == "TPOT"
    assert lines[0][:3] == ["lru", "50%", "50.0"], "the fast link and the large cache first"


def table(result: Result) -> list[list[str]]:
    lines = [line.split() for line in result.out.splitlines()]
    start = next(at for at, line in enumerate(lines) if "strategy" in line)
    return lines[start:]


def test_the_table_names_what_differs(specmd: Specmd, folder: Path, tmp_path: Path) -> None:
    axes = ("--capacity", "4,25%", "--scope", "global,layer")
    result = specmd("sweep", folder / "full.st", *axes, "-o", tmp_path / "r.parquet")
    heading, *lines = table(result)
    assert heading[:3] == ["strategy", "capacity", "scope"]
    assert len([line for line in lines if line and line[0] == "lru"]) == 4
    assert "SIMULATED" in result.out
