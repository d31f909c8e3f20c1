"""`specmd tune`: what it prints, the strategy it writes, and what it refuses."""

import json
from pathlib import Path

import pytest

from specmd_jax.study.tune.grid_check import POINTS
from tests.cli.conftest import Specmd

CONFIG = {
    "model_type": "olmoe", "num_experts": 8, "num_experts_per_tok": 2, "hidden_size": 512,
    "intermediate_size": 512, "num_hidden_layers": 4, "num_attention_heads": 8,
    "num_key_value_heads": 8, "vocab_size": 1000, "hidden_act": "silu",
}  # fmt: skip


@pytest.fixture
def model(tmp_path: Path) -> Path:
    (tmp_path / "config.json").write_text(json.dumps(CONFIG))
    return tmp_path / "config.json"


def test_it_tunes_and_every_verb_takes_the_strategy(
    specmd: Specmd, folder: Path, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setitem(POINTS, 1, 30)
    output = tmp_path / "s.json"
    arguments = ("--hardware", "rtx-3060", "--model", model, "--capacity", "10")
    policies = ("--eviction", "lfu-decay")
    result = specmd(
        "tune", folder / "full.st", *policies, *arguments, "--evaluations", "24", "--check-grid",
        "-o", output, "--json",
    )  # fmt: skip
    assert result.code == 0, result.err
    found = result.json
    assert found["label"] == "SIMULATED" and found["evaluations"] == 24
    assert found["grid_evaluations"] == 30
    for name in ("objective_default", "objective_tuned", "grid_best"):
        assert set(found[name]) == {"train", "held_out"} and found[name]["train"] > 0
    assert found["objective_tuned"]["train"] <= found["objective_default"]["train"]
    assert found["grid_best"]["train"] <= found["objective_tuned"]["train"] * 1.0001
    assert any("evolution strategies" in note for note in found["warnings"])
    decay = found["knobs"]["eviction.decay"]["tuned"]
    arguments = (*arguments, "--no-regret", "--json")
    tuned = specmd("simulate", folder / "full.st", "--strategy", output, *arguments).json
    assert tuned["params"] == {"eviction.decay": decay}
    same = specmd(
        "simulate", folder / "full.st", *policies, "--param", f"eviction.decay={decay}", *arguments
    ).json
    assert same["tpot_s"] == tuned["tpot_s"] and same["hits"] == tuned["hits"]


BAD = [
    ("--eviction lfu-decay", "add --hardware"),
    ("--eviction lru --hardware rtx-3060", "no continuous parameter"),
    ("--eviction linear --hardware abacus", "unknown hardware 'abacus'"),
    ("--eviction linear --knobs eviction.decay --hardware rtx-3060", "no parameter"),
    ("--eviction linear --hardware rtx-3060 --evaluations 2", "--evaluations 2"),
    ("--eviction linear --hardware rtx-3060 --starts 65", "--starts 65: give 1 to 64"),
    ("--eviction linear --hardware rtx-3060 --quality-price -1", "out of range"),
    ("--eviction linear --hardware rtx-3060 --objective speed", "speed"),
    ("--eviction linear --hardware rtx-3060 -o s.yaml", "s.yaml is no .json"),
    ("--eviction linear --hardware rtx-3060 -o nowhere/s.json", "nowhere is no folder"),
    ("--guard --hardware rtx-3060", "nothing to guard"),
    ("--strategy missing.json --hardware rtx-3060", "missing.json cannot be read"),
]


@pytest.mark.parametrize(("arguments", "complaint"), BAD)
def test_bad_input_is_one_line(
    specmd: Specmd, folder: Path, model: Path, arguments: str, complaint: str
):
    result = specmd("tune", folder / "full.st", "--model", model, *arguments.split())
    assert result.code == 2 and result.out == ""
    (line,) = result.err.splitlines()
    assert complaint in line


@pytest.mark.parametrize(
    ("changed", "complaint"),
    [
        ({"format": "specmd.trace/1"}, "is no specmd.strategy/1"),
        ({"eviction": "lur"}, "no eviction policy is called 'lur'"),
        ({"lookahead": "far"}, "lookahead must be a whole number, got 'far'"),
        ({"guard": 1}, "guard must be true or false, got 1"),
        ({"params": {"eviction.decay": 7}}, "parameter eviction.decay is 7"),
        ({"params": {"eviction.alpha": 0.5}}, "no parameter is called 'eviction.alpha'"),
        ({"precision": ["int3"]}, "unknown precision 'int3'"),
    ],
)
def test_a_broken_strategy_is_one_line(
    specmd: Specmd, folder: Path, tmp_path: Path, changed: dict, complaint: str
):
    whole = {
        "format": "specmd.strategy/1", "eviction": "lfu-decay", "prefetch": "none",
        "miss": "fetch", "routing": "standard", "scope": "global", "admission": "forced",
        "lookahead": 1, "guard": False, "touch_on_prefetch_insert": True,
        "touch_on_prefetch_hit": False, "precision": ["bf16"], "start": "cold", "params": {},
    }  # fmt: skip
    (tmp_path / "s.json").write_text(json.dumps(whole | changed))
    result = specmd("simulate", folder / "full.st", "--strategy", tmp_path / "s.json")
    assert result.code == 2 and len(result.err.splitlines()) == 1
    assert complaint in result.err


def test_help_fits_a_terminal(specmd: Specmd):
    for verb in ("tune", "predict", "calibrate"):
        printed = specmd(verb, "--help").out
        assert max(map(len, printed.splitlines())) <= 100
