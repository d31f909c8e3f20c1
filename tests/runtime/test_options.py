"""What a run has room for."""

import pytest

from specmd_jax.runtime.options import IN_TRANSIT_BYTES, RunOptions

MIB = 1 << 20


@pytest.mark.parametrize(
    ("nbytes", "lanes"),
    [(98_304, 4), (12 * MIB, 4), (25 * MIB, 2), (336 * MIB, 2)],
    ids=["specmd-tiny", "OLMoE-1B-7B in bf16", "gpt-oss-20b in bf16", "Mixtral-8x7B in bf16"],
)
def test_small_experts_keep_the_link_busy_and_large_ones_stay_few(nbytes: int, lanes: int):
    assert RunOptions().lanes_of(nbytes) == lanes
    assert lanes == 2 or lanes * nbytes <= IN_TRANSIT_BYTES


def test_lanes_may_be_told():
    assert RunOptions(lanes=7).lanes_of(MIB) == 7
