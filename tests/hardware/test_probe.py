"""Measuring a machine: the arithmetic is checked, the figures only for being figures."""

import numpy as np
import pytest

from specmd_jax.hardware.probe import KIB, MIB, Effort, fit_link, measure
from specmd_jax.hardware.profiles import get_hardware, read_profile, write_profile

LITTLE = Effort(sizes=(64 * KIB, 256 * KIB, MIB), memory_bytes=MIB, matrix=64, repeats=3)


def test_a_link_is_found_again():
    sizes = np.asarray([1e5, 1e6, 1e7])
    latency, slope = fit_link(sizes, 20e-6 + sizes / 12e9)
    assert latency == pytest.approx(20e-6, rel=1e-6) and 1 / slope == pytest.approx(12e9, rel=1e-6)


def test_a_latency_is_never_negative():
    sizes = np.asarray([1e5, 1e6, 1e7])
    latency, slope = fit_link(sizes, sizes / 12e9 * np.asarray([0.5, 1.0, 1.5]))
    assert latency == 0 and slope > 0


def test_what_is_measured_is_a_profile_that_can_be_read_again(tmp_path):
    profile, about = measure(LITTLE)
    assert {link["source"] for link in about["links"]} >= {"numpy"}
    write_profile(profile, tmp_path / "here.json", about)
    assert read_profile(tmp_path / "here.json") == profile
    assert get_hardware(str(tmp_path / "here.json")) == profile
