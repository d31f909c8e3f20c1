"""Whatever a config.json holds: its sizes, or one line; never a traceback, never a hang."""

import json
import time
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from specmd_jax.core.errors import InputError
from specmd_jax.core.json_files import parse_object
from specmd_jax.hardware.profiles import get_hardware
from specmd_jax.hardware.roofline import attention_s, expert_s, shared_s
from specmd_jax.model_zoo import ModelSpec, from_config
from specmd_jax.model_zoo.config_schema import KNOWN
from specmd_jax.predict.memory import Question, share_out
from tests.helpers.mutate import mutated
from tests.helpers.recorded import FOLDER
from tests.model_zoo.test_config_kinds import (
    DEEPSEEK_V4,
    GRANITE_4,
    HUNYUAN,
    JAMBA,
    NEMOTRON_3,
    STEP_3_5,
)
from tests.model_zoo.test_hf_config import FAMILIES

CASES = FOLDER.parent / "cases" / "configs"
RECORDED = [json.loads(path.read_text()) for path in sorted(CASES.glob("*/config.json"))]
KINDS = [STEP_3_5, DEEPSEEK_V4, HUNYUAN, GRANITE_4, JAMBA, NEMOTRON_3]
CONFIGS: list[dict[str, Any]] = [*FAMILIES.values(), *KINDS, *RECORDED]
MORE_KEYS = [*sorted(KNOWN), "quantization_config", "expert_dtype", "text_config", "ffn_config"]
MACHINE = replace(get_hardware("h100-sxm"), device_memory_bytes=10**16)
SECONDS = 5.0  # of the processor; most are read in milliseconds


@settings(max_examples=200, deadline=None)
@given(st.sampled_from(CONFIGS).flatmap(lambda config: mutated(config, MORE_KEYS)))
def test_a_config_is_sized_or_refused_in_one_line(config: dict[str, Any]):
    begun = time.process_time()
    try:
        check_sizes(from_config(config))
    except InputError as error:
        assert str(error).isprintable() and len(str(error)) < 500
    assert time.process_time() - begun < SECONDS


def check_sizes(spec: ModelSpec) -> None:
    """Asserts that sizes are counts, times are times, and that memory adds up."""
    assert 0 < spec.expert_params <= spec.routed_params < spec.total_params
    assert spec.routed_params == spec.num_moe_layers * spec.num_experts * spec.expert_params
    assert 0 < spec.non_expert_bytes() <= 2 * spec.non_expert_params
    assert 0 <= spec.cache_bytes(1) <= spec.cache_bytes(4096)
    for part in (spec.attention_params, spec.shared_params, spec.dense_params):
        assert part >= 0
    for seconds in (
        attention_s(spec, MACHINE, 1, 64),
        shared_s(spec, MACHINE, 1),
        expert_s(spec, MACHINE, 1),
    ):
        assert 0 <= seconds < float("inf")
    held = share_out(Question(spec, MACHINE))
    assert held.reserve + held.weights + held.kv + held.experts + held.free == held.total
    assert all(note.isprintable() for note in spec.notes)


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_bytes_of_a_config_are_read_or_refused_in_one_line(data: st.DataObject):
    text = bytearray(json.dumps(data.draw(st.sampled_from(CONFIGS))).encode())
    for place in data.draw(st.lists(st.integers(0, len(text) - 1), min_size=1, max_size=6)):
        text[place : place + 1] = data.draw(st.binary(max_size=3))
        text = text or bytearray(b" ")
    try:
        check_sizes(from_config(parse_object(bytes(text), "x.json", "give another")))
    except InputError as error:
        assert len(str(error)) < 500


def test_many_and_long_keys_are_told_of_fast_and_shortly():
    begun = time.process_time()
    many = {f"num_hidden_layers{i}": 1 for i in range(100_000)}
    long = {"num_hidden_layers" + "x" * 1_000_000: 1}
    for more in (many, long):
        with pytest.raises(InputError, match="lacks num_hidden_layers") as error:
            from_config({**more, "num_experts": 8})
        assert len(str(error.value)) < 200
    assert len(from_config(STEP_3_5 | many | long).notes[0]) < 500
    assert time.process_time() - begun < SECONDS


@pytest.mark.parametrize("layers", [1, 61, 4096])
def test_layers_of_many_kinds_are_read_fast(layers: int):
    kinds = [("mamba", "attention", "sliding_attention")[i % 61 % 3] for i in range(layers)]
    begun = time.process_time()
    spec = from_config(
        GRANITE_4 | {"num_hidden_layers": layers, "layer_types": kinds, "sliding_window": 64}
    )
    attention_s(spec, MACHINE, 1, 64)
    assert time.process_time() - begun < SECONDS
