"""The closed loop beside the exact model, beside a replay, and beside arithmetic by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from specmd_jax.core.errors import InputError
from specmd_jax.models import resident, small_olmoe
from specmd_jax.models.experts.quantize import dequantize, quantize
from specmd_jax.models.forward import take_apart
from specmd_jax.runtime.decide.applied_choice import stand_ins
from specmd_jax.runtime.quality.closed_loop import Exact
from specmd_jax.runtime.quality.measure import (
    Reading,
    bootstrap,
    check_quality,
    cut,
    measure,
    summarise_quality,
)
from specmd_jax.study.choice import Choice
from specmd_jax.study.run import compare
from specmd_jax.study.setup import make_setup
from specmd_jax.traces import DECODE, Trace
from tests.models.small import CONFIG, small_decoder

pytestmark = pytest.mark.matrix

LENGTH, TEXTS = 12, 3


@pytest.fixture(scope="module")
def reading() -> Reading:
    decoder, experts = small_decoder()
    structure, weights = take_apart(decoder)
    texts = np.random.default_rng(3).integers(0, 64, (TEXTS, LENGTH + 1)).astype(np.int32)
    exact = []
    for text in texts:
        made = decoder(jnp.asarray(text[None, :-1]), resident(experts, CONFIG))
        exact.append(Exact(made.logits[0], jnp.stack([gate.ids for gate in made.gates], axis=1)))
    return Reading(CONFIG, structure, weights, experts, texts, exact)


def recorded(reading: Reading) -> Trace:
    """Returns the exact model's routing, one token a pass."""
    ids = np.concatenate([np.asarray(exact.ids) for exact in reading.exact]).astype(np.int16)
    rows = np.arange(len(ids), dtype=np.int32)
    return Trace(
        num_experts=CONFIG.spec.num_experts,
        experts=ids,
        step=rows,
        request=rows // LENGTH,
        phase=np.full(len(ids), DECODE, np.uint8),
    )


def one(reading: Reading, **choice):
    return measure(reading, [make_setup(Choice(**choice))])[0]


LOSSLESS = [
    {"eviction": "lru"},
    {"eviction": "least-stale", "scope": "layer", "capacity": "12"},
    {"eviction": "lfu", "admission": "bypass"},
    {"prefetch": "transition", "lookahead": 2},
    {"prefetch": "previous", "touch_on_prefetch_hit": True},
]


@pytest.mark.parametrize("choice", LOSSLESS, ids=str)
def test_a_lossless_cache_changes_nothing_and_counts_as_a_replay(reading, choice):
    choice = {"capacity": "9"} | choice
    quality = one(reading, **choice)
    np.testing.assert_allclose(quality.compared.nll, quality.exact_nll, rtol=0, atol=2e-5)
    assert np.asarray(quality.compared.kl).max() < 1e-5
    assert np.asarray(quality.compared.same_experts).min() == 1.0
    replayed = compare(recorded(reading), [make_setup(Choice(**choice))])[0].tally.counts
    for name in quality.counts._fields:
        found, wanted = getattr(quality.counts, name), getattr(replayed, name)
        np.testing.assert_array_equal(found, wanted, err_msg=name)


def test_predictions_are_those_of_the_next_gates(reading):
    """A next-gate prefetcher finds more than none, and as much as the gates foresee."""
    without, with_it = (
        one(reading, capacity="12"),
        one(reading, capacity="12", prefetch="next-gate"),
    )
    assert with_it.counts.hits.sum() > without.counts.hits.sum()
    assert with_it.counts.prefetch_used[1:].sum() > 0


def test_a_cache_of_everything_is_lossless_under_every_miss_policy(reading):
    """After the first touch nothing is missing, so only compulsory misses can cost."""
    for miss in ("drop-priority", "substitute", "substitute-unbounded"):
        quality = one(reading, capacity="100%", miss=miss)
        row = summarise_quality(quality)
        assert row["misses"] == row["loads"] + row["dropped"] + row["substituted"]


def test_dropping_computes_what_is_left_with_the_weights_as_they_were(reading):
    """One token through a cold cache: of three experts, by weight, the last is dropped."""
    short = reading._replace(
        texts=reading.texts[:1, :2], exact=[jax.tree.map(lambda x: x[:1], reading.exact[0])]
    )
    params = (("miss.keep", "2"),)
    quality = one(short, capacity="9", miss="drop-priority", params=params)
    decoder = reading.structure.module(reading.weights)

    def two_of_three(layer, hidden, ids, weights):
        order = jnp.argsort(-weights, axis=1, stable=True)[:, :2]
        kept = [jnp.take_along_axis(values, order, axis=1) for values in (ids, weights)]
        return resident(reading.experts, CONFIG)(layer, hidden, *kept)

    made = decoder(jnp.asarray(short.texts[:, :-1]), two_of_three)
    wanted = -jax.nn.log_softmax(made.logits[0, 0])[short.texts[0, 1]]
    np.testing.assert_allclose(quality.compared.nll[0, 0], wanted, atol=1e-5)
    assert quality.counts.dropped.sum() == 3


def test_low_bit_copies_compute_what_their_bits_say(reading):
    """Everything is a compulsory miss at the lowest precision: the model in int4 throughout."""
    wide = _wide(reading)
    quality = one(wide, capacity="100%", miss="fetch-lowest-bit", precision=("bf16", "int4"))
    rounded = tuple(dequantize(quantize(layer, "int4"), jnp.float32) for layer in wide.experts)
    decoder = wide.structure.module(wide.weights)
    made = decoder(jnp.asarray(wide.texts[:, :-1]), resident(rounded, wide.config))
    logs = jax.nn.log_softmax(made.logits)
    wanted = -np.take_along_axis(np.asarray(logs), wide.texts[:, 1:, None], axis=2)[..., 0]
    np.testing.assert_allclose(quality.compared.nll, wanted, atol=2e-5)


def _wide(reading: Reading) -> Reading:
    """Returns a reading by a model wide enough for groups of 64 weights."""
    config = small_olmoe(
        num_hidden_layers=2, num_experts=4, top_k=2, hidden_size=64, moe_intermediate_size=64,
        vocab_size=64, num_heads=2,
    )  # fmt: skip
    decoder, experts = small_decoder(config)
    structure, weights = take_apart(decoder)
    exact = []
    for text in reading.texts:
        made = decoder(jnp.asarray(text[None, :-1]), resident(experts, config))
        exact.append(Exact(made.logits[0], jnp.stack([gate.ids for gate in made.gates], axis=1)))
    return Reading(config, structure, weights, experts, reading.texts, exact)


@pytest.mark.parametrize("routing", ["cache-prior", "max-rank", "cumulative-mass"])
def test_bent_routing_raises_hits_and_costs_something(reading, routing):
    straight, bent = one(reading, capacity="12"), one(reading, capacity="12", routing=routing)
    assert bent.counts.hits.sum() > straight.counts.hits.sum()
    assert bent.counts.swapped.sum() > 0
    row = summarise_quality(bent)
    assert row["same_experts"] < 1 and row["kl"] > 0


def test_substitutes_take_the_weight_of_the_likeliest_missing():
    worth = jnp.asarray([5, 9, 7, 1, 7, 3], jnp.int32)
    substituted = jnp.asarray([1, 1, 0, 0, 0, 0], bool)
    stand_in = jnp.asarray([0, 0, 1, 0, 1, 0], bool)
    # Expert 1 is likelier than 0; of 2 and 4, alike, 2 stands first.
    np.testing.assert_array_equal(stand_ins(substituted, stand_in, worth), [4, 2, 2, 3, 4, 5])


@pytest.mark.parametrize(
    ("choice", "said"),
    [
        ({"eviction": "belady"}, "looks into the future"),
        ({"prefetch": "oracle"}, "looks into the future"),
        ({"start": "popular"}, "starts cold"),
        ({"prefetch": "previous", "lookahead": 3}, "outside 1..2"),
    ],
)
def test_what_cannot_be_run_is_refused(choice, said):
    with pytest.raises(InputError, match=said):
        check_quality(make_setup(Choice(**choice)), CONFIG)


def test_texts_are_cut_with_a_token_to_predict():
    texts = cut(np.arange(10), 3, 100)
    np.testing.assert_array_equal(texts, [[0, 1, 2, 3], [3, 4, 5, 6], [6, 7, 8, 9]])
    assert len(cut(np.arange(10), 3, 6)) == 2
    with pytest.raises(InputError, match="10 tokens"):
        cut(np.arange(10), 10, 100)


def test_the_interval_covers_the_mean_and_needs_two_texts():
    means = np.random.default_rng(0).normal(1.0, 0.1, 40)
    low, high = bootstrap(means, 0)
    assert low is not None and high is not None
    assert low < means.mean() < high and high - low < 0.1
    assert bootstrap(means[:1], 0) == (None, None)
