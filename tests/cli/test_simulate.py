"""`specmd simulate`, from the flags to the JSON and the table."""

import json
from pathlib import Path

import pytest

from tests.cli.conftest import Specmd
from tests.helpers.recorded import FOLDER

CONFORMANCE = FOLDER.parent / "conformance" / "replay.json"
KEYS = (
    "trace model strategy capacity_slots capacity_bytes cycles scope accesses hits misses "
    "collisions loads evictions bytes_loaded prefetched prefetch_used prefetch_late hit_rate "
    "collisions_per_miss ttft_s tpot_s stall_s label"
)
# Few programs, many capacities: (trace, prefetch, policy, scope) of the rows that are replayed.
PROGRAMS = {
    ("olmoe-sampled", "none", "lru", "global"),
    ("olmoe-sampled", "none", "lru", "layer"),
    ("gpt-oss-20b", "none", "least-stale", "global"),
    ("deepseek-v2-lite-intent", "previous", "lru", "global"),
}


def conformance_rows() -> list[dict]:
    """The agreed counts for the programs above."""
    if not CONFORMANCE.exists():
        return []
    rows = json.loads(CONFORMANCE.read_text())
    names = ("trace", "prefetch", "policy", "scope")
    return [row for row in rows if tuple(row[name] for name in names) in PROGRAMS]


def test_json_holds_what_was_promised(specmd: Specmd, folder: Path) -> None:
    result = specmd("simulate", folder / "full.st", "--capacity", "25%", "--json")
    summary = result.json
    assert result.code == 0 and result.err == ""
    assert set(KEYS.split()) <= set(summary)
    assert summary["accesses"] == summary["hits"] + summary["misses"] == 40 * 4 * 2
    assert summary["capacity_slots"] == 8 and summary["label"] == "SIMULATED"
    assert summary["regret"] == summary["misses"] - summary["belady_misses"] >= 0
    assert summary["belady_bypass_misses"] <= summary["belady_misses"]
    assert summary["loop_share"] == 0.0
    assert summary["tpot_s"] is None


def test_slices_change_what_is_replayed(specmd: Specmd, folder: Path) -> None:
    flags = ("--requests", "1:2", "--passes", ":10", "--prefill-tokens", "4")
    arguments = ("--capacity", "25%", "--no-regret", "--json")
    summary = specmd("simulate", folder / "full.st", *flags, *arguments).json
    assert (summary["requests"], summary["tokens"], summary["passes"]) == (1, 10, 7)
    assert "belady_misses" not in summary


def test_a_machine_gives_times(specmd: Specmd, folder: Path) -> None:
    flags = ("--model", "olmoe-1b-7b-0924", "--hardware", "h100-pcie", "--prefill-tokens", "2")
    arguments = ("simulate", folder / "olmoe.st", *flags, "--no-regret")
    slow = specmd(*arguments, "--link", "5GB/s", "--json").json
    fast = specmd(*arguments, "--link", "50GB/s", "--json").json
    assert slow["model"] == "allenai/OLMoE-1B-7B-0924"
    assert slow["hits"] == fast["hits"], "without prefetch the link moves time, not hits"
    assert slow["tpot_s"] > fast["tpot_s"] > 0 and slow["ttft_s"] > fast["ttft_s"] > 0
    assert slow["link_bytes_per_s"] == 5e9
    auto = specmd(*arguments, "--capacity", "auto", "--json").json
    assert auto["capacity_slots"] > 1024 and auto["evictions"] == 0
    table = specmd(*arguments)
    assert "h100-pcie, link 52.0 GB/s" in table.out and "TPOT" in table.out


def test_a_pass_that_takes_minutes_is_not_cut_short(specmd: Specmd, folder: Path) -> None:
    """All of a pass's ticks are more than an int32 holds."""
    flags = ("--model", "olmoe-1b-7b-0924", "--hardware", "h100-pcie", "--link", "3MB/s")
    arguments = ("--prefill-tokens", "2", "--capacity", "20", "--no-regret", "--json")
    summary = specmd("simulate", folder / "olmoe.st", *flags, *arguments).json
    for phase, taken in (("prefill", summary["ttft_s"]), ("decode", summary["tpot_s"])):
        passes = summary["requests"] if phase == "prefill" else summary["passes"] - 1
        assert taken >= summary[phase]["bytes_loaded"] / 3e6 / passes * 0.999 > 100


def test_each_phase_is_told(specmd: Specmd, folder: Path) -> None:
    flags = ("--model", "olmoe-1b-7b-0924", "--hardware", "h100-pcie", "--prefill-tokens", "2")
    arguments = ("simulate", folder / "olmoe.st", *flags, "--no-regret")
    summary = specmd(*arguments, "--json").json
    for name in ("hits", "misses", "collisions", "loads", "bytes_loaded"):
        assert summary[name] == summary["prefill"][name] + summary["decode"][name]
    assert summary["prefill"]["misses"] > 0 and summary["decode"]["accesses"] > 0
    assert summary["tokens_per_s"] == pytest.approx(1 / summary["tpot_s"])
    assert summary["prefill_tokens_per_s"] == pytest.approx(2 / summary["ttft_s"])
    table = specmd(*arguments).out
    assert "Prefill" in table and "Decode" in table and "prefill tokens/s" in table


def test_the_table_says_what_it_must(specmd: Specmd, folder: Path) -> None:
    flags = ("--miss", "drop-priority", "--param", "miss.keep=1", "--capacity", "25%")
    result = specmd("simulate", folder / "bare.st", *flags)
    assert result.code == 0 and result.err == ""
    first, *_, last = [line for line in result.out.splitlines() if line.strip()]
    assert "lru + drop-priority (keep=1)" in first
    assert "SIMULATED" in first and "OPEN-LOOP" in first
    assert "each chosen expert counts 1/k" in last, "warnings come last"
    for word in ("hit rate", "collisions", "dropped", "evictions", "Belady misses", "regret"):
        assert word in result.out


def test_a_loop_is_called_a_loop(specmd: Specmd, tmp_path: Path) -> None:
    ids = [[(t * 7 + t * t) % 8, (t * 7 + t * t + 3) % 8] for t in range(20)]
    lines = [json.dumps([[0, e] for e in ids[t % 20]]) for t in range(200)]
    (tmp_path / "loop.jsonl").write_text("\n".join(lines) + "\n")
    flags = ("--capacity", "4", "--no-regret", "--json")
    summary = specmd("simulate", tmp_path / "loop.jsonl", *flags).json
    assert summary["loop_share"] > 0.9
    assert "repetition loops" in summary["warnings"][-1]


def test_it_takes_any_format(specmd: Specmd, folder: Path, tmp_path: Path) -> None:
    table = tmp_path / "rows.csv"
    table.write_text("layer,expert\n0,1\n0,3\n1,0\n1,2\n0,1\n0,2\n1,0\n1,3\n")
    flags = ("--capacity", "4", "--no-regret", "--json")
    summary = specmd("simulate", table, *flags).json
    assert (summary["tokens"], summary["shape"]) == (2, [2, 4, 2])
    assert (summary["hits"], summary["misses"]) == (2, 6), "room for one pass: 1 and 0 come again"


@pytest.mark.skipif(not CONFORMANCE.exists(), reason="no conformance rows here")
def test_there_are_a_dozen_rows() -> None:
    assert len(conformance_rows()) >= 12


@pytest.mark.parametrize(
    "row", conformance_rows(), ids=lambda row: f"{row['trace']}-{row['scope']}-{row['capacity']}"
)
def test_conformance(specmd: Specmd, row: dict) -> None:
    cache = ("--eviction", row["policy"], "--prefetch", row["prefetch"], "--scope", row["scope"])
    flags = ("--capacity", row["capacity"], "--passes", f"0:{row['tokens']}", "--no-regret")
    path = FOLDER / row["trace"] / "trace.npz"
    summary = specmd("simulate", path, *cache, *flags, "--json").json
    assert summary["accesses"] == row["asked"]
    counts = ("hits", "misses", "collisions", "loads", "evictions", "prefetched", "prefetch_used")
    for name in (*counts, "collisions_by_layer"):
        assert summary[name] == row[name], name
