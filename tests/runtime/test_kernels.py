"""Experts computed by the kernel, interpreted: alike in the runtime and the resident model."""

from dataclasses import replace

import jax
import numpy as np
import pytest

from specmd_jax.models import ExpertWeights, ResidentModel, quantize, small_olmoe
from specmd_jax.models.experts.blocks import as_stack
from specmd_jax.runtime.engine import OffloadedModel
from specmd_jax.runtime.offload.store import ExpertStore
from specmd_jax.runtime.options import RunOptions
from tests.models.small import CONFIG, small_decoder
from tests.runtime.offloaded import ALL, DECODER, EXPERTS, PROMPTS, make_setup, offloaded, run

NEW = 3


@pytest.fixture(scope="module")
def whole() -> tuple[list, list]:
    """What the kernel makes of a prompt with the model on the device."""
    return run(ResidentModel(DECODER, EXPERTS, "interpret"), PROMPTS[:1], NEW)


def test_the_kernel_is_the_same_model_to_rounding(whole: tuple[list, list]) -> None:
    tokens, logits = run(ResidentModel(DECODER, EXPERTS), PROMPTS[:1], NEW)
    assert tokens == whole[0]
    for one, other in zip(logits, whole[1], strict=True):
        np.testing.assert_allclose(one, other, atol=1e-4 * np.abs(one).max())


@pytest.mark.parametrize("capacity", ["4", ALL])
def test_slots_and_arrivals_give_the_bits_of_the_resident_model(
    whole: tuple[list, list], capacity: str
) -> None:
    """Loaded ones are computed from where they arrive, hits from their slots, by one kernel."""
    options = RunOptions(whole_passes=capacity == ALL)
    setup = make_setup(capacity, prefetch="previous")
    model = offloaded(setup, options, implementation="interpret")
    tokens, logits = run(model, PROMPTS[:1], NEW)
    model.close()
    assert tokens == whole[0]
    for one, other in zip(logits, whole[1], strict=True):
        np.testing.assert_array_equal(one, other)


def test_a_kernel_that_declines_leaves_the_experts_to_xla() -> None:
    """These are narrower than the GPU's kernel takes."""
    assert CONFIG.spec.hidden_size % 64
    setup = make_setup("6")
    expected = run(offloaded(setup), PROMPTS[:1], NEW)
    got = run(offloaded(setup, implementation="pallas_gpu"), PROMPTS[:1], NEW)
    assert got[0] == expected[0]
    for one, other in zip(got[1], expected[1], strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("precision", ["bf16", "int8", "int4"])
def test_what_the_kernel_reads_in_place(precision: str) -> None:
    """Packed weights as they are, floats only in the type that is computed with."""
    layer = ExpertWeights(np.ones((2, 64, 128), np.float32), np.ones((2, 64, 64), np.float32))
    stack = as_stack(quantize(layer, precision), np.float32)
    if precision == "bf16":
        assert stack is None
    else:
        assert stack is not None and f"int{stack.bits}" == precision


def test_packed_experts_are_unpacked_by_the_kernel() -> None:
    config = small_olmoe(
        num_hidden_layers=2, num_experts=4, top_k=2, hidden_size=64, moe_intermediate_size=64,
        vocab_size=64, num_heads=4,
    )  # fmt: skip
    decoder, experts = small_decoder(config)
    host = [jax.tree.map(np.asarray, layer) for layer in experts]
    store = ExpertStore(lambda layer: host[layer], len(host), ("int8",))
    setup = replace(make_setup("3"), precisions=("int8",), with_scales=True)
    made = []
    for implementation in ("xla", "interpret"):
        model = OffloadedModel(
            decoder,
            store,
            setup,
            options=RunOptions(whole_passes=False),
            implementation=implementation,
        )
        made.append(run(model, PROMPTS[:1], NEW))
    assert made[0][0] == made[1][0]
    for one, other in zip(made[0][1], made[1][1], strict=True):
        np.testing.assert_allclose(one, other, atol=1e-4 * np.abs(one).max())
