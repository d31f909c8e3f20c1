"""Whatever a config.json says of how a model computes: a decoder, or one line."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from specmd_jax.core.errors import InputError
from specmd_jax.models.checkpoints.decoder_schema import DecoderRecord
from specmd_jax.models.checkpoints.families import FAMILIES as DECODERS
from specmd_jax.models.checkpoints.families import from_hf
from specmd_jax.models.config import DecoderConfig
from tests.helpers.mutate import mutated
from tests.model_zoo.test_hf_config import DEEPSEEK_V3, FAMILIES, MIXTRAL, PHI_MOE

YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 4096}
CONFIGS: list[dict[str, Any]] = [
    *[config for config in FAMILIES.values() if config["model_type"] in DECODERS],
    DEEPSEEK_V3 | {"rope_scaling": YARN | {"mscale": 1.0, "mscale_all_dim": 1.0}},
]


@settings(max_examples=200, deadline=None)
@given(
    st.sampled_from(CONFIGS).flatmap(lambda one: mutated(one, [*DecoderRecord.__struct_fields__]))
)
def test_a_config_is_a_decoder_or_refused_in_one_line(config: dict[str, Any]):
    try:
        decoder = from_hf(config)
    except InputError as error:
        assert str(error).isprintable() and len(str(error)) < 500
    else:
        assert isinstance(decoder, DecoderConfig) and decoder.rope.frequencies


@settings(max_examples=100, deadline=None)
@given(mutated(YARN, ["beta_fast", "beta_slow", "mscale", "attention_factor", "truncate",
                      "rope_theta", "short_factor", "short_mscale", "type"]))  # fmt: skip
def test_stretched_positions_are_read_or_refused_in_one_line(scaling: dict[str, Any]):
    try:
        rope = from_hf(MIXTRAL | {"rope_scaling": scaling}).rope
    except InputError as error:
        assert str(error).isprintable() and len(str(error)) < 500
    else:
        assert len(rope.frequencies) == 64


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"rms_norm_eps": "small"}, "rms_norm_eps must be a number, got 'small'"),
        ({"rope_theta": 1}, "rope_theta must be a number of above 1, got 1"),
        ({"rope_scaling": 3}, "rope_scaling must be an object, got 3"),
        ({"rope_scaling": {"type": "yarn"}}, "'yarn' needs (original_)?max_position_embeddings"),
        ({"n_group": 0}, "n_group must be a whole number of at least 1, got 0"),
        ({"hidden_act": ["silu"]}, "hidden_act must be a text"),
        ({"model_type": "\x1b[31mx" * 99}, r"model_type '\\x1b\[31m"),
    ],
)
def test_values_that_mean_nothing_are_refused_in_one_line(change: dict, complaint: str):
    with pytest.raises(InputError, match=complaint) as error:
        from_hf(PHI_MOE | change)
    assert str(error.value).isprintable()
