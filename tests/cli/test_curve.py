"""`specmd curve`: every capacity of many policies, as a page, a table, a picture and JSON."""

from pathlib import Path

import pyarrow.csv
import pytest

from specmd_jax.core.types import ModelShape
from specmd_jax.traces import write_trace
from specmd_jax.traces.synthetic.generator import SyntheticSpec, generate
from tests.cli.conftest import Specmd

SHAPE = ModelShape(num_layers=3, num_experts=7, top_k=2)
CELLS = SHAPE.num_layers * SHAPE.num_experts


@pytest.fixture(scope="module")
def trace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("curve") / "t.safetensors"
    write_trace(generate(SyntheticSpec(SHAPE, tokens=24), seed=0), path)
    return path


def test_json_holds_every_capacity_and_why_a_policy_has_none(specmd: Specmd, trace: Path):
    found = specmd("curve", trace, "--eviction", "lru,belady,fifo,mrs", "--json").json
    lru, belady = found["curves"]
    assert (lru["eviction"], belady["eviction"]) == ("lru", "belady")
    assert lru["capacity"] == list(range(1, CELLS + 1))
    assert lru["misses"] == lru["loads"]
    assert all(h + m == lru["accesses"] for h, m in zip(lru["hits"], lru["misses"], strict=True))
    assert all(best >= hits for best, hits in zip(belady["hits"], lru["hits"], strict=True))
    assert "resident" in found["refused"]["fifo"]
    assert "scores" in found["refused"]["mrs"]


def test_the_curve_is_what_simulate_counts(specmd: Specmd, trace: Path):
    (lru,) = specmd("curve", trace, "--eviction", "lru", "--json").json["curves"]
    for slots in (3, 8, 20):
        alone = specmd("simulate", trace, "--capacity", slots, "--no-regret", "--json").json
        for name in ("hits", "misses", "collisions", "loads", "evictions", "streamed"):
            assert lru[name][slots - 1] == alone[name], (slots, name)


def test_a_table_has_a_row_for_each_policy_and_capacity(
    specmd: Specmd, trace: Path, tmp_path: Path
):
    output = tmp_path / "curves.csv"
    told = specmd("curve", trace, "--eviction", "lru,belady", "-o", output, "--json").json
    assert len(told["curves"]) == 2
    table = pyarrow.csv.read_csv(output)
    assert table.num_rows == 2 * CELLS
    assert {"eviction", "scope", "capacity", "hits", "hit_rate"} <= set(table.column_names)


@pytest.mark.parametrize(("suffix", "begins"), [("png", b"\x89PNG"), ("svg", b"<?xml")])
def test_a_picture_is_drawn_in_the_format_of_its_name(
    specmd: Specmd, trace: Path, tmp_path: Path, suffix: str, begins: bytes
):
    output = tmp_path / f"curves.{suffix}"
    assert specmd("curve", trace, "--eviction", "lru,belady", "-o", output).code == 0
    assert output.read_bytes().startswith(begins)


def test_what_cannot_be_is_said_before_the_walk(specmd: Specmd, trace: Path, tmp_path: Path):
    there = tmp_path / "curves.csv"
    there.write_text("mine")
    for arguments, message in (
        (("--eviction", "fifo,sieve"), "none of these has a curve"),
        (("-o", there), "--force"),
        (("-o", tmp_path / "curves.xlsx"), "xlsx"),
    ):
        result = specmd("curve", trace, *arguments)
        assert result.code == 2
        assert message in result.err
    assert there.read_text() == "mine"


def test_the_page_names_the_shares_and_the_policies(specmd: Specmd, trace: Path):
    page = specmd("curve", trace, "--eviction", "lru,belady", "--scope", "layer").out
    assert "a pool a layer" in page
    assert "SIMULATED" in page
    assert all(name in page for name in ("lru", "belady", "25 %"))
