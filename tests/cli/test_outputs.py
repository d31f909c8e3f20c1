"""What `-o` must not do: lose an input, a result of other settings, or a device."""

import os
from pathlib import Path

import pytest

from specmd_jax.core.files import PREFIX
from specmd_jax.study import sweep
from specmd_jax.study.table import read_table
from tests.cli.conftest import Specmd

GRID = ("--eviction", "lru,fifo", "--capacity", "25%")


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.fixture
def full(folder: Path, tmp_path: Path) -> Path:
    """A trace of one's own, which may be endangered."""
    path = tmp_path / "full.st"
    path.write_bytes((folder / "full.st").read_bytes())
    return path


def test_importing_twice_is_the_same_file(specmd: Specmd, full: Path, tmp_path: Path) -> None:
    first, second = tmp_path / "1.st", tmp_path / "2.st"
    for path in (first, second, second):
        assert specmd("import", full, "-o", path).code == 0
    assert first.read_bytes() == second.read_bytes()


def test_another_trace_is_not_lost(
    specmd: Specmd, full: Path, folder: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out.st"
    assert specmd("import", full, "-o", out).code == 0
    before = out.read_bytes()
    refused = specmd("import", folder / "bare.st", "-o", out)
    assert refused.code == 2 and "--force to replace it" in refused.err
    assert out.read_bytes() == before
    assert specmd("import", folder / "bare.st", "-o", out, "--force").code == 0
    assert out.read_bytes() != before


@pytest.mark.parametrize(
    "how", ["itself", "symlink", "hardlink", "spelled otherwise", "in a folder"]
)
@pytest.mark.parametrize("verb", ["import", "sweep"])
def test_an_input_is_not_replaced(
    specmd: Specmd, full: Path, tmp_path: Path, verb: str, how: str
) -> None:
    suffix = ".parquet" if verb == "sweep" else ".st"
    source = full.rename(tmp_path / f"source{suffix}")
    out, given = tmp_path / f"out{suffix}", source
    if how == "symlink":
        out.symlink_to(source)
    elif how == "hardlink":
        out.hardlink_to(source)
    elif how == "in a folder":
        (tmp_path / "traces").mkdir()
        out = source = source.rename(tmp_path / "traces" / source.name)
        given = tmp_path / "traces"
    else:
        out = source if how == "itself" else tmp_path / ".." / tmp_path.name / source.name
    before, listed = source.read_bytes(), names(tmp_path)
    for force in ((), ("--force",)):
        result = specmd(verb, given, "-o", out, *force)
        assert result.code == 2 and "is read by this command" in result.err
    assert source.read_bytes() == before and names(tmp_path) == listed


def test_other_files_that_are_read(specmd: Specmd, full: Path, tmp_path: Path) -> None:
    machine = tmp_path / "machine.json"
    machine.write_text("{}")
    flags = ("--eviction", "linear", "--hardware", machine, "--force")
    result = specmd("tune", full, *flags, "-o", machine)
    assert result.code == 2 and "is read by this command" in result.err
    assert machine.read_text() == "{}"


COMMANDS = [
    ("import {full}", "-o", ""),
    ("sweep {full} --capacity 25%", "-o", ".csv"),
    ("record specmd-tiny --prompts {full}", "-o", ""),
    ("tune {full} --hardware rtx-4090 --eviction linear", "-o", ".json"),
    ("calibrate", "-o", ".json"),
    ("demo", "-o", ".html"),
    ("generate specmd-tiny --prompt a", "--trace-out", ""),
]


@pytest.mark.parametrize(("command", "flag", "suffix"), COMMANDS)
def test_devices_pipes_and_other_results(
    specmd: Specmd, full: Path, tmp_path: Path, command: str, flag: str, suffix: str
) -> None:
    """All before any work is done."""
    words = [str(full) if word == "{full}" else word for word in command.split()]
    device, pipe = tmp_path / f"null{suffix}", tmp_path / f"pipe{suffix}"
    device.symlink_to("/dev/null")
    os.mkfifo(pipe)
    other = tmp_path / f"other{suffix}"
    other.write_text("my thesis\n")
    for path, complaint in [
        (device, "is a device and no file"),
        (pipe, "is a pipe and no file"),
        (tmp_path / "no" / f"out{suffix}", "is no folder, make it first"),
        (other, "--force to replace it"),
    ]:
        result = specmd(*words, flag, path)
        assert result.code == 2 and len(result.err.splitlines()) == 1
        assert complaint in result.err
    assert other.read_text() == "my thesis\n" and device.is_symlink() and pipe.is_fifo()
    assert not [name for name in names(tmp_path) if name.startswith(PREFIX)]


@pytest.mark.parametrize(
    ("command", "complaint"),
    [
        ("import {full} -o x.csv", "a trace is no .csv, give a name like x.st"),
        ("sweep {full} -o x.xlsx", "a table ends in one of .parquet, .csv, .jsonl, .md"),
        ("sweep {full} -o x", "a table ends in one of"),
        ("demo -o x.pdf", "is no .html"),
    ],
)
def test_a_name_that_promises_another_format(
    specmd: Specmd, full: Path, monkeypatch: pytest.MonkeyPatch, command: str, complaint: str
) -> None:
    monkeypatch.chdir(full.parent)
    result = specmd(*(str(full) if word == "{full}" else word for word in command.split()))
    assert result.code == 2 and complaint in result.err
    assert names(full.parent) == ["full.st"]


@pytest.mark.parametrize("suffix", [".parquet", ".csv", ".jsonl", ".md"])
def test_a_finished_sweep_is_shown_again(
    specmd: Specmd, full: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, suffix: str
) -> None:
    ran: list[int] = []
    inner = sweep.compare

    def counted(trace, setups, *rest):
        ran.append(len(setups))
        return inner(trace, setups, *rest)

    monkeypatch.setattr(sweep, "compare", counted)
    out = tmp_path / f"r{suffix}"
    first = specmd("sweep", full, *GRID, "-o", out, "--json")
    assert (first.code, sum(ran)) == (0, 2)
    before = out.read_bytes()
    again = specmd("sweep", full, *GRID, "-o", out, "--json")
    assert (again.code, sum(ran)) == (0, 2), "nothing is computed twice"
    assert again.err == f"{out} is complete: its 2 rows are shown as they are\n"
    assert again.json["best"]["hit_rate"] == first.json["best"]["hit_rate"]
    assert again.json["best"]["key"] == first.json["best"]["key"]
    assert out.read_bytes() == before

    more = specmd("sweep", full, "--eviction", "lru,fifo,lfu", *GRID[2:], "-o", out)
    assert (more.code, sum(ran)) == (0, 3) and len(read_table(out)) == 3, "a larger grid"
    other = specmd("sweep", full, "--eviction", "lru", *GRID[2:], "-o", out)
    assert (other.code, sum(ran)) == (2, 3) and "--force to replace it" in other.err
    assert len(read_table(out)) == 3
    forced = specmd("sweep", full, *GRID, "-o", out, "--force")
    assert (forced.code, sum(ran)) == (0, 5)
    assert out.read_bytes() == before, "which is the same table again"
    assert names(tmp_path) == ["full.st", out.name]
