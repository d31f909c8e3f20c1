"""Laws of the decoder: caches, chunks, padding and the ways to compute experts change nothing.

Takes about 15 s.
"""

from functools import partial

import jax
import jax.numpy as jnp
import pytest
from flax import nnx

from specmd_jax.models import ExpertWeights, empty_cache, resident, trainable
from specmd_jax.models.experts.dispatch import all_blocks, in_blocks
from specmd_jax.models.experts.weights import apply_expert
from specmd_kernels import Activation
from tests.models.small import CONFIG, differ, small_decoder, tokens

pytestmark = pytest.mark.matrix

EXACT = 1e-5  # of logits around 2, in float32


@pytest.fixture(scope="module")
def model():
    """A pure forward pass over small weights: (tokens, cache) -> Pass."""
    decoder, experts = small_decoder()
    graph, state = nnx.split(decoder)

    @jax.jit
    def forward(state, experts, tokens, cache):
        return nnx.merge(graph, state)(tokens, resident(experts, CONFIG), cache)

    return lambda tokens, cache=None: forward(state, experts, tokens, cache)


@pytest.mark.parametrize("chunks", [(24,), (8, 8, 8), (20, 1, 1, 1, 1), (1,) * 24])
def test_a_cache_filled_in_any_chunks_gives_the_logits_of_one_pass(model, chunks):
    prompt = tokens(2, 24)
    cache, logits, start = empty_cache(CONFIG, 2, 30), [], 0
    for length in chunks:
        after = model(prompt[:, start : start + length], cache)
        cache, start = after.cache, start + length
        logits.append(after.logits)
    assert differ(jnp.concatenate(logits, axis=1), model(prompt).logits) < EXACT


def test_padding_on_the_left_changes_nothing(model):
    prompts = [tokens(1, 9), tokens(1, 4)[:, :4], tokens(1, 7)]
    padding = jnp.array([9 - prompt.shape[1] for prompt in prompts])
    padded = jnp.concatenate([jnp.pad(p, ((0, 0), (9 - p.shape[1], 0))) for p in prompts])
    together = model(padded, empty_cache(CONFIG, 3, 12, padding))
    for row, prompt in enumerate(prompts):
        alone = model(prompt)
        assert differ(together.logits[row, padding[row] :], alone.logits[0]) < EXACT


def test_padding_chooses_no_expert(model):
    padded = model(tokens(2, 6), empty_cache(CONFIG, 2, 6, jnp.array([0, 4])))
    for gate in padded.gates:
        ids, weights = gate.ids.reshape(2, 6, -1), gate.weights.reshape(2, 6, -1)
        assert (ids[1, :4] == -1).all() and (weights[1, :4] == 0).all()
        assert (ids[0] >= 0).all() and (ids[1, 4:] >= 0).all() and (weights[0] > 0).all()


def test_gates_are_those_of_the_weights(model):
    decoder, _ = small_decoder()
    gates = model(tokens(1, 5)).gates
    assert len(gates) == CONFIG.spec.num_moe_layers
    for layer, gate in zip(decoder.layers, gates, strict=True):
        logits = gate.hidden @ layer.moe.gate.kernel[...]
        assert differ(logits, gate.logits) < EXACT
        probs = jnp.sort(jax.nn.softmax(gate.logits), axis=-1, descending=True)
        assert differ(probs[:, : CONFIG.spec.top_k], gate.weights) < EXACT


def test_a_later_token_changes_no_earlier_logits(model):
    prompt = tokens(1, 12)
    changed = prompt.at[0, 8].add(1)
    assert differ(model(prompt).logits[:, :8], model(changed).logits[:, :8]) == 0
    assert differ(model(prompt).logits[:, 8:], model(changed).logits[:, 8:]) > 1e-3


def test_the_trainable_forward_equals_the_resident_one_and_every_weight_has_a_gradient():
    decoder, experts = small_decoder()
    graph, state = nnx.split(decoder)
    batch = tokens(4, 16)

    @partial(jax.jit, static_argnums=1)
    def logits(weights, experts_of):
        return nnx.merge(graph, weights[0])(batch, experts_of(weights[1], CONFIG)).logits

    weights = (state, experts)
    assert differ(logits(weights, trainable), logits(weights, resident)) < EXACT
    gradient = jax.jit(jax.grad(lambda weights: jnp.sum(logits(weights, trainable) ** 2)))(weights)
    assert all(bool(jnp.isfinite(leaf).all()) for leaf in jax.tree.leaves(gradient))
    assert all(bool((leaf != 0).any()) for leaf in jax.tree.leaves(gradient))


def dense(experts, hidden, ids, weights, activation):
    """The definition: every expert computes every token, unchosen ones with weight 0."""
    outs = jax.vmap(lambda expert: apply_expert(expert, hidden, activation))(experts)
    chosen = jax.nn.one_hot(ids, outs.shape[0]) * weights[..., None]  # -1 is nobody
    return jnp.einsum("tkn,nth->th", chosen, outs)


@pytest.mark.parametrize(
    ("length", "top_k", "bias"),
    [(1, 1, False), (1, 4, True), (7, 2, True), (70, 3, False), (200, 1, True)],
)
def test_every_way_to_compute_experts_equals_the_definition(length, top_k, bias):
    keys = jax.random.split(jax.random.key(length), 7)
    many, size, width = 6, 8, 5
    experts = ExpertWeights(
        jax.random.normal(keys[0], (many, size, 2 * width)),
        jax.random.normal(keys[1], (many, width, size)),
        jax.random.normal(keys[2], (many, 2 * width)) if bias else None,
        jax.random.normal(keys[3], (many, size)) if bias else None,
    )
    hidden = jax.random.normal(keys[4], (length, size))
    weights = jax.random.uniform(keys[5], (length, top_k))
    ids = jnp.argsort(jax.random.uniform(keys[6], (length, many)))[:, :top_k]
    ids = jnp.where(weights < 0.1, -1, ids)  # some tokens choose fewer
    weights = jnp.where(ids < 0, 0.0, weights)
    activation = Activation(limit=2.0, slope=1.7, offset=1.0) if bias else Activation()
    wanted = dense(experts, hidden, ids, weights, activation)
    for way in (in_blocks, all_blocks):
        found = jax.jit(way, static_argnums=4)(experts, hidden, ids, weights, activation)
        assert differ(found, wanted) < 1e-4, way
