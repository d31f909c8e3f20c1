"""The kernel that TPU and GPU share: a block of tokens, all experts, everything in registers.

There is no sort and no lookup. The best expert is found and masked out, k times over: for so
few experts that is less work than one pass through a sorting network, and each step is a maximum
over lanes.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jaxtyping import Array, Bool, Float, Int

from specmd_kernels.gate_topk.types import GateChoice, GateRule


def run(
    rule: GateRule,
    scalars: Float[Array, "2"],
    logits: Float[Array, "T N"],
    resident: Bool[Array, " N"],
    next_logits: Float[Array, "T N"] | None,
    *,
    rows: int,
    whole: Callable[[int], int],
    scalar_spec: pl.BlockSpec,
    **options: Any,
) -> GateChoice:
    """Cuts the tokens into blocks and runs the kernel on each.

    Args:
      rule: top-k, top-j and normalisation.
      scalars: the bonus of residents and the threshold of foresight.
      logits: of the gate.
      resident: experts that are on the device.
      next_logits: of the next gate by the same hidden states; None: nothing is foreseen.
      rows: tokens of a block.
      whole: the width that a backend wants in place of one, N or K.
      scalar_spec: where the bonus and the threshold lie.
      options: of `pallas_call`.
    """
    tokens, experts = logits.shape
    blocks, width, top_k = -(-tokens // rows), whole(experts), whole(rule.top_k)

    def padded(values: Float[Array, "T N"]) -> Float[Array, "padded width"]:
        pad = (0, blocks * rows - tokens), (0, width - experts)
        return jnp.pad(values.astype(jnp.float32), pad, constant_values=-jnp.inf)

    favoured = jnp.pad(resident.astype(jnp.int32), (0, width - experts))[None]
    gates = [padded(one) for one in (logits, next_logits) if one is not None]
    by_token = pl.BlockSpec((rows, width), lambda block: (block, 0))
    by_choice = pl.BlockSpec((rows, top_k), lambda block: (block, 0))
    shapes = [(top_k, jnp.int32), (top_k, jnp.float32), (width, jnp.int32)]
    outputs = 1 + len(gates)  # the mask of the next layer only if there are logits of it
    found = pl.pallas_call(
        partial(_kernel, rule),
        grid=(blocks,),
        in_specs=[
            scalar_spec,
            pl.BlockSpec((1, width), lambda block: (0, 0)),
            [by_token] * len(gates),
        ],
        out_specs=[by_choice, by_choice, by_token][:outputs],
        out_shape=[
            jax.ShapeDtypeStruct((blocks * rows, size), kind) for size, kind in shapes[:outputs]
        ],
        name="gate_topk",
        **options,
    )(scalars[None], favoured, gates)
    ids, weights = (values[:tokens, : rule.top_k] for values in found[:2])
    ahead = None if next_logits is None else found[2][:tokens, :experts] > 0
    return GateChoice(ids, weights, ahead)


def _kernel(
    rule: GateRule, scalars_ref, resident_ref, gates, ids_ref, weights_ref, ahead_ref=None
) -> None:
    logits = gates[0][...]
    expert = jax.lax.broadcasted_iota(jnp.int32, logits.shape, 1)
    favoured = jnp.broadcast_to(resident_ref[...] > 0, logits.shape)
    favoured = favoured | (_place(logits, expert, rule.top_j) < rule.top_j)
    bent = logits + jnp.where(favoured, scalars_ref[0, 0], 0.0)
    place = _place(bent, expert, rule.top_k)
    _write(rule, expert, place, _softmax(logits), ids_ref, weights_ref)
    if ahead_ref is not None:
        likely = _softmax(gates[1][...]) > scalars_ref[0, 1]
        ahead_ref[...] = likely.astype(jnp.int32)


def _place(
    values: Float[Array, "rows N"], expert: Int[Array, "rows N"], top: int
) -> Int[Array, "rows N"]:
    """Returns the place of the best `top` of each row, from 0, and `top` for the rest."""
    place = jnp.full(values.shape, top, jnp.int32)
    for index in range(top):
        best = jnp.max(values, axis=1, keepdims=True)
        first = jnp.min(
            jnp.where((values == best) & (place == top), expert, values.shape[1]),
            axis=1,
            keepdims=True,
        )
        place = jnp.where(expert == first, index, place)
        values = jnp.where(expert == first, -jnp.inf, values)
    return place


def _write(
    rule: GateRule,
    expert: Int[Array, "rows N"],
    place: Int[Array, "rows N"],
    probs: Float[Array, "rows N"],
    ids_ref,
    weights_ref,
) -> None:
    column = jax.lax.broadcasted_iota(jnp.int32, ids_ref.shape, 1)
    ids, weights = jnp.zeros(ids_ref.shape, jnp.int32), jnp.zeros(ids_ref.shape, jnp.float32)
    for index in range(rule.top_k):
        chosen = place == index
        own = jnp.sum(jnp.where(chosen, expert, 0), axis=1, keepdims=True)
        weight = jnp.sum(jnp.where(chosen, probs, 0.0), axis=1, keepdims=True)
        ids = jnp.where(column == index, own, ids)
        weights = jnp.where(column == index, weight, weights)
    if rule.normalize:
        weights = weights / jnp.sum(weights, axis=1, keepdims=True)
    ids_ref[...] = ids
    weights_ref[...] = weights


def _softmax(logits: Float[Array, "rows N"]) -> Float[Array, "rows N"]:
    grown = jnp.exp(logits - jnp.max(logits, axis=1, keepdims=True))
    return grown / jnp.sum(grown, axis=1, keepdims=True)
