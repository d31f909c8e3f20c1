"""Sizes and rates as people write them."""

import pytest

from specmd_jax.core.errors import InputError
from specmd_jax.core.units import parse_bytes, parse_rate


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("0.6GB", 600_000_000),
        ("4000MiB", 4000 * 2**20),
        ("12 GiB", 12 * 2**30),
        ("1.5kb", 1500),
        ("700B", 700),
        ("8 Mbit", 1_000_000),
        ("2e3 bytes", 2000),
        ("1TiB", 2**40),
    ],
)
def test_parse_bytes(text, expected):
    assert parse_bytes(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [("5GB/s", 5e9), ("25 GiB/s", 25 * 2.0**30), ("40Gbit/s", 5e9), ("512mb/sec", 512e6)],
)
def test_parse_rate(text, expected):
    assert parse_rate(text) == expected


@pytest.mark.parametrize("text", ["", "GB", "-1GB", "0.6", "0.6XB", "1,5GB", "nan GB", "5GB/s"])
def test_unreadable_sizes_are_refused(text):
    with pytest.raises(InputError, match=r"0\.6GB"):
        parse_bytes(text)


@pytest.mark.parametrize("text", ["5GB", "5GB/h", "fast", "/s", "0GB/s"])
def test_unreadable_rates_are_refused(text):
    with pytest.raises(InputError, match="rate"):
        parse_rate(text)


def test_a_unit_that_may_mean_bits_is_refused():
    with pytest.raises(InputError, match="write GB or Gbit"):
        parse_rate("40Gb/s")
