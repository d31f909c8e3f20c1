"""A whole pass dispatched at once, as if all experts it will ask for were in slots.

The programs of the layer-by-layer path are run as one, with barriers where they are cut there, so
that both come to the same bits. What each gate chose is looked at afterwards; from the first layer
that did not find its experts, the pass goes on layer by layer.
"""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from specmd_jax.core.interned import Interned
from specmd_jax.models import Decoder, Gate, KvCache
from specmd_jax.models.forward import Structure
from specmd_jax.models.layers.kv_cache import Remembered, Span
from specmd_jax.runtime.gates.message import MessageLayout
from specmd_jax.runtime.gates.scores import foresee
from specmd_jax.runtime.offload.ffn import FfnSpec, compute_all, cut
from specmd_jax.runtime.offload.pages import Memory


class WholePass(NamedTuple):
    """What a whole pass came to, if every expert was there."""

    logits: Float[Array, "B S V"]
    cache: KvCache
    streams: Float[Array, "L B S H"]  # at the gate of each MoE layer
    gates: Gate  # of all of them, stacked
    messages: Int[Array, "L T M"]  # of the gates


@partial(jax.jit, static_argnums=(0, 1, 2), donate_argnames="pasts")
def run_whole(
    structure: Structure,
    ffn: Interned[FfnSpec],
    layout: MessageLayout,
    weights: list[Array],
    slots: Memory,
    pages: Int[Array, "L N"],
    tokens: Int[Array, "B S"],
    span: Span,
    pasts: tuple[Remembered, ...],
) -> WholePass:
    """Runs a pass on what is in slots; whatever is not computes nonsense.

    Args:
      structure: of the decoder, with `weights`.
      ffn: how the experts are read and computed, which are of one precision.
      layout: of the gates' messages.
      slots: the memory of all slots.
      pages: slot of each expert, negative if it has none.
      tokens: of the pass.
      span: where they stand.
      pasts: what each layer remembers; its memory is reused.
    """
    decoder: Decoder = structure.module(weights)
    all_experts = jnp.ones(pages.shape[1], bool)
    stream, kept, streams, gates = cut(decoder.embed(tokens)), [], [], []
    for index, layer in enumerate(decoder.layers):
        stream, remembered, gate = cut(layer.attend(stream, span, pasts[index]))
        kept.append(remembered)
        if gate is None:
            continue
        here = jnp.maximum(pages[len(gates)], 0)[:, None]
        out = compute_all(ffn.value, gate, slots, here, all_experts)
        streams.append(stream)
        gates.append(gate)
        stream = cut(layer.finish(stream, gate.hidden, out))
    after = KvCache(tuple(kept), span.after(tokens.shape[1]))
    stacked = jax.tree.map(lambda *parts: jnp.stack(parts), *gates)
    messages = _messages(decoder, gates, layout)
    return WholePass(decoder.unembed(stream), after, jnp.stack(streams), stacked, messages)


def _messages(decoder: Decoder, gates: list[Gate], layout: MessageLayout) -> Int[Array, "L T M"]:
    foreseen = [None] * len(gates)
    if layout.lookahead:
        hidden = [gate.hidden for gate in gates]
        foreseen = list(foresee(decoder, hidden, layout.lookahead).swapaxes(0, 1))
    return jnp.stack([layout.write(*pair) for pair in zip(gates, foreseen, strict=True)])
