"""The forecast: where memory goes, what locality is assumed, and a band its own table bears out."""

import json
from dataclasses import replace
from importlib.resources import files
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from experiments.predict_error import paper_ttft
from experiments.predict_error.bands import band_of, measured
from experiments.shared.recordings import RESULTS
from specmd_jax.core.errors import InputError
from specmd_jax.core.types import ModelShape
from specmd_jax.core.units import parse_bytes
from specmd_jax.hardware.profiles import get_hardware, write_profile
from specmd_jax.model_zoo import get_model
from specmd_jax.predict.forecast import (
    ERRORS,
    bottleneck,
    decode_time,
    forecast,
    known_band,
    prefill_time,
    unbiased_ttft,
)
from specmd_jax.predict.hit_rates import published_locality, trace_locality
from specmd_jax.predict.memory import Question, bytes_for, share_out
from specmd_jax.traces.synthetic.generator import SyntheticSpec, generate

OLMOE = get_model("olmoe-1b-7b-0924")
LAPTOP = get_hardware("laptop-pcie4-x8")


def test_published_locality_is_what_its_source_measured():
    locality = published_locality(128, 8)
    assert locality.at(0.4 * 128) == pytest.approx(0.754, abs=0.02)  # arXiv 2608.07911
    assert locality.at(0) == 0 and locality.at(128) == 1
    assert (np.diff(locality.hit_rate) >= -1e-12).all()
    assert "arXiv 2608.07911" in locality.source


def test_published_locality_goes_over_to_another_shape():
    # Qwen3-Next's successor, 512 experts, top-10: per-layer LRU hits 67 % with 64 slots and 81 %
    # with 128 (llama.cpp, pull request 27861). The estimate is low, by up to 16 points.
    locality = published_locality(512, 10)
    assert locality.at(64) == pytest.approx(0.67, abs=0.16)
    assert locality.at(128) == pytest.approx(0.81, abs=0.16)


def test_a_trace_has_its_own_locality():
    trace = generate(SyntheticSpec(ModelShape(3, 16, 2), tokens=200), seed=0)
    locality = trace_locality(trace, "this one")
    assert len(locality.hit_rate) == 17 and "this one" in locality.source
    assert 0 < locality.at(4) < locality.at(8) < locality.at(16) < 1  # first uses miss
    assert locality.slots_for(0.0) == 0 and locality.slots_for(1.0) is None


def test_a_prompts_demand_grows_towards_all_experts():
    locality = published_locality(64, 8)
    sizes = [locality.demanded(tokens) for tokens in (0, 1, 2, 32, 300, 301, 4096, 10**6)]
    assert sizes[:2] == [0, 8] and sizes == sorted(sizes) and 63 < sizes[-1] <= 64


def test_a_budget_holds_the_slots_it_was_computed_for():
    question = Question(OLMOE, LAPTOP, "int4")
    for slots in (1, 8, 40, 64):
        budget = bytes_for(question, slots)
        machine = replace(LAPTOP, device_memory_bytes=budget + 10)
        held = share_out(Question(OLMOE, machine, "int4")).slots_per_layer
        assert held == slots


def test_the_rows_of_memory_add_up_to_the_card():
    for machine in (LAPTOP, get_hardware("h100-sxm")):
        held = share_out(Question(OLMOE, machine, "int4", batch=3))
        assert held.reserve + held.weights + held.kv + held.experts + held.free == held.total
        assert held.experts == held.slots_per_layer * 16 * OLMOE.expert_bytes("int4")


def small(nbytes: int, **asked) -> Question:
    return Question(OLMOE, replace(LAPTOP, device_memory_bytes=nbytes), **asked)


@pytest.mark.parametrize(
    "question",
    [
        small(1_200 * 10**6),
        small(900 * 10**6),
        small(780 * 10**6),
        small(3 * 10**9, context=20_000),
    ],
    ids=["fewer bits", "fewer yet", "of both", "a shorter context"],
)
def test_advice_where_nothing_fits_was_tried(question: Question):
    with pytest.raises(InputError, match="hold no expert a layer") as error:
        share_out(question)
    *ways, vram = str(error.value).rpartition(": give ")[2].split(", or ")
    assert ways and vram.startswith("--vram ")
    for way in (*ways, vram):
        flags = way.split()
        given = dict(zip(flags[::2], flags[1::2], strict=True))
        nbytes = parse_bytes(given.get("--vram", f"{question.hardware.device_memory_bytes}B"))
        spec = replace(OLMOE, non_expert_precision=given.get("--non-expert-precision", "bf16"))
        tried = replace(
            question,
            spec=spec,
            hardware=replace(LAPTOP, device_memory_bytes=nbytes),
            precision=given.get("--precision", "bf16"),
            context=int(given.get("--context", question.context)),
        )
        assert share_out(tried).slots_per_layer >= 1


def test_weights_in_fewer_bits_are_read_faster():
    int4 = replace(OLMOE, non_expert_precision="int4")
    plain, packed = (decode_time(Question(spec, LAPTOP, "int4"), 1.0) for spec in (OLMOE, int4))
    assert float(packed.software) < float(plain.software)
    assert int4.non_expert_bytes() < OLMOE.non_expert_bytes()


def test_ttft_is_the_closed_form_less_its_bias():
    band = known_band("ttft")
    assert band is not None and band.center < 1 and band.low < 1 < band.high
    assert unbiased_ttft(2.0) == 2.0 * band.center
    # The estimate stands in the middle of what was found, not at its end.
    assert (band.low + band.high) / 2 == pytest.approx(1, abs=0.05)


def test_a_longer_prompt_takes_longer_and_a_batch_shares_loads():
    short, long = (
        prefill_time(Question(OLMOE, LAPTOP, "int4", prompt=n), published_locality(64, 8)).total
        for n in (64, 1024)
    )
    assert short < long
    one, eight = (decode_time(Question(OLMOE, LAPTOP, "int4", batch=n), 0.5).total for n in (1, 8))
    assert one < eight < 8 * one


def test_the_bottleneck_is_the_largest_part():
    cold = decode_time(Question(OLMOE, LAPTOP, "int4"), 0.0)
    warm = decode_time(Question(OLMOE, LAPTOP, "int4"), 1.0)
    assert bottleneck(cold) == "link" and bottleneck(warm) != "link"


def test_questions_that_make_no_sense():
    with pytest.raises(InputError, match="hold no expert"):
        forecast(Question(get_model("deepseek-v3"), LAPTOP), published_locality(256, 8))
    with pytest.raises(InputError, match="a prompt of 9"):
        Question(OLMOE, LAPTOP, prompt=9, context=8)


def test_each_band_holds_what_its_own_table_holds():
    table = RESULTS / "predict_error.parquet"
    rows = pq.read_table(table).to_pylist()
    for kind in ("published", "trace", "ttft"):
        band = known_band(kind)
        ratio = np.asarray([r["found_s"] / r["estimated_s"] for r in rows if r["kind"] == kind])
        assert band is not None and band.runs == len(ratio) >= 30
        ratio /= band.center  # the estimate is the closed form times that
        assert ((band.low <= ratio) & (ratio <= band.high)).mean() >= 0.95
        assert band.median_error == pytest.approx(np.median(np.abs(1 / ratio - 1)))


def test_the_table_of_errors_comes_with_the_package():
    bands = json.loads(files("specmd_jax.predict").joinpath(ERRORS).read_text())["bands"]
    assert {"published", "trace", "ttft"} <= set(bands)
    assert known_band("telepathy") is None


def test_a_band_holds_its_rows():
    found = np.linspace(0.5, 2.0, 41)
    rows = [{"found_s": one, "estimated_s": 1.0, "against": "SIMULATED"} for one in found]
    band = band_of(rows)
    inside = (band["low"] <= found) & (found <= band["high"])
    assert inside.mean() >= 0.95 and not inside.all()
    below = [row | {"found_s": row["found_s"] / 4, "capacity": "64 tokens"} for row in rows]
    centred = band_of(below, centred=True)
    assert centred["center"] == pytest.approx(np.median(found) / 4)
    assert centred["low"] < 1 < centred["high"] and centred["scope"].startswith("prompts of 64")


def test_runs_of_the_runtime_become_measured_rows(tmp_path: Path):
    assert measured(tmp_path) == []
    one = {"strategy": "lru", "capacity": "25%", "link_bytes_per_s": 1e8, "ttft_s": 0.1,
           "tpot_s": 0.02, "hit_rate": 0.6}  # fmt: skip
    (tmp_path / "runtime_runs.jsonl").write_text(json.dumps(one) + "\n\n")
    write_profile(LAPTOP, tmp_path / "machine.json", {})
    (row,) = measured(tmp_path)
    assert row["against"] == "MEASURED" and row["found_s"] == 0.02 and row["estimated_s"] > 0


def test_the_papers_table_is_estimated(tmp_path: Path):
    paper_ttft.run_experiment(tmp_path)
    page = (tmp_path / "paper_ttft.md").read_text()
    assert "ESTIMATED" in page and page.count("#1") >= 2
    assert (tmp_path / "paper_ttft.png").stat().st_size > 10_000
