"""Layer times against hand-computed values, laws and the paper's table of transfers."""

import dataclasses

import pytest

from specmd_jax.core.errors import InputError
from specmd_jax.hardware.profiles import HARDWARE
from specmd_jax.hardware.roofline import (
    Roof,
    attention_s,
    expert_roof,
    expert_s,
    head_s,
    host_expert_s,
    shared_s,
    transfer_s,
)
from specmd_jax.model_zoo import MODELS

OLMOE, MIXTRAL, V3 = (MODELS[n] for n in ("olmoe-1b-7b-0924", "mixtral-8x7b", "deepseek-v3"))
A100, PAPER, MAC = (HARDWARE[n] for n in ("a100-sxm", "specmd-paper", "apple-m3-max"))
BARE = dataclasses.replace(A100, dispatch_s=0.0, h2d_latency_s=0.0)
MIB = 2**20


def test_transfer_is_latency_and_bytes_over_the_link():
    expert = OLMOE.expert_bytes("fp16")
    assert expert == 12 * MIB
    assert transfer_s(PAPER, expert) == pytest.approx(2.5166e-3, rel=1e-4)
    assert transfer_s(A100, 0) == A100.h2d_latency_s
    assert transfer_s(A100, 25_000_000) == pytest.approx(1e-3 + 10e-6)
    assert transfer_s(MAC, expert) == 0.0


@pytest.mark.parametrize(
    ("name", "int4_ms", "int8_ms", "fp16_ms"),
    [
        ("olmoe-1b-7b-0924", 0.60, 1.2, 2.4),
        ("mixtral-8x7b", 16.8, 33.6, 67.2),
        ("qwen1.5-moe-a2.7b", 0.82, 1.65, 3.3),
        ("phi-3.5-moe", 7.5, 15, 30),
    ],
)
def test_milliseconds_an_expert_on_the_paper_machine(name, int4_ms, int8_ms, fp16_ms):
    """Transfers at 5 GB/s, derived from Table 3 of SpecMD (arXiv 2602.03921).

    The table's "MB" are MiB, which those figures take for 10**6 bytes: true times are 1.0486
    times longer.
    """
    mib_taken_for_mb = MIB / 1e6
    for precision, ms in {"int4": int4_ms, "int8": int8_ms, "fp16": fp16_ms}.items():
        seconds = transfer_s(PAPER, MODELS[name].expert_bytes(precision))
        assert 1e3 * seconds / mib_taken_for_mb == pytest.approx(ms, rel=0.01)


def test_one_expert_by_hand():
    # One token: reading 336 MiB at 2039 GB/s. Many: 2 x 3 x 4096 x 14336 FLOPs each at 312 TFLOP/s.
    assert expert_s(MIXTRAL, A100, 1) == pytest.approx(336 * MIB / 2039e9)
    assert expert_s(MIXTRAL, A100, 1, "int4") == pytest.approx(84 * MIB / 2039e9)
    assert expert_s(MIXTRAL, A100, 4096) == pytest.approx(4096 * 2 * 3 * 4096 * 14336 / 312e12)
    assert expert_roof(MIXTRAL, A100).at(4096) == expert_s(MIXTRAL, A100, 4096)


def test_attention_by_hand():
    # One token, no past to speak of: bytes of all weights but experts, embeddings and head.
    weights = 32 * (4096 * 128 * (2 * 32 + 2 * 8) + 4096 * 8 + 2 * 4096) + 4096
    assert attention_s(MIXTRAL, BARE, 1, 1) == pytest.approx(
        (2 * weights + 128 * 1024) / 2039e9 / 32
    )
    # Batched decode reads a cache a sequence: 128 KiB a token of context.
    lone = attention_s(MIXTRAL, BARE, 1, 1000)
    batch = attention_s(MIXTRAL, BARE, 8, 1000, sequences=8)
    assert batch - lone == pytest.approx(7 * 1000 * 128 * 1024 / 2039e9 / 32)
    # Prefill of T tokens: T (T + 1) / 2 pairs, 4 x 32 heads x 128 FLOPs each, in every layer.
    tokens = 4096
    flops = tokens * 2 * weights + 32 * 4 * 32 * 128 * tokens * (tokens + 1) / 2
    assert attention_s(MIXTRAL, BARE, tokens, tokens) == pytest.approx(flops / 312e12 / 32)


def test_context_includes_the_tokens_of_the_pass():
    with pytest.raises(InputError, match="cannot hold the 8 tokens"):
        attention_s(MIXTRAL, A100, 8, 7)


def test_dispatch_is_paid_once_a_layer():
    difference = attention_s(OLMOE, A100, 1, 1) - attention_s(OLMOE, BARE, 1, 1)
    assert difference == pytest.approx(A100.dispatch_s)


def test_shared_and_dense_blocks_by_hand():
    assert shared_s(OLMOE, A100, 1) == 0.0
    shared, dense = 58 * 3 * 7168 * 2048, 3 * 3 * 7168 * 18432
    assert shared_s(V3, A100, 1) == pytest.approx(2 * (shared + dense) / 2039e9 / 58)


def test_a_pass_reads_every_active_weight_once():
    """One token: layer times add up to the active parameters (embedding row apart)."""
    layers = V3.num_moe_layers
    pass_s = layers * (
        attention_s(V3, BARE, 1, 1) + shared_s(V3, BARE, 1) + V3.top_k * expert_s(V3, BARE, 1)
    ) + head_s(V3, BARE, 1)
    read = 2 * (V3.active_params - V3.vocab_size * V3.hidden_size) + V3.cache_bytes(1)
    assert pass_s == pytest.approx(read / BARE.hbm_bytes_per_s, rel=1e-9)


@pytest.mark.parametrize("spec", MODELS.values(), ids=MODELS)
@pytest.mark.parametrize("name", ["rtx-3060", "h200-sxm", "apple-m3-max", "tpu-v6e"])
def test_more_tokens_never_take_less_time(spec, name):
    hw = HARDWARE[name]
    for time in (
        lambda n: attention_s(spec, hw, n, 16384),
        lambda n: attention_s(spec, hw, 1, n),
        lambda n: attention_s(spec, hw, n, n),
        lambda n: shared_s(spec, hw, n),
        lambda n: head_s(spec, hw, n),
        lambda n: expert_s(spec, hw, n, "int4"),
        lambda n: host_expert_s(spec, hw, n, "int4"),
    ):
        times = [time(n) for n in (1, 2, 16, 128, 1024, 8192)]
        assert times == sorted(times)


def test_fewer_bits_take_less_time_while_memory_is_the_limit():
    times = [expert_s(OLMOE, A100, 1, p) for p in ("int2", "int4", "int8", "bf16")]
    assert times == sorted(times)
    assert times[-1] == pytest.approx(8 * times[0])
    assert expert_s(OLMOE, A100, 8192, "int2") == expert_s(OLMOE, A100, 8192, "bf16")


def test_expert_on_the_host_by_hand():
    memory_s = 12 * MIB / A100.host_memory_bytes_per_s
    copies_s = 2 * (A100.h2d_latency_s + 2048 * 2 / A100.h2d_bytes_per_s)
    assert host_expert_s(OLMOE, A100, 1) == pytest.approx(memory_s + copies_s)
    flops_s = 1000 * 2 * 3 * 2048 * 1024 / A100.host_flops_per_s
    assert host_expert_s(OLMOE, A100, 1000) > flops_s
    # For one token the CPU beats fetching the expert (Fiddler's premise); for many it does not.
    fetched = [transfer_s(A100, 12 * MIB) + expert_s(OLMOE, A100, n) for n in (1, 1000)]
    assert host_expert_s(OLMOE, A100, 1) < fetched[0]
    assert host_expert_s(OLMOE, A100, 1000) > fetched[1]


def test_a_fixed_layer_time_replaces_the_roofline():
    assert attention_s(OLMOE, PAPER, 1, 100) == attention_s(OLMOE, PAPER, 512, 512) == 28e-3
    assert shared_s(V3, PAPER, 9) == head_s(V3, PAPER, 9) == expert_s(V3, PAPER, 9) == 0.0
    assert expert_roof(V3, PAPER) == Roof(0.0, 0.0)
    assert host_expert_s(OLMOE, PAPER, 1) > 0.0
