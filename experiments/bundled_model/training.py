"""One training step of a mixture-of-experts decoder: next-token loss, balanced experts, AdamW."""

from functools import partial
from typing import Any, NamedTuple, cast

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from jaxtyping import Array, Float, Int

from specmd_jax.models import Decoder, DecoderConfig, ExpertWeights, Gate, init_experts, trainable

ROUTER_Z = 0.001  # weight of the router's z-loss, OLMoE's (arXiv 2409.02060, §4.1.6)


class Weights(NamedTuple):
    """All that is trained."""

    decoder: Any  # an nnx.State
    experts: tuple[ExpertWeights, ...]


class Losses(NamedTuple):
    """What one batch gave."""

    nll: Float[Array, ""]  # nats a token
    balance: Float[Array, ""]  # 1 if all experts are used alike
    router_z: Float[Array, ""]
    load: Float[Array, "L N"]  # share of each expert in its layer's choices


class Model(NamedTuple):
    """The parts of the model that training leaves alone."""

    config: DecoderConfig
    graph: nnx.GraphDef[Decoder]


def init(config: DecoderConfig, seed: int) -> tuple[Model, Weights]:
    """Returns a model with random weights.

    What each block adds to the residual stream starts smaller by sqrt(2 L), as in GPT-2.
    """
    decoder = Decoder(config, nnx.Rngs(seed))
    experts = init_experts(config, jax.random.key(seed))
    shrink = (2 * config.spec.num_hidden_layers) ** -0.5
    for layer in decoder.layers:
        kernel = layer.attention.out.kernel
        kernel[...] = shrink * kernel[...]
    experts = tuple(layer._replace(down=shrink * layer.down) for layer in experts)
    graph, state = nnx.split(decoder)
    return Model(config, graph), Weights(nnx.to_pure_dict(state), experts)


def decoder_of(model: Model, weights: Weights) -> Decoder:
    """Returns the decoder with trained weights."""
    abstract = nnx.eval_shape(lambda: Decoder(model.config, nnx.Rngs(0)))
    graph, state = nnx.split(abstract)
    nnx.replace_by_pure_dict(state, weights.decoder)
    return nnx.merge(graph, state)


def losses(model: Model, weights: Weights, tokens: Int[Array, "B S"]) -> Losses:
    """Returns the losses of predicting every token of a batch but the first ones."""
    decoder = decoder_of(model, weights)
    made = decoder(tokens[:, :-1], trainable(weights.experts, model.config))
    nll = optax.softmax_cross_entropy_with_integer_labels(made.logits, tokens[:, 1:])
    per_layer = [_router_losses(gate) for gate in made.gates]
    balance, router_z, load = (jnp.stack(values) for values in zip(*per_layer, strict=True))
    return Losses(nll.mean(), balance.mean(), router_z.mean(), load)


def _router_losses(gate: Gate) -> tuple[Array, Array, Array]:
    """Returns balance (Switch, arXiv 2101.03961, Eq. 4), z (ST-MoE, 2202.08906, Eq. 5), load."""
    num_experts = gate.logits.shape[-1]
    load = jnp.bincount(gate.ids.reshape(-1), length=num_experts) / gate.ids.size
    probability = jax.nn.softmax(gate.logits, axis=-1).mean(axis=0)
    router_z = jnp.square(jax.nn.logsumexp(gate.logits, axis=-1)).mean()
    return num_experts * jnp.sum(load * probability), router_z, load


def optimizer(peak: float, steps: int) -> optax.GradientTransformation:
    """Returns AdamW whose rate rises, stays, and falls to zero over the last third."""
    warmup, decay = max(steps // 50, 1), steps // 3
    rate = optax.join_schedules(
        [
            optax.linear_schedule(0.0, peak, warmup),
            optax.constant_schedule(peak),
            optax.linear_schedule(peak, 0.02 * peak, decay),
        ],
        [warmup, steps - decay],
    )
    return optax.chain(
        optax.clip_by_global_norm(1.0),
        optax.adamw(rate, b1=0.9, b2=0.95, weight_decay=0.1, mask=_decayed),
    )


def _decayed(weights: Weights) -> Weights:
    return jax.tree.map(lambda leaf: leaf.ndim > 1, weights)


@partial(jax.jit, static_argnums=(0, 1), donate_argnums=(2, 3))
def train_step(
    model: Model,
    optimize: optax.GradientTransformation,
    weights: Weights,
    state: optax.OptState,
    tokens: Int[Array, "B S"],
    balance: float,
) -> tuple[Weights, optax.OptState, Losses]:
    """Returns the weights and the optimizer's state after one step, and its losses.

    Args:
      balance: weight of the load-balancing loss.
    """

    def total(weights: Weights) -> tuple[Array, Losses]:
        each = losses(model, weights, tokens)
        return each.nll + balance * each.balance + ROUTER_Z * each.router_z, each

    gradients, each = jax.grad(total, has_aux=True)(weights)
    updates, state = optimize.update(gradients, state, cast(Any, weights))
    return cast(Weights, optax.apply_updates(cast(Any, weights), updates)), state, each


@partial(jax.jit, static_argnums=0)
def held_out_losses(model: Model, weights: Weights, tokens: Int[Array, "B S"]) -> Losses:
    """Returns the losses without a step."""
    return losses(model, weights, tokens)
