"""The feed-forward of a MoE layer over a buffer of slots."""

from functools import cache, partial

import jax
import jax.numpy as jnp
from jax.custom_batching import custom_vmap
from jaxtyping import Array, Float, Int

from specmd_kernels.dispatch import Implementation, call
from specmd_kernels.slot_ffn.slots import SWIGLU, Activation, Slots


def slot_ffn(
    hidden: Float[Array, "T H"],
    slots: Int[Array, "T K"],
    weights: Float[Array, "T K"],
    experts: Slots,
    *,
    activation: Activation = SWIGLU,
    implementation: Implementation | None = None,
) -> Float[Array, "T H"]:
    """Returns the weighted sum of what each token's experts make of it.

    Equivalent to `reference.slot_ffn`. No expert is copied and none is padded to another's load.
    Products have the precision of `hidden`, sums are in float32. A batch of calls on one buffer
    (`jax.vmap`) is one call on more tokens; there is no derivative.

    Args:
      hidden: tokens at the gate.
      slots: where the chosen experts of each token lie, -1 for none; an expert may be repeated.
      weights: of each choice; not read where the slot is -1.
      experts: the buffer, in floats or packed.
      activation: SwiGLU, or gpt-oss's.
      implementation: see `dispatch.call`.

    Raises:
      NotImplementedError: the implementation asked for by name declines these shapes or types.
    """
    if 0 in slots.shape:
        return jnp.zeros_like(hidden)
    return _batched(implementation, activation)(hidden, slots, weights, experts)


@cache  # so that calls outside of `jit` are traced once
def _batched(implementation: Implementation | None, activation: Activation):
    compute = partial(call, "slot_ffn", implementation, activation)

    @custom_vmap
    def run(hidden, slots, weights, experts):
        return compute(hidden, slots, weights, experts)

    @run.def_vmap
    def many(size, batched, hidden, slots, weights, experts):
        tokens = [hidden, slots, weights]
        tokens = [
            one if is_batched else jnp.broadcast_to(one, (size, *one.shape))
            for one, is_batched in zip(tokens, batched[:3], strict=True)
        ]
        if any(jax.tree.leaves(batched[3])):
            return _one_by_one(run, size, batched[3], tokens, experts), True
        flat = [one.reshape(-1, one.shape[-1]) for one in tokens]
        return run(*flat, experts).reshape(tokens[0].shape), True

    return run


def _one_by_one(run, size: int, batched: Slots, tokens: list[Array], experts: Slots) -> Array:
    """Each call has its own buffer: nothing can be shared."""
    spread = jax.tree.map(
        lambda leaf, is_batched: (
            leaf if is_batched else jnp.broadcast_to(leaf, (size, *leaf.shape))
        ),
        experts,
        batched,
    )
    return jax.lax.map(lambda one: run(*one), (*tokens, spread))
