"""The machine presets and the errors around them."""

import dataclasses
import json
from pathlib import Path

import pytest

from specmd_jax.core.errors import InputError
from specmd_jax.hardware.profiles import HARDWARE, get_hardware, read_profile, write_profile

PRESETS = [
    "a100-pcie",
    "a100-sxm",
    "h100-pcie",
    "h100-sxm",
    "h200-sxm",
    "rtx-3060",
    "rtx-4090",
    "rtx-5090",
    "laptop-pcie4-x8",
    "apple-m3-max",
    "tpu-v5e",
    "tpu-v6e",
    "specmd-paper",
]


def test_presets_are_all_there_under_their_own_names():
    assert list(HARDWARE) == PRESETS
    assert all(profile.name == name for name, profile in HARDWARE.items())


@pytest.mark.parametrize("name", PRESETS)
def test_rates_keep_the_order_of_real_machines(name):
    hw = HARDWARE[name]
    assert hw.source
    assert hw.host_memory_bytes_per_s <= hw.hbm_bytes_per_s
    assert hw.host_flops_per_s < hw.peak_flops_per_s
    assert hw.unified == (hw.h2d_bytes_per_s == hw.hbm_bytes_per_s)
    # Weights are read faster than they are multiplied only far above one token.
    assert hw.peak_flops_per_s > 10 * hw.hbm_bytes_per_s


@pytest.mark.parametrize(
    ("name", "headline"),
    [("a100-sxm", 31.5e9), ("h100-sxm", 63e9), ("rtx-5090", 63e9), ("laptop-pcie4-x8", 15.75e9)],
)
def test_links_are_what_copies_reach_and_not_the_headline(name, headline):
    assert 0.75 * headline < HARDWARE[name].h2d_bytes_per_s < 0.9 * headline


def test_paper_machine():
    """SpecMD (arXiv 2602.03921) §5.1: 5 GB/s; OLMoE's 1.91 tok/s less 77 ms of transfers."""
    paper = get_hardware("SpecMD-Paper")
    assert paper.h2d_bytes_per_s == 5e9
    assert paper.layer_s == pytest.approx((1 / 1.91 - 0.077) / 16, rel=0.01)


def test_unknown_hardware_is_answered_with_near_names():
    assert get_hardware("RTX_4090") is get_hardware("rtx4090") is get_hardware("rtx-4090")
    with pytest.raises(InputError, match=r"'rtx-4900'.*rtx-4090"):
        get_hardware("rtx-4900")
    with pytest.raises(InputError, match="specmd-paper"):
        get_hardware("???")


@pytest.mark.parametrize(
    "change",
    [
        {"h2d_bytes_per_s": 0.0},
        {"device_memory_bytes": -1},
        {"hbm_bytes_per_s": float("nan")},
        {"h2d_latency_s": -1e-6},
        {"layer_s": -0.1},
        {"arrive_s": -1e-6},
        {"decide_s": float("nan")},
    ],
)
def test_impossible_machines_are_refused(change):
    with pytest.raises(InputError, match=next(iter(change))):
        dataclasses.replace(HARDWARE["a100-sxm"], **change)


def test_a_profile_may_leave_out_what_nobody_measured(tmp_path: Path):
    path = tmp_path / "machine.json"
    machine = dataclasses.replace(HARDWARE["a100-sxm"], decide_s=3e-4)
    write_profile(machine, path, {})
    assert read_profile(path) == machine
    record = json.loads(path.read_text())
    for name in ("arrive_s", "decide_s", "layer_s", "unified"):
        del record[name]
    path.write_text(json.dumps(record))
    assert read_profile(path) == HARDWARE["a100-sxm"]
