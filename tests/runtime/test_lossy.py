"""An engine that drops, substitutes, rounds or bends computes what the closed loop computes.

The two share policies and the step that serves an event, and nothing of the model's computation:
one is a scan over texts with all copies in memory, the other moves copies through slots.
"""

import itertools
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from specmd_jax.models import resident, small_olmoe
from specmd_jax.models.forward import take_apart
from specmd_jax.models.layers.kv_cache import empty_cache
from specmd_jax.runtime.engine import OffloadedModel
from specmd_jax.runtime.offload.store import AS_STORED, ExpertStore
from specmd_jax.runtime.options import drained
from specmd_jax.runtime.quality.closed_loop import Exact
from specmd_jax.runtime.quality.measure import Quality, Reading, measure
from specmd_jax.study.choice import Choice
from specmd_jax.study.metrics import count_summary
from specmd_jax.study.setup import make_setup
from tests.models.small import small_decoder

pytestmark = pytest.mark.matrix

LENGTH, TEXTS = 10, 2
CONFIG = small_olmoe(
    num_hidden_layers=3,
    num_experts=8,
    top_k=3,
    hidden_size=64,  # a multiple of the group that shares a scale
    moe_intermediate_size=64,
    vocab_size=64,
    num_heads=4,
)
DECODER, EXPERTS = small_decoder(CONFIG)
STORES: dict[tuple[str, ...], ExpertStore] = {}


def store(precisions: tuple[str, ...]) -> ExpertStore:
    if precisions not in STORES:
        host = [jax.tree.map(np.asarray, layer) for layer in EXPERTS]
        STORES[precisions] = ExpertStore(lambda layer: host[layer], len(host), precisions)
    return STORES[precisions]


@pytest.fixture(scope="module")
def reading() -> Reading:
    structure, weights = take_apart(DECODER)
    texts = np.random.default_rng(5).integers(0, 64, (TEXTS, LENGTH + 1)).astype(np.int32)
    exact = []
    for text in texts:
        made = DECODER(jnp.asarray(text[None, :-1]), resident(EXPERTS, CONFIG))
        exact.append(Exact(made.logits[0], jnp.stack([gate.ids for gate in made.gates], axis=1)))
    return Reading(CONFIG, structure, weights, EXPERTS, texts, exact)


def read(model: OffloadedModel, texts: np.ndarray) -> np.ndarray:
    """Returns the NLL of each token that follows, when texts are decoded token by token."""
    found = []
    for text in texts:
        cache = empty_cache(CONFIG, 1, LENGTH, jnp.zeros(1, jnp.int32))
        for token, following in itertools.pairwise(text):
            done = model(jnp.asarray([[token]], jnp.int32), cache)
            cache = done.cache
            assert cache is not None
            found.append(-float(jax.nn.log_softmax(done.logits[0, 0])[following]))
    return np.asarray(found).reshape(texts.shape[0], -1)


LOSSY: list[dict[str, Any]] = [
    {"miss": "drop-priority"},
    {"miss": "substitute"},
    {"miss": "substitute-unbounded", "prefetch": "next-gate"},
    {"miss": "fetch-lowest-bit", "precision": ("int8", "int4", "int2")},
    {"miss": "fetch-priority", "precision": ("int8", "int4", "int2"), "prefetch": "next-gate"},
    {"miss": "drop-priority-cascade", "precision": ("int8", "int2"), "eviction": "lhu"},
    {"routing": "cache-prior", "eviction": "least-stale"},
    {"routing": "max-rank", "prefetch": "next-gate-quantile"},
    {"routing": "cumulative-mass", "miss": "substitute"},
    {"miss": "cpu"},
    {"precision": ("int4",), "scope": "layer"},
    {"strategy": "specmd-3"},
]


@pytest.mark.parametrize("choice", LOSSY, ids=str)
def test_the_engine_bends_as_the_closed_loop(reading: Reading, choice: dict[str, Any]) -> None:
    setup = make_setup(Choice(capacity="9", **choice))
    setup = replace(setup, with_scales=setup.precisions != AS_STORED)
    (wanted,) = measure(reading, [setup])
    model = OffloadedModel(
        DECODER, store(setup.precisions), setup, options=drained(whole_passes=False)
    )
    # Every text is a new request of one-token passes: the engine calls the first one prefill.
    found = read(model, reading.texts)
    model.close()
    np.testing.assert_allclose(found, np.asarray(wanted.compared.nll), rtol=0, atol=2e-4)
    assert counts_of(model) == counts_in(wanted)
    lossless = choice in ({"miss": "cpu"},)
    assert np.allclose(found, wanted.exact_nll, atol=1e-4) == lossless


def counts_of(model: OffloadedModel) -> dict[str, int]:
    counts = count_summary(model.answer)
    return {name: counts[name] for name in ("accesses", "hits", "loads", "dropped", "swapped")}


def counts_in(quality: Quality) -> dict[str, int]:
    totals = {name: int(part.sum()) for name, part in quality.counts._asdict().items()}
    totals["loads"] += totals["prefetched"]
    return {name: totals[name] for name in ("accesses", "hits", "loads", "dropped", "swapped")}


def test_pages_of_all_precisions_share_the_budget_to_the_byte() -> None:
    precisions = ("int8", "int4", "int2")
    setup = make_setup(Choice(capacity="3", precision=precisions, miss="fetch-lowest-bit"))
    model = OffloadedModel(DECODER, store(precisions), replace(setup, with_scales=True))
    sizes = [CONFIG.spec.expert_bytes(name, with_scales=True) for name in precisions]
    assert store(precisions).copy_bytes[0].tolist() == sizes
    assert model.budget.capacity.nbytes == 3 * sizes[0]
    read(model, np.arange(2 * LENGTH + 2).reshape(2, -1).astype(np.int32))
    counts = model.answer.tally.counts
    assert counts.loads.sum(axis=0)[:2].tolist() == [0, 0]  # the lowest bit alone
    assert counts.loads.sum() > 0
