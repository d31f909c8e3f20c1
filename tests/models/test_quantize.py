"""Precision tiers: how far off, how many bytes, and the same weights on every way back.

Takes about 15 s.
"""

from itertools import product

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from specmd_jax.core.errors import InputError
from specmd_jax.model_zoo import MODELS, ModelSpec, get_model
from specmd_jax.models import ExpertWeights, PackedExpert, apply_expert, dequantize, quantize
from specmd_jax.models.experts.quantize import PRECISIONS
from specmd_kernels import Activation

GROUP = 64
BITS = {"int8": 8, "int4": 4, "int2": 2}
BFLOAT16 = ml_dtypes.bfloat16
BUNDLED = (128, 64)  # hidden size and expert width of the bundled model


def expert(sizes: tuple[int, int], many: tuple[int, ...] = (), seed: int = 0) -> ExpertWeights:
    """Returns weights drawn from a normal distribution."""
    (hidden, width), rng = sizes, np.random.default_rng(seed)
    gate_up = rng.standard_normal((*many, hidden, 2 * width), np.float32)
    return ExpertWeights(gate_up, rng.standard_normal((*many, width, hidden), np.float32))


def one_column(weights: np.ndarray) -> ExpertWeights:
    """Returns an expert of width 64 whose first column of gate holds the weights."""
    gate_up = np.zeros((GROUP, 2 * GROUP), np.float32)
    gate_up[:, 0] = weights
    return ExpertWeights(gate_up, np.zeros((GROUP, GROUP), np.float32))


def there_and_back(weights: ExpertWeights, precision: str, dtype=jnp.float32) -> ExpertWeights:
    return dequantize(quantize(weights, precision), dtype)


def read_back(codes: np.ndarray, scales: np.ndarray, bits: int) -> np.ndarray:
    """Returns a matrix of one expert weight by weight, straight from the format's definition."""
    groups, outputs = scales.shape
    size = codes.shape[0] // groups
    matrix = np.empty((groups * GROUP, outputs), np.float32)
    for row in range(groups * GROUP):
        group, place = divmod(row, GROUP)
        part, byte = divmod(place, size)
        code = (codes[group * size + byte].astype(np.int64) >> (part * bits)) % (1 << bits)
        level = code - (1 << (bits - 1)) + 0.5
        matrix[row] = level * scales[group].astype(np.float64)
    return matrix


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
@pytest.mark.parametrize("precision", BITS)
def test_weights_are_read_back_as_the_format_says(precision, dtype):
    packed = quantize(expert(BUNDLED), precision)
    weights = dequantize(packed, dtype)
    compiled = jax.jit(dequantize, static_argnums=1)(jax.device_put(packed), dtype)
    for name in ("gate_up", "down"):
        matrix = getattr(packed, name)
        expected = read_back(matrix.codes, matrix.scales, BITS[precision]).astype(dtype)
        np.testing.assert_array_equal(getattr(weights, name), expected)
        np.testing.assert_array_equal(getattr(compiled, name), expected)


@pytest.mark.parametrize("precision", BITS)
def test_no_weight_is_off_by_more_than_half_its_step(precision):
    weights = expert(BUNDLED, many=(3,))
    assert_within_half_a_step(weights, precision)


def assert_within_half_a_step(weights: ExpertWeights, precision: str) -> None:
    packed = quantize(weights, precision)
    back = dequantize(packed, jnp.float32)
    for name in ("gate_up", "down"):
        scales = getattr(packed, name).scales.astype(np.float64)
        step = np.repeat(scales, GROUP, axis=-2)
        error = np.abs(np.asarray(getattr(back, name), np.float64) - getattr(weights, name))
        # The quotient that is rounded down is itself rounded, by less than 2^-16 of a step.
        assert (error <= step * (0.5 + 2.0**-16))[step > 0].all()
        assert not error[step == 0].any()


FLOATS = st.floats(width=32, allow_nan=False, allow_infinity=False)


@pytest.mark.parametrize("precision", BITS)
@settings(max_examples=60, deadline=None)
@given(weights=arrays(np.float32, GROUP, elements=FLOATS))
def test_any_finite_weights_are_kept_within_half_a_step(precision, weights):
    assert_within_half_a_step(one_column(weights), precision)


@pytest.mark.parametrize("precision", BITS)
@settings(max_examples=60, deadline=None)
@given(weights=arrays(np.float32, GROUP, elements=FLOATS))
def test_quantised_again_the_codes_are_the_same(precision, weights):
    packed = quantize(one_column(weights), precision)
    again = quantize(dequantize(packed, jnp.float32), precision)
    np.testing.assert_array_equal(again.gate_up.codes, packed.gate_up.codes)


@pytest.mark.parametrize("precision", BITS)
@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_every_code_comes_back_from_its_bits(precision, data):
    """Weights in the middle of their steps, so that the codes are known without quantising."""
    half = 1 << (BITS[precision] - 1)
    code = st.integers(-half, half - 1)
    codes = np.array(data.draw(st.lists(code, min_size=GROUP, max_size=GROUP)))
    codes[0] = -half  # at the very end of its step: the scale is then 2
    weights = (codes + 0.5) * 2
    weights[0] = -half * 2
    back = there_and_back(one_column(weights), precision).gate_up[:, 0]
    np.testing.assert_array_equal(back, (codes + 0.5) * 2)


@pytest.mark.parametrize("precision", BITS)
def test_a_group_of_zeros_stays_exact(precision):
    weights = one_column(np.zeros(GROUP))
    jax.tree.map(np.testing.assert_array_equal, there_and_back(weights, precision), weights)


EXTREMES = {
    "the largest": np.finfo(np.float32).max,
    "the smallest normal": np.finfo(np.float32).tiny,
    "the smallest": np.finfo(np.float32).smallest_subnormal,
}


@pytest.mark.parametrize("value", EXTREMES.values(), ids=EXTREMES)
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
@pytest.mark.parametrize("precision", BITS)
def test_extreme_weights_stay_finite_and_keep_their_sign(precision, dtype, value):
    weights = np.where(np.arange(GROUP) % 2, value, -value)
    back = np.asarray(there_and_back(one_column(weights), precision, dtype).gate_up[:, 0])
    assert np.isfinite(back).all()
    np.testing.assert_array_equal(np.sign(back), np.sign(weights))


def test_one_large_weight_does_not_spoil_other_groups():
    weights = expert(BUNDLED)
    spoilt = weights._replace(gate_up=weights.gate_up.copy())
    spoilt.gate_up[5, 7] = 1e4
    before, after = (there_and_back(w, "int4").gate_up for w in (weights, spoilt))
    rows, columns = np.nonzero(np.asarray(before != after))
    assert rows.max() < GROUP and set(columns) == {7}


def test_fewer_bits_lose_more_and_int2_less_than_a_level_at_zero_would():
    weights = expert((1024, 64)).gate_up
    losses = []
    for precision in BITS:
        back = there_and_back(ExpertWeights(weights, weights[:GROUP]), precision).gate_up
        losses.append(float(np.mean(np.square(back - weights))))
    assert losses == sorted(losses)
    groups = weights.reshape(-1, GROUP, weights.shape[-1])
    peak = np.abs(groups).max(axis=1, keepdims=True)
    ternary = np.rint(groups / peak) * peak
    assert losses[-1] < float(np.mean(np.square(ternary - groups))) / 2


def test_bf16_is_kept_as_it_is():
    weights = jax.tree.map(lambda leaf: leaf.astype(BFLOAT16), expert(BUNDLED, many=(2,)))
    packed = quantize(weights, "bf16")
    assert packed.gate_up.codes is weights.gate_up, "copied"
    jax.tree.map(np.testing.assert_array_equal, dequantize(packed, jnp.bfloat16), weights)


def test_fp32_is_kept_as_it_is():
    weights = expert(BUNDLED)
    jax.tree.map(np.testing.assert_array_equal, there_and_back(weights, "fp32"), weights)


@pytest.mark.parametrize("precision", PRECISIONS)
def test_biases_are_not_quantised(precision):
    bias = np.linspace(-1, 1, 128).astype(BFLOAT16).astype(np.float32)
    weights = expert(BUNDLED)._replace(gate_up_bias=bias, down_bias=bias[::-1])
    back = there_and_back(weights, precision)
    np.testing.assert_array_equal(back.gate_up_bias, bias)
    np.testing.assert_array_equal(back.down_bias, bias[::-1])


def blank(spec: ModelSpec) -> ExpertWeights:
    hidden, width = spec.hidden_size, spec.moe_intermediate_size
    biases = [np.zeros(2 * width, BFLOAT16), np.zeros(hidden, BFLOAT16)]
    return ExpertWeights(
        np.zeros((hidden, 2 * width), BFLOAT16),
        np.zeros((width, hidden), BFLOAT16),
        *(biases if spec.expert_bias else []),
    )


OF_THE_ZOO = [
    *product(["olmoe-1b-7b-0924", "qwen3-30b-a3b", "gpt-oss-20b"], PRECISIONS),
    ("mixtral-8x7b", "int4"),
]


@pytest.mark.parametrize(("name", "precision"), OF_THE_ZOO)
def test_an_expert_takes_the_bytes_that_the_zoo_says(name, precision):
    spec = get_model(name)
    packed = quantize(blank(spec), precision)
    assert packed.nbytes == spec.expert_bytes(precision, with_scales=True)


def test_every_model_of_the_zoo_can_be_quantised():
    odd = [
        spec.name
        for spec in MODELS.values()
        if spec.hidden_size % GROUP or spec.moe_intermediate_size % GROUP
    ]
    assert not odd


@pytest.mark.parametrize("precision", BITS)
def test_an_expert_of_many_is_the_expert_alone(precision):
    weights = expert(BUNDLED, many=(2, 3))
    alone = quantize(jax.tree.map(lambda leaf: leaf[1, 2], weights), precision)
    many = quantize(weights, precision)
    assert many.nbytes == 6 * alone.nbytes
    jax.tree.map(lambda a, b: np.testing.assert_array_equal(a[1, 2], b), many, alone)
    stacked = dequantize(many, jnp.float32)
    picked = jax.tree.map(lambda leaf: leaf[1, 2], stacked)
    jax.tree.map(np.testing.assert_array_equal, picked, dequantize(alone, jnp.float32))


@pytest.mark.parametrize("sizes", [(100, 64), (128, 96)])
@pytest.mark.parametrize("precision", BITS)
def test_a_width_that_is_no_whole_group_is_refused(precision, sizes):
    odd = next(size for size in sizes if size % GROUP)
    with pytest.raises(InputError, match=rf"{precision}.* has {odd}: .*multiples of 64"):
        quantize(expert(sizes), precision)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_weights_that_are_no_numbers_are_refused(value):
    weights = np.zeros(GROUP)
    weights[3] = value
    with pytest.raises(InputError, match="NaN or infinity"):
        quantize(one_column(weights), "int8")


def test_an_unknown_precision_is_refused():
    with pytest.raises(InputError, match=r"unknown precision 'int3'.*int4"):
        quantize(expert(BUNDLED), "int3")


@pytest.mark.parametrize("platform", ["cuda", "tpu"])
@pytest.mark.parametrize("precision", PRECISIONS)
def test_an_expert_lowers_from_its_packed_form(precision, platform):
    packed: PackedExpert = quantize(blank(get_model("olmoe-1b-7b-0924")), precision)

    @jax.jit
    def compute(packed: PackedExpert, rows: jax.Array) -> jax.Array:
        return apply_expert(dequantize(packed, jnp.bfloat16), rows, Activation())

    rows = jax.ShapeDtypeStruct((4, 2048), jnp.bfloat16)
    exported = jax.export.export(compute, platforms=[platform])(packed, rows)
    assert exported.platforms == (platform,)
    given = {str(aval.dtype) for aval in exported.in_avals}
    assert ("uint8" in given) == (precision in BITS)
    assert "stablehlo.gather" not in exported.mlir_module(), "rows are moved whole"
