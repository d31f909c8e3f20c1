"""A table is written as its name says, and read again."""

from pathlib import Path

import pytest

from specmd_jax.core.errors import InputError
from specmd_jax.study.table import TABLES, read_table, write_table

ROWS = [
    {"trace": "a|b, c.st", "hits": 3, "hit_rate": 1 / 3, "tpot_s": None, "guard": True},
    {"trace": "<b>x</b>\\|&amp;", "hits": 0, "hit_rate": 1e-12, "decay": 0.5, "guard": False},
]
NAMES = ["trace", "hits", "hit_rate", "tpot_s", "guard", "decay"]


@pytest.mark.parametrize("suffix", TABLES)
def test_what_is_written_is_read(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"t{suffix.upper()}"
    write_table(ROWS, path)
    rows = read_table(path)
    assert [list(row) for row in rows] == [NAMES, NAMES]
    assert rows == [{name: row.get(name) for name in NAMES} for row in ROWS]
    kinds = [[type(value) for value in row.values()] for row in rows]
    assert kinds == [[type(row.get(name)) for name in NAMES] for row in ROWS]
    before = path.read_bytes()
    write_table(rows, path)
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    ("suffix", "beginning"),
    [(".parquet", b"PAR1"), (".csv", b"trace,hits,"), (".jsonl", b'{"trace": '), (".md", b"| tra")],
)
def test_each_is_what_its_name_says(tmp_path: Path, suffix: str, beginning: bytes) -> None:
    write_table(ROWS, tmp_path / f"t{suffix}")
    assert (tmp_path / f"t{suffix}").read_bytes().startswith(beginning)


@pytest.mark.parametrize("name", ["t.xlsx", "t", "t.json", "t.parquet.gz"])
def test_another_name_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(InputError, match=r"a table ends in one of \.parquet, \.csv, \.jsonl, \.md"):
        write_table(ROWS, tmp_path / name)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("suffix", TABLES)
@pytest.mark.parametrize("data", [b"", b'\xff\x00|,\n"', b"| a |\n|---|\n| 1 | 2 |\n", b"a,b\n1\n"])
def test_what_is_no_table(tmp_path: Path, suffix: str, data: bytes) -> None:
    path = tmp_path / f"t{suffix}"
    path.write_bytes(data)
    try:
        rows = read_table(path)
    except InputError:
        return
    assert not any("key" in row for row in rows), "which nothing is taken up from"
