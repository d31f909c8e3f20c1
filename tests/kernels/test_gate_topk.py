"""Every implementation of `gate_topk` beside its definition, at the sizes of real gates."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from specmd_kernels import GateChoice, Implementation, gate_topk
from specmd_kernels.gate_topk import pallas_gpu, pallas_tpu, reference, xla
from specmd_kernels.gate_topk.arg_specs import ODD, REAL, GateSizes, draw, shapes
from specmd_kernels.gate_topk.types import GateRule
from tests.kernels.lowering import lowered

SPECS = REAL | ODD
SCALARS = jnp.asarray([0.75, 0.02], jnp.float32)
BACKENDS = {
    "xla": xla.gate_topk,
    "tpu": partial(pallas_tpu.gate_topk, interpret=True),
    "gpu": partial(pallas_gpu.gate_topk, interpret=True),
}


def check(got: Any, wanted: Any) -> None:
    """Ids and masks are the same; weights are, but for the order of a sum."""
    np.testing.assert_array_equal(got[0], wanted[0])
    np.testing.assert_allclose(got[1], wanted[1], rtol=1e-5)
    if wanted[2] is None:
        assert got[2] is None
    else:
        np.testing.assert_array_equal(got[2], wanted[2])


QUICK = {"mixtral", "gpt-oss-20b", "sixty", "one"}  # each round of the choice is compiled


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[] if name in QUICK else pytest.mark.slow) for name in SPECS]
)
@pytest.mark.parametrize("backend", BACKENDS)
def test_equals_the_reference(backend: str, name: str):
    dtype = jnp.bfloat16 if name == "mixtral" else jnp.float32
    sizes = SPECS[name]
    args = draw(shapes(sizes, 21, dtype))
    rule = GateRule(sizes.top_k, top_j=1, normalize=name == "gpt-oss-20b")
    got = jax.jit(BACKENDS[backend], static_argnums=0)(rule, SCALARS, *args)
    check(got, reference.gate_topk(rule, SCALARS, *args))


@pytest.mark.parametrize("backend", BACKENDS)
def test_the_next_layer_is_optional_and_a_token_may_be_alone(backend: str):
    args = draw(shapes(REAL["mixtral"], 1, jnp.float32))
    rule = GateRule(top_k=2, top_j=0, normalize=False)
    got = jax.jit(BACKENDS[backend], static_argnums=0)(rule, SCALARS, *args[:2], None)
    check(got, reference.gate_topk(rule, SCALARS, *args[:2], None))


@pytest.mark.parametrize("implementation", ["xla", "interpret", "pallas_gpu"])
def test_no_tokens(implementation: Implementation):
    args = draw(shapes(GateSizes(8, 2), 0, jnp.float32))
    found = gate_topk(*args, top_k=2, implementation=implementation)
    assert found.ids.shape == found.weights.shape == (0, 2)
    assert found.ahead is not None and found.ahead.shape == (0, 8)


@pytest.mark.parametrize("implementation", ["xla", "interpret"])
def test_batches_of_tokens_and_of_rules(implementation: Implementation):
    """A sweep over the bonus is one call; each element is what it is alone."""
    args = draw(shapes(REAL["gpt-oss-20b"], 5, jnp.float32))
    call = partial(gate_topk, top_k=4, top_j=1, implementation=implementation)
    bonuses = jnp.asarray([0.0, 1.5])
    got = jax.jit(jax.vmap(lambda bonus: call(*args, bonus=bonus, threshold=0.02)))(bonuses)
    for index, bonus in enumerate(bonuses):
        scalars = jnp.stack([bonus, jnp.float32(0.02)])
        own = jax.tree.map(lambda leaf, index=index: leaf[index], got)
        check(own, reference.gate_topk(GateRule(4, 1, False), scalars, *args))


def test_a_full_bonus_lets_the_cache_decide_and_the_router_weigh():
    logits = jnp.asarray([[3.0, 2.0, 1.0, 0.0]])
    found = gate_topk(logits, jnp.asarray([0, 0, 0, 1], bool), top_k=2, top_j=1, bonus=9.0)
    assert found.ids.tolist() == [[0, 3]]
    np.testing.assert_allclose(found.weights, jax.nn.softmax(logits)[:, jnp.asarray([0, 3])])
    assert found == GateChoice(found.ids, found.weights, None)


@pytest.mark.parametrize("name", REAL)
@pytest.mark.parametrize(("platform", "custom_call"), [("tpu", "tpu_custom"), ("cuda", "triton")])
def test_lowers_at_real_sizes(platform: str, custom_call: str, name: str):
    call = partial(
        gate_topk,
        top_k=REAL[name].top_k,
        top_j=1,
        implementation="pallas_tpu" if platform == "tpu" else "pallas_gpu",
    )
    args = shapes(REAL[name], 4096, jnp.float32)
    sweep = jax.vmap(lambda bonus, *args: call(*args, bonus=bonus), in_axes=(0, None, None, None))
    bonuses: Any = jax.ShapeDtypeStruct((3,), jnp.float32)
    assert custom_call in lowered(call, *args, platform=platform)
    assert custom_call in lowered(sweep, bonuses, *args, platform=platform)
