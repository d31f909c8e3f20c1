"""Every implementation of `slot_ffn` beside its definition, on copies of real models made small.

Interpreted kernels are slow to compile, so the sizes are the real ones over 16, in whole groups
of 64, and most combinations are left to `-m slow`. What is lowered has the real sizes.
"""

from functools import partial
from itertools import product
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax._src.pallas.mosaic_gpu.interpret.params import InterpretGPUParams

from specmd_kernels import SWIGLU, Implementation, slot_ffn
from specmd_kernels.sizes import MODELS, Sizes
from specmd_kernels.slot_ffn import pallas_gpu, pallas_tpu, reference, xla
from specmd_kernels.slot_ffn.arg_specs import ODD, SMALL, Args, activation_of, draw, shapes
from tests.kernels.lowering import lowered

pytestmark = pytest.mark.matrix

SPECS = SMALL | ODD
FORMATS = {
    "f32": (jnp.float32, None),
    "bf16": (jnp.bfloat16, None),
    "int8": (jnp.bfloat16, 8),
    "int4": (jnp.float32, 4),
    "int2": (jnp.float32, 2),
}
# Of the largest value: sums are in float32, and bfloat16 rounds to 8 bits twice on the way.
TOLERANCE = {"float32": 2e-5, "bfloat16": 2e-2}


def on_gpu(activation, *args):
    mosaic = args[0].dtype == args[3].gate_up.dtype == jnp.bfloat16
    interpret = InterpretGPUParams() if mosaic else True
    return pallas_gpu.slot_ffn(activation, *args, interpret=interpret)


BACKENDS = {
    "by_pair": xla.by_pair,
    "by_block": xla.by_block,
    "tpu": partial(pallas_tpu.slot_ffn, interpret=True),
    "gpu": on_gpu,
}
QUICK = {
    *product(("by_pair", "by_block"), SPECS, ["f32"]),
    *product(("by_pair", "by_block"), ["gpt-oss-20b"], ("bf16", "int4")),
    *product(("tpu", "gpu"), ["gpt-oss-20b"], ["int4"]),
    *product(("tpu", "gpu"), ["qwen3-30b"], ["int8"]),
    ("tpu", "unaligned", "f32"),
    ("tpu", "mixtral", "bf16"),
    ("tpu", "seven-groups", "int2"),
    ("gpu", "deepseek-v2-lite", "f32"),
    ("gpu", "olmoe", "bf16"),
}


@pytest.fixture(autouse=True)
def small_tiles(monkeypatch: pytest.MonkeyPatch):
    """A small model too is cut into several tiles."""
    monkeypatch.setattr(pallas_tpu, "TILE_BYTES", 1 << 15)


def check(got: Any, wanted: Any) -> None:
    bound = TOLERANCE[str(wanted.dtype)]
    assert got.dtype == wanted.dtype
    got, wanted = np.asarray(got, np.float32), np.asarray(wanted, np.float32)
    np.testing.assert_allclose(got, wanted, rtol=0, atol=bound * np.abs(wanted).max(initial=1))


def cases() -> list[Any]:
    """All there are; those not in QUICK take minutes."""
    found = []
    for backend, (name, sizes), form in product(BACKENDS, SPECS.items(), FORMATS):
        aligned = sizes.hidden % 64 == 0 and sizes.width % 64 == 0
        if aligned or (backend != "gpu" and form in ("f32", "bf16")):
            marks = [] if (backend, name, form) in QUICK else [pytest.mark.slow]
            found.append(pytest.param(backend, name, form, marks=marks))
    return found


@pytest.mark.parametrize(("backend", "name", "form"), cases())
def test_equals_the_reference(backend: str, name: str, form: str):
    sizes = SPECS[name]
    args = draw(shapes(sizes, 5, *FORMATS[form]))
    got = jax.jit(BACKENDS[backend], static_argnums=0)(activation_of(sizes), *args)
    check(got, reference.slot_ffn(activation_of(sizes), *args))


def plain(tokens: int = 3) -> tuple[Sizes, Args]:
    sizes = SMALL["olmoe"]
    return sizes, draw(shapes(sizes, tokens, jnp.float32))


@pytest.mark.parametrize("implementation", ["xla", "interpret", "pallas_gpu"])
def test_no_tokens_and_no_choices_give_zeros(implementation: Implementation):
    sizes, args = plain(0)
    assert slot_ffn(*args, implementation=implementation).shape == (0, sizes.hidden)
    _, args = plain()
    args = args._replace(slots=args.slots[:, :0], weights=args.weights[:, :0])
    assert not np.any(slot_ffn(*args, implementation=implementation))


@pytest.mark.parametrize("backend", ["by_pair", "by_block", "tpu"])
def test_slots_that_nobody_chose_are_not_read(backend: str):
    """They may hold anything: an expert on its way, or memory never written to."""
    _, args = plain()
    args = args._replace(slots=jnp.asarray([[1, -1, 1], [-1, -1, -1], [2, 1, -1]]))
    expected = reference.slot_ffn(SWIGLU, *args)
    spoilt = jax.tree.map(lambda leaf: leaf.at[0].set(jnp.nan), args.experts)
    weights = jnp.where(args.slots < 0, jnp.nan, args.weights)
    args = args._replace(experts=spoilt, weights=weights)
    check(jax.jit(BACKENDS[backend], static_argnums=0)(SWIGLU, *args), expected)


@pytest.mark.parametrize("implementation", ["xla", "interpret"])
def test_a_batch_is_more_tokens(implementation: Implementation):
    _, args = plain(6)
    tokens = [leaf.reshape(2, 3, -1) for leaf in args[:3]]
    one = partial(slot_ffn, experts=args.experts, implementation=implementation)
    got = jax.jit(jax.vmap(one))(*tokens)
    check(got.reshape(6, -1), reference.slot_ffn(SWIGLU, *args))
    shared = jax.jit(jax.vmap(one, in_axes=(None, 0, 0)))(tokens[0][0], *tokens[1:])
    args = args._replace(hidden=jnp.tile(tokens[0][0], (2, 1)))
    check(shared.reshape(6, -1), reference.slot_ffn(SWIGLU, *args))


def test_a_batch_of_buffers_is_served_one_by_one():
    _, args = plain()
    experts = jax.tree.map(lambda leaf: jnp.stack([leaf, -leaf]), args.experts)
    got = jax.jit(jax.vmap(partial(slot_ffn, *args[:3]), in_axes=0))(experts)
    for index in range(2):
        own = jax.tree.map(lambda leaf, index=index: leaf[index], experts)
        check(got[index], reference.slot_ffn(SWIGLU, *args._replace(experts=own)))


def test_a_backend_declines_with_its_reason():
    sizes = ODD["unaligned"]
    args = draw(shapes(sizes, 2, jnp.float32))
    with pytest.raises(NotImplementedError, match="multiples of 64, got 48 and 40"):
        slot_ffn(*args, implementation="pallas_gpu")
    half = jax.tree.map(lambda leaf: leaf.astype(jnp.float16), args)
    with pytest.raises(NotImplementedError, match="got float16"):
        slot_ffn(half.hidden, *args[1:3], half.experts, implementation="interpret")
    check(slot_ffn(*args), reference.slot_ffn(SWIGLU, *args))


@pytest.mark.parametrize(("form", "tokens"), [("bf16", 1), ("int8", 32), ("int4", 4096)])
@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("platform", ["tpu", "cuda"])
def test_lowers_at_real_sizes(platform: str, name: str, form: str, tokens: int):
    sizes, (_, bits) = MODELS[name], FORMATS[form]
    call = partial(
        slot_ffn,
        activation=activation_of(sizes),
        implementation="pallas_tpu" if platform == "tpu" else "pallas_gpu",
    )
    text = lowered(call, *shapes(sizes, tokens, jnp.bfloat16, bits), platform=platform)
    custom_call = {"tpu": "tpu_custom_call", "cuda": "triton" if bits else "mosaic_gpu"}
    assert custom_call[platform] in text
