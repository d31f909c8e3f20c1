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
from specmd_jax.runtime.offload.ffn import FfnSpec, InSlots, barrier, finish_layer, lay_out
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

    def serve(
        streams: tuple[Array, ...], layer: int, stream: Float[Array, "B S H"], gate: Gate
    ) -> tuple[tuple[Array, ...], Float[Array, "T H"]]:
        left = InSlots(slots, jnp.maximum(pages[layer], 0)[:, None], all_experts)
        out = finish_layer(ffn.value, barrier(lay_out(gate)), gate.weights, left)
        return (*streams, stream), out

    none: tuple[Array, ...] = ()
    done, streams = decoder.run(tokens, KvCache(pasts, span), serve, none, barrier)
    assert done.cache is not None
    messages = [
        layout.write(gate, decoder.blocks_after(layer, layout.lookahead))
        for layer, gate in enumerate(done.gates)
    ]
    gates = jax.tree.map(lambda *parts: jnp.stack(parts), *done.gates)
    return WholePass(done.logits, done.cache, jnp.stack(streams), gates, jnp.stack(messages))
