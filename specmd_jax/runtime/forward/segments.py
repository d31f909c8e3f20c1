"""The decoder cut at its gates, where the host may move experts.

A segment leads from one gate to the next: the experts of a layer are added to the stream, dense
layers passed, attention and the next gate computed. The first segment starts at the tokens, the
last ends at the logits. Each is one program, for a dispatch takes longer than a small layer;
barriers stand where `Decoder` has its parts, so that the bits are those of the resident model.
"""

from functools import partial
from itertools import pairwise
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Bool, Float, Int, Shaped

from specmd_jax.core.interned import Interned
from specmd_jax.models import Decoder, Gate
from specmd_jax.models.forward import Structure, take_apart
from specmd_jax.models.layers.kv_cache import Remembered, Span
from specmd_jax.runtime.gates.message import MessageLayout
from specmd_jax.runtime.gates.scores import ask_gate
from specmd_jax.runtime.offload.ffn import (
    Blocks,
    FfnSpec,
    combine,
    compute_arrived,
    compute_rest,
    cut,
    lay_out,
)
from specmd_jax.runtime.offload.pages import Memory

Pasts = tuple[Remembered, ...]


class SegmentOutput(NamedTuple):
    """What a segment makes."""

    stream: Float[Array, "B S H"]
    pasts: Pasts  # of the segment's own layers
    gate: Gate | None  # at which it ends
    blocks: Blocks | None  # of what it chose, nothing computed
    message: Int[Array | np.ndarray, "1 T M"] | None  # from it
    logits: Float[Array, "B S V"] | None  # of the last segment


class Segment(NamedTuple):
    """The parts of one segment, without their weights. Hashable: static to jit."""

    embeds: Structure | None
    finishes: Structure | None
    attends: tuple[Structure, ...]
    foresees: tuple[Structure, ...]
    unembeds: Structure | None
    layout: MessageLayout  # of its gate's message

    def begin(
        self, weights: "SegmentWeights", tokens: Int[Array, "B S"], span: Span, pasts: Pasts
    ) -> SegmentOutput:
        """Runs the segment that starts at the tokens; to be traced."""
        assert self.embeds is not None
        stream = cut(self.embeds.module(weights.ends).embed(tokens))
        return self._on(weights, stream, span, pasts)

    def run(
        self,
        weights: "SegmentWeights",
        stream: Float[Array, "B S H"],
        hidden: Float[Array, "T H"],
        out: Float[Array, "T H"],
        span: Span,
        pasts: Pasts,
    ) -> SegmentOutput:
        """Runs a segment that starts at a gate, whose experts made `out`; to be traced."""
        assert self.finishes is not None
        stream = cut(self.finishes.module(weights.finishes).finish(stream, hidden, out))
        return self._on(weights, stream, span, pasts)

    def _on(
        self, weights: "SegmentWeights", stream: Float[Array, "B S H"], span: Span, pasts: Pasts
    ) -> SegmentOutput:
        kept, gate, logits = [], None, None
        for part, own, past in zip(self.attends, weights.attends, pasts, strict=True):
            stream, remembered, gate = cut(part.module(own).attend(stream, span, past))
            kept.append(remembered)
        if self.unembeds is not None:
            logits = self.unembeds.module(weights.ends).unembed(stream)
        if gate is None:
            return SegmentOutput(stream, tuple(kept), None, None, None, logits)
        message = self._message(weights, gate)
        return SegmentOutput(stream, tuple(kept), gate, lay_out(gate), message, logits)

    def _message(self, weights: "SegmentWeights", gate: Gate) -> Int[Array, "1 T M"]:
        foreseen = None
        if self.layout.lookahead:
            parts = zip(self.foresees, weights.foresees, strict=True)
            ahead = [ask_gate(part.module(own), gate.hidden) for part, own in parts]
            past_end = [jnp.zeros_like(gate.logits)] * (self.layout.lookahead - len(ahead))
            foreseen = jnp.stack([*ahead, *past_end], axis=1)
        return self.layout.write(gate, foreseen)[None]


class SegmentWeights(NamedTuple):
    """The weights of a segment's parts."""

    ends: list[Array]
    finishes: list[Array]
    attends: list[list[Array]]
    foresees: list[list[Array]]


class Segments:
    """The segments of a decoder. Those of one structure share a program."""

    def __init__(self, decoder: Decoder, layout: MessageLayout):
        """Cuts it up.

        Args:
          decoder: all of the model but its routed experts.
          layout: of the gates' messages; what they foresee is that of `seen.foresee`.
        """
        config = decoder.config
        gates = config.moe_layers
        layers = [take_apart(layer) for layer in decoder.layers]
        routers = [take_apart(decoder.layers[index].moe) for index in gates]
        ends, end_weights = take_apart(_without_layers(decoder))
        stops = [0, *(index + 1 for index in gates), config.spec.num_hidden_layers]
        self._ranges = [slice(*pair) for pair in pairwise(stops)]
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
        self._joined: dict[
            tuple[Interned[Segment], Interned[FfnSpec]], Interned[tuple[Segment, Interned[FfnSpec]]]
        ] = {}

    def layers_of(self, segment: int) -> slice:
        """Returns the decoder layers whose attention is in a segment."""
        return self._ranges[segment]

    def begin(self, tokens: Int[Array, "B S"], span: Span, pasts: Pasts) -> SegmentOutput:
        """Runs the first segment; the memory of `pasts` is reused."""
        return _begin(*self._segments[0], tokens, span, pasts)

    def run(
        self,
        segment: int,
        stream: Float[Array, "B S H"],
        hidden: Float[Array, "T H"],
        out: Float[Array, "T H"],
        span: Span,
        pasts: Pasts,
    ) -> SegmentOutput:
        """Runs the segment after a gate, whose experts made `out`; reuses the memory of `pasts`."""
        return _run(*self._segments[segment], stream, hidden, out, span, pasts)

    def run_resident(
        self,
        segment: int,
        ffn: Interned[FfnSpec],
        stream: Float[Array, "B S H"],
        gate: Gate,
        blocks: Blocks,
        slots: Memory,
        pages: Int[Array | np.ndarray, "N pages"],
        due: Bool[Array | np.ndarray, " N"],
        span: Span,
        pasts: Pasts,
    ) -> SegmentOutput:
        """Runs the segment after a gate whose experts are all in slots, and the experts with it."""
        both, weights = self._with(segment, ffn)
        return _run_resident(both, weights, stream, gate, blocks, slots, pages, due, span, pasts)

    def run_last_load(
        self,
        segment: int,
        ffn: Interned[FfnSpec],
        stream: Float[Array, "B S H"],
        gate: Gate,
        blocks: Blocks,
        row: Shaped[Array, " P"],
        expert: Int[Array | np.ndarray, ""] | np.int32,
        span: Span,
        pasts: Pasts,
    ) -> SegmentOutput:
        """Runs the segment after a gate of whose experts one is left, and that one with it."""
        both, weights = self._with(segment, ffn)
        return _run_last_load(both, weights, stream, gate, blocks, row, expert, span, pasts)

    def _with(
        self, segment: int, ffn: Interned[FfnSpec]
    ) -> tuple[Interned[tuple[Segment, Interned[FfnSpec]]], SegmentWeights]:
        static, weights = self._segments[segment]
        if (static, ffn) not in self._joined:
            self._joined[static, ffn] = Interned((static.value, ffn))
        return self._joined[static, ffn], weights


def _without_layers(decoder: Decoder) -> Decoder:
    ends = nnx.clone(decoder)
    ends.layers = nnx.List([])
    return ends


@partial(jax.jit, static_argnums=0, donate_argnames="pasts")
def _begin(segment, weights, tokens, span, pasts):
    return segment.value.begin(weights, tokens, span, pasts)


@partial(jax.jit, static_argnums=0, donate_argnames="pasts")
def _run(segment, weights, stream, hidden, out, span, pasts):
    return segment.value.run(weights, stream, hidden, out, span, pasts)


@partial(jax.jit, static_argnums=0, donate_argnames="pasts")
def _run_resident(both, weights, stream, gate, blocks, slots, pages, due, span, pasts):
    segment, ffn = both.value
    out = compute_rest(ffn.value, blocks, gate.weights, slots, pages, due)
    return segment.run(weights, stream, gate.hidden, out, span, pasts)


@partial(jax.jit, static_argnums=0, donate_argnames="pasts")
def _run_last_load(both, weights, stream, gate, blocks, row, expert, span, pasts):
    segment, ffn = both.value
    blocks = cut(compute_arrived(ffn.value, blocks, row, expert))
    out = cut(combine(blocks, gate.weights))
    return segment.run(weights, stream, gate.hidden, out, span, pasts)
