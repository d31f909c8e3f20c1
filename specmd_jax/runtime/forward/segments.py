"""The decoder cut at its gates, where the host may move experts.

A segment leads from one gate to the next: the experts of a layer are added to the stream, dense
layers passed, attention and the next gate computed. The first segment starts at the tokens, the
last ends at the logits. Each is one program, for a dispatch takes longer than a small layer;
barriers stand where `Decoder` has its parts, so that the bits are those of the resident model.
"""

from functools import partial
from typing import NamedTuple

import jax
import numpy as np
from flax import nnx
from jaxtyping import Array, Float, Int

from specmd_jax.core.interned import Interned
from specmd_jax.models import Decoder, Gate
from specmd_jax.models.decoder import attend_to_gate
from specmd_jax.models.forward import Structure, take_apart
from specmd_jax.models.layers.kv_cache import Remembered, Span
from specmd_jax.runtime.gates.message import MessageLayout
from specmd_jax.runtime.offload.ffn import (
    Blocks,
    FfnSpec,
    InRow,
    InSlots,
    barrier,
    finish_layer,
    lay_out,
)

Pasts = tuple[Remembered, ...]


class AtGate(NamedTuple):
    """Where a segment ends and the next one starts: a MoE layer whose gate has chosen."""

    stream: Float[Array, "B S H"]
    gate: Gate
    blocks: Blocks  # of what it chose, and what of them has been computed


class ExpertsOut(NamedTuple):
    """Nothing is left to compute of a layer: its experts made this."""

    out: Float[Array, "T H"]


Left = ExpertsOut | InSlots | InRow


class SegmentOutput(NamedTuple):
    """What a segment makes."""

    pasts: Pasts  # of the segment's own layers
    at: AtGate | None
    message: Int[Array | np.ndarray, "1 T M"] | None  # of the gate
    logits: Float[Array, "B S V"] | None  # of the last segment


class SegmentWeights(NamedTuple):
    """The weights of a segment's parts."""

    ends: list[Array]
    finishes: list[Array]
    attends: list[list[Array]]
    foresees: list[list[Array]]


class Segment(NamedTuple):
    """The parts of one segment, without their weights. Hashable: static to jit."""

    embeds: Structure | None
    finishes: Structure | None
    attends: tuple[Structure, ...]
    foresees: tuple[Structure, ...]
    unembeds: Structure | None
    layout: MessageLayout  # of its gate's message

    def embed(self, weights: SegmentWeights, tokens: Int[Array, "B S"]) -> Float[Array, "B S H"]:
        """Returns the stream with which the first segment starts; to be traced."""
        assert self.embeds is not None
        return barrier(self.embeds.module(weights.ends).embed(tokens))

    def finish(
        self, weights: SegmentWeights, start: AtGate, out: Float[Array, "T H"]
    ) -> Float[Array, "B S H"]:
        """Returns the stream behind the gate at which the others start; to be traced."""
        assert self.finishes is not None
        layer = self.finishes.module(weights.finishes)
        return barrier(layer.finish(start.stream, start.gate.hidden, out))

    def run(
        self, weights: SegmentWeights, stream: Float[Array, "B S H"], span: Span, pasts: Pasts
    ) -> SegmentOutput:
        """Runs all that is behind its start; to be traced.

        Args:
          weights: of its parts.
          stream: with which it starts.
          span: where the tokens stand.
          pasts: what its layers remember.
        """
        layers = [part.module(own) for part, own in zip(self.attends, weights.attends, strict=True)]
        stream, kept, gate = attend_to_gate(layers, stream, span, pasts, barrier)
        if gate is None:
            assert self.unembeds is not None
            logits = self.unembeds.module(weights.ends).unembed(stream)
            return SegmentOutput(kept, None, None, logits)
        ahead = [
            part.module(own) for part, own in zip(self.foresees, weights.foresees, strict=True)
        ]
        message = self.layout.write(gate, ahead)[None]
        return SegmentOutput(kept, AtGate(stream, gate, lay_out(gate)), message, None)


class Segments:
    """The segments of a decoder. Those of one structure share a program."""

    def __init__(self, decoder: Decoder, layout: MessageLayout):
        """Cuts it up.

        Args:
          decoder: all of the model but its routed experts.
          layout: of the gates' messages.
        """
        self._ranges = decoder.config.segments
        gates = decoder.config.moe_layers
        layers = [take_apart(layer) for layer in decoder.layers]
        routers = [take_apart(decoder.layers[index].moe) for index in gates]
        ends, end_weights = take_apart(_without_layers(decoder))
        self._segments: list[tuple[Interned[Segment], SegmentWeights]] = []
        for number, own in enumerate(self._ranges):
            first, last = number == 0, number == len(gates)
            ahead = [] if last else routers[number + 1 : number + 1 + layout.lookahead]
            left = None if first else layers[gates[number - 1]]
            segment = Segment(
                embeds=ends if first else None,
                finishes=left[0] if left else None,
                attends=tuple(part for part, _ in layers[own]),
                foresees=tuple(part for part, _ in ahead),
                unembeds=ends if last else None,
                layout=layout,
            )
            weights = SegmentWeights(
                end_weights if first or last else [],
                left[1] if left else [],
                [weights for _, weights in layers[own]],
                [weights for _, weights in ahead],
            )
            self._segments.append((Interned(segment), weights))

    def layers_of(self, segment: int) -> slice:
        """Returns the decoder layers whose attention is in a segment."""
        return self._ranges[segment]

    def begin(self, tokens: Int[Array, "B S"], span: Span, pasts: Pasts) -> SegmentOutput:
        """Runs the first segment; the memory of `pasts` is reused."""
        return _begin(*self._segments[0], tokens, span, pasts)

    def run(
        self,
        number: int,
        ffn: Interned[FfnSpec] | None,
        start: AtGate,
        left: Left,
        span: Span,
        pasts: Pasts,
    ) -> SegmentOutput:
        """Runs a segment that starts at a gate, and with it what is left of the gate's experts.

        Args:
          number: of the segment.
          ffn: how those experts are read and computed; None where none is left.
          start: the gate.
          left: what is left, and where.
          span: where the tokens stand.
          pasts: what the segment's layers remember; the memory is reused.
        """
        segment, weights = self._segments[number]
        return _run(segment, ffn, weights, start, left, span, pasts)


def _without_layers(decoder: Decoder) -> Decoder:
    ends = nnx.clone(decoder)
    ends.layers = nnx.List([])
    return ends


@partial(jax.jit, static_argnums=0, donate_argnames="pasts")
def _begin(
    segment: Interned[Segment],
    weights: SegmentWeights,
    tokens: Int[Array, "B S"],
    span: Span,
    pasts: Pasts,
) -> SegmentOutput:
    return segment.value.run(weights, segment.value.embed(weights, tokens), span, pasts)


@partial(jax.jit, static_argnums=(0, 1), donate_argnames="pasts")
def _run(
    segment: Interned[Segment],
    ffn: Interned[FfnSpec] | None,
    weights: SegmentWeights,
    start: AtGate,
    left: Left,
    span: Span,
    pasts: Pasts,
) -> SegmentOutput:
    if isinstance(left, ExpertsOut):
        out = left.out
    else:
        assert ffn is not None
        out = finish_layer(ffn.value, start.blocks, start.gate.weights, left)
    return segment.value.run(weights, segment.value.finish(weights, start, out), span, pasts)
