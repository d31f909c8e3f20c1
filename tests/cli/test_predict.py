"""`specmd predict`: what fits, how fast, and what it says about its own error."""

import json
from dataclasses import asdict
from pathlib import Path

import pytest

from specmd_jax.hardware.profiles import get_hardware, write_profile
from specmd_jax.predict.forecast import known_band
from tests.cli.conftest import Specmd

OLMOE = ("olmoe-1b-7b-0924", "--hardware", "rtx-3060", "--precision", "int4")


def predict(specmd: Specmd, *arguments: str | Path) -> dict:
    result = specmd("predict", *arguments, "--json")
    assert result.code == 0, result.err
    return result.json


def test_memory_is_shared_out_without_a_gap(specmd: Specmd):
    found = predict(specmd, *OLMOE, "--vram", "4GB")
    taken = found["reserve_bytes"] + found["weights_bytes"] + found["kv_bytes"]
    assert taken + found["expert_cache_bytes"] == found["vram_bytes"] == 4 * 10**9
    assert found["cached_bytes"] + found["free_bytes"] == found["expert_cache_bytes"]
    assert found["label"] == "ESTIMATED" and "published" not in found["hit_rate_source"]
    assert "arXiv" in found["hit_rate_source"]


def test_a_longer_context_takes_slots_from_the_experts(specmd: Specmd):
    short = predict(specmd, *OLMOE, "--vram", "3GB")
    long = predict(specmd, *OLMOE, "--vram", "3GB", "--context", "8192")
    assert long["kv_bytes"] > short["kv_bytes"]
    assert long["slots_per_layer"] < short["slots_per_layer"]
    assert long["hit_rate"] < short["hit_rate"]


def test_the_budget_that_doubles_the_speed_does(specmd: Specmd):
    slow = (*OLMOE, "--link", "2GB/s")
    before = predict(specmd, *slow, "--vram", "2GB")
    budget = before["double_speed_vram_bytes"]
    after = predict(specmd, *slow, "--vram", f"{budget}B")
    assert after["tpot_s"] <= before["tpot_s"] / 2
    less = predict(specmd, *slow, "--vram", f"{int(budget * 0.95)}B")
    assert less["tpot_s"] > before["tpot_s"] / 2
    assert before["bottleneck"] == "link"


def test_it_says_when_several_tokens_a_pass_pay(specmd: Specmd):
    idle = predict(specmd, "olmoe-1b-7b-0924", "--hardware", "h100-sxm")
    starved = predict(specmd, *OLMOE, "--vram", "3GB", "--link", "1GB/s")
    needed = [found["speculation"]["break_even_acceptance"] for found in (idle, starved)]
    assert 0 < needed[0] < needed[1] < 1
    gains = [found["batching"]["gain"] for found in (idle, starved)]
    assert idle["batching"]["batch"] > gains[0] > gains[1] > 0.5
    assert predict(specmd, *OLMOE, "--vram", "2GB", "--batch", "2")["speculation"]
    alone = predict(specmd, *OLMOE, "--vram", "3GB", "--context", "12000")
    assert alone["batching"]["gain"] is None


def test_everything_fits_a_large_device(specmd: Specmd):
    found = predict(specmd, "olmoe-1b-7b-0924", "--hardware", "h100-sxm")
    assert found["fits"] and found["hit_rate"] == 1 and found["bottleneck"] != "link"
    assert found["double_speed_vram_bytes"] is None


def test_the_band_holds_the_estimate_and_names_its_table(specmd: Specmd):
    found = predict(specmd, *OLMOE)
    band = known_band("published")
    if band is None:
        assert found["tpot_band_s"] is None
    else:
        low, high = found["tpot_band_s"]
        assert low == pytest.approx(band.low * found["tpot_s"]) and low < high
        assert found["tpot_error"]["runs"] == band.runs
        for name in ("ttft", "tpot"):
            low, high = found[f"{name}_band_s"]
            assert low <= found[f"{name}_s"] <= high


def test_a_trace_gives_the_hit_rate(specmd: Specmd, folder: Path):
    found = predict(specmd, *OLMOE, "--vram", "3GB", "--trace", folder / "olmoe.st")
    assert found["hit_rate_source"].startswith("SIMULATED")


def test_a_config_file_is_enough(specmd: Specmd, tmp_path: Path):
    config = {
        "model_type": "olmoe", "num_experts": 64, "num_experts_per_tok": 8, "hidden_size": 2048,
        "intermediate_size": 1024, "num_hidden_layers": 16, "num_attention_heads": 16,
        "num_key_value_heads": 16, "vocab_size": 50304, "hidden_act": "silu",
    }  # fmt: skip
    (tmp_path / "config.json").write_text(json.dumps(config))
    by_name, by_file, by_folder = (
        predict(specmd, model, *OLMOE[1:])["tpot_s"]
        for model in (OLMOE[0], tmp_path / "config.json", tmp_path)
    )
    assert by_file == by_folder == by_name


def test_a_profile_file_is_a_machine_for_every_verb(specmd: Specmd, tmp_path: Path, folder: Path):
    profile = get_hardware("rtx-3060")
    write_profile(profile, tmp_path / "mine.json", {})
    mine = predict(specmd, OLMOE[0], "--hardware", tmp_path / "mine.json", "--precision", "int4")
    assert mine["tpot_s"] == predict(specmd, *OLMOE)["tpot_s"]
    arguments = ("simulate", folder / "olmoe.st", "--model", OLMOE[0], "--no-regret", "--json")
    by_name = specmd(*arguments, "--hardware", "rtx-3060").json
    assert specmd(*arguments, "--hardware", tmp_path / "mine.json").json == by_name


def test_rates_of_decode_and_prefill_have_their_own_names(specmd: Specmd):
    found = predict(specmd, *OLMOE, "--batch", "2", "--prompt", "100")
    assert found["tokens_per_s"] == pytest.approx(2 / found["tpot_s"])
    assert found["prefill_tokens_per_s"] == pytest.approx(100 / found["ttft_s"])


def test_precisions_come_from_the_checkpoint_and_may_be_chosen(specmd: Specmd, tmp_path: Path):
    stored = {"quantization_config": {"quant_method": "gptq", "bits": 4}, "head_count": 3}
    config = {
        "num_experts": 64, "num_experts_per_tok": 8, "hidden_size": 2048, "vocab_size": 50304,
        "intermediate_size": 1024, "num_hidden_layers": 16, "num_attention_heads": 16,
    }  # fmt: skip
    (tmp_path / "config.json").write_text(json.dumps(config | stored))
    packed = predict(specmd, tmp_path, *OLMOE[1:3])
    assert (packed["precision"], packed["non_expert_precision"]) == ("int4", "int4")
    assert "head_count" in packed["notes"][0]
    plain = predict(specmd, tmp_path, *OLMOE[1:3], "--non-expert-precision", "bf16")
    assert plain["weights_bytes"] > packed["weights_bytes"] and plain["precision"] == "int4"
    told = specmd("inspect", "missing.st", "--model", tmp_path)
    assert "head_count" in told.err and told.code == 2
    page = specmd("predict", tmp_path, *OLMOE[1:3]).out
    assert "head_count" in page and tmp_path.name in page and str(tmp_path) not in page


def test_parts_of_memory_are_told_apart_without_colour(specmd: Specmd):
    lines = specmd("predict", *OLMOE, "--vram", "2GB").out.splitlines()
    bar = next(line for line in lines if "memory" in line).split()[1]
    assert len(bar) == 40 and set(bar) == set("█▓▒░")
    legend = {line.split()[0]: line.split()[1] for line in lines if line.split()[:1] and "%" in line
              and line.split()[0] in "█▓▒·░"}  # fmt: skip
    assert legend == {"█": "weights", "▓": "KV", "▒": "experts", "·": "free", "░": "reserve"}


def test_a_card_is_named_as_its_makers_do(specmd: Specmd):
    assert "12.9 GB (12 GiB)" in specmd("predict", *OLMOE).out
    assert "GiB" not in specmd("predict", *OLMOE, "--vram", "4GB").out


def test_it_prints_a_page(specmd: Specmd):
    printed = specmd("predict", *OLMOE).out
    for word in ("ESTIMATED", "KV cache", "TTFT", "TPOT", "working set", "twice as fast"):
        assert word in printed
    table, notes = printed.split("  hit rate:")
    assert max(map(len, table.splitlines())) <= 80
    assert max(map(len, notes.splitlines())) <= 100  # as wide as the terminal


BAD = [
    (("gpt-5", "--hardware", "rtx-3060"), "unknown model 'gpt-5'"),
    (("olmoe-1b-7b-0924",), "--hardware"),
    (("olmoe-1b-7b-0924", "--hardware", "abacus"), "unknown hardware 'abacus'"),
    (("olmoe-1b-7b-0924", "--hardware", "nowhere.json"), "nowhere.json cannot be read"),
    ((*OLMOE[:3], "--precision", "int3"), "unknown precision 'int3'"),
    ((*OLMOE, "--vram", "8"), "size '8' has no known unit"),
    ((*OLMOE, "--vram", "1GB"), "hold no expert a layer"),
    ((*OLMOE, "--prompt", "4096"), "a prompt of 4096 tokens in a context of 1024"),
    ((*OLMOE, "--prompt", "0"), "a prompt of 0 tokens"),
    ((*OLMOE, "--batch", "0"), "batch 0 decodes nothing"),
    ((*OLMOE, "--passes", "0:3"), "give --trace"),
    ((*OLMOE, "--trace", "missing.st"), "missing.st"),
    (("olmoe-1b-7b-0924", "--hardware", "apple-m3-max", "--link", "5GB/s"), "leave out --link"),
]


@pytest.mark.parametrize(("arguments", "complaint"), BAD)
def test_bad_input_is_one_line(specmd: Specmd, arguments: tuple[str, ...], complaint: str):
    result = specmd("predict", *arguments)
    assert result.code == 2 and result.out == ""
    (line,) = result.err.splitlines()
    assert complaint in line


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("{", "is not JSON"),
        ("[]", "holds no JSON object"),
        ("{}", "is no specmd.hardware/1"),
        ('{"format": "specmd.hardware/1"}', "has no name"),
        (None, "hbm_bytes_per_s must be a number, got 'fast'"),
        ({"hbm_bytes_per_s": 0}, "hbm_bytes_per_s must be a number of at least 1, got 0"),
    ],
)
def test_a_broken_profile_is_one_line(specmd: Specmd, tmp_path: Path, text, complaint: str):
    whole = {"format": "specmd.hardware/1"} | asdict(get_hardware("rtx-3060"))
    if not isinstance(text, str):
        text = json.dumps(whole | (text or {"hbm_bytes_per_s": "fast"}))
    (tmp_path / "h.json").write_text(text)
    result = specmd("predict", OLMOE[0], "--hardware", tmp_path / "h.json")
    assert result.code == 2 and complaint in result.err and len(result.err.splitlines()) == 1


@pytest.mark.parametrize("output", ["h.yaml", "nowhere/h.json"])
def test_calibrate_says_at_once_where_it_cannot_write(specmd: Specmd, output: str, tmp_path: Path):
    result = specmd("calibrate", "-o", tmp_path / output)
    assert result.code == 2 and len(result.err.splitlines()) == 1
