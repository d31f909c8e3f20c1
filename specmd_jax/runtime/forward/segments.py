"""The decoder cut at its gates, where the host may move experts.

A leg leads from one gate to the next: the experts of a layer are added to the stream, dense layers
passed, attention and the next gate computed. The first leg starts at the tokens, the last ends at
the logits. Each is one program, for a dispatch takes longer than a small layer; barriers stand
where `Decoder` has its parts, so that the bits are those of the resident model.
"""

from functools import partial
from itertools import pairwise
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Bool, Float, Int, Shaped

from specmd_jax.core.interned import Static
from specmd_jax.models import Decoder, Gate
from specmd_jax.models.forward import Structure, take_apart
from specmd_jax.models.layers.kv_cache import Remembered, Span
from specmd_jax.runtime.gates.message import Form
from specmd_jax.runtime.gates.scores import ask_gate
from specmd_jax.runtime.offload.ffn import (
    Blocks,
    How,
    combine,
    compute_arrived,
    compute_rest,
    cut,
    lay_out,
)
from specmd_jax.runtime.offload.pages import Memory

Pasts = tuple[Remembered, ...]


class Arrival(NamedTuple):
    """What a leg comes to."""

    stream: Float[Array, "B S H"]
    pasts: Pasts  # of the leg's own layers
    gate: Gate | None  # at which it ends
    blocks: Blocks | None  # of what it chose, nothing computed
    message: Int[Array | np.ndarray, "1 T M"] | None  # from it
    logits: Float[Array, "B S V"] | None  # of the last leg


class Leg(NamedTuple):
    """The parts of one leg, without their weights. Hashable: static to jit."""

    embeds: Structure | None
    finishes: Structure | None
    attends: tuple[Structure, ...]
    foresees: tuple[Structure, ...]
    unembeds: Structure | None
    form: Form  # of its gate's message; what it foresees: `foresees`, and none past the last layer

    def begin(
        self, weights: "LegWeights", tokens: Int[Array, "B S"], span: Span, pasts: Pasts
    ) -> Arrival:
        """Runs the leg that starts at the tokens; to be traced."""
        assert self.embeds is not None
        stream = cut(self.embeds.module(weights.ends).embed(tokens))
        return self._on(weights, stream, span, pasts)

    def go(
        self,
        weights: "LegWeights",
        stream: Float[Array, "B S H"],
        hidden: Float[Array, "T H"],
        out: Float[Array, "T H"],
        span: Span,
        pasts: Pasts,
    ) -> Arrival:
        """Runs a leg that starts at a gate, whose experts made `out`; to be traced."""
        assert self.finishes is not None
        stream = cut(self.finishes.module(weights.finishes).finish(stream, hidden, out))
        return self._on(weights, stream, span, pasts)

    def _on(
        self, weights: "LegWeights", stream: Float[Array, "B S H"], span: Span, pasts: Pasts
    ) -> Arrival:
        kept, gate, logits = [], None, None
        for part, own, past in zip(self.attends, weights.attends, pasts, strict=True):
            stream, remembered, gate = cut(part.module(own).attend(stream, span, past))
            kept.append(remembered)
        if self.unembeds is not None:
            logits = self.unembeds.module(weights.ends).unembed(stream)
        if gate is None:
            return Arrival(stream, tuple(kept), None, None, None, logits)
        message = self._message(weights, gate)
        return Arrival(stream, tuple(kept), gate, lay_out(gate), message, logits)

    def _message(self, weights: "LegWeights", gate: Gate) -> Int[Array, "1 T M"]:
        foreseen = None
        if self.form.lookahead:
            parts = zip(self.foresees, weights.foresees, strict=True)
            ahead = [ask_gate(part.module(own), gate.hidden) for part, own in parts]
            past_end = [jnp.zeros_like(gate.logits)] * (self.form.lookahead - len(ahead))
            foreseen = jnp.stack([*ahead, *past_end], axis=1)
        return self.form.write(gate, foreseen)[None]


class LegWeights(NamedTuple):
    """The weights of a leg's parts."""

    ends: list[Array]
    finishes: list[Array]
    attends: list[list[Array]]
    foresees: list[list[Array]]


class Legs:
    """The legs of a decoder. Those of one structure share a program."""

    def __init__(self, decoder: Decoder, form: Form):
        """Cuts it up.

        Args:
          decoder: all of the model but its routed experts.
          form: of the gates' messages; what they foresee is that of `seen.foresee`.
        """
        config = decoder.config
        gates = config.moe_layers
        layers = [take_apart(layer) for layer in decoder.layers]
        routers = [take_apart(decoder.layers[index].moe) for index in gates]
        ends, end_weights = take_apart(_without_layers(decoder))
        stops = [0, *(index + 1 for index in gates), config.spec.num_hidden_layers]
        self._ranges = [slice(*pair) for pair in pairwise(stops)]
        self._legs: list[tuple[Static[Leg], LegWeights]] = []
        for number, own in enumerate(self._ranges):
            first, last = number == 0, number == len(gates)
            ahead = [] if last else routers[number + 1 : number + 1 + form.lookahead]
            left = None if first else layers[gates[number - 1]]
            leg = Leg(
                embeds=ends if first else None,
                finishes=left[0] if left else None,
                attends=tuple(part for part, _ in layers[own]),
                foresees=tuple(part for part, _ in ahead),
                unembeds=ends if last else None,
                form=form,
            )
            weights = LegWeights(
                end_weights if first or last else [],
                left[1] if left else [],
                [weights for _, weights in layers[own]],
                [weights for _, weights in ahead],
            )
            self._legs.append((Static(leg), weights))
        self._joined: dict[tuple[Static[Leg], How], Static[tuple[Leg, How]]] = {}

    def layers_of(self, leg: int) -> slice:
        """Returns the decoder layers whose attention is in a leg."""
        return self._ranges[leg]

    def begin(self, tokens: Int[Array, "B S"], span: Span, pasts: Pasts) -> Arrival:
        """Runs the first leg; the memory of `pasts` is reused."""
        return _begin(*self._legs[0], tokens, span, pasts)

    def go(
        self,
        leg: int,
        stream: Float[Array, "B S H"],
        hidden: Float[Array, "T H"],
        out: Float[Array, "T H"],
        span: Span,
        pasts: Pasts,
    ) -> Arrival:
        """Runs the leg after a gate, whose experts made `out`; the memory of `pasts` is reused."""
        return _go(*self._legs[leg], stream, hidden, out, span, pasts)

    def go_held(
        self,
        leg: int,
        how: How,
        stream: Float[Array, "B S H"],
        gate: Gate,
        blocks: Blocks,
        slots: Memory,
        pages: Int[Array | np.ndarray, "N pages"],
        due: Bool[Array | np.ndarray, " N"],
        span: Span,
        pasts: Pasts,
    ) -> Arrival:
        """Runs the leg after a gate whose experts are all in slots, and the experts with it."""
        both, weights = self._with(leg, how)
        return _go_held(both, weights, stream, gate, blocks, slots, pages, due, span, pasts)

    def go_last(
        self,
        leg: int,
        how: How,
        stream: Float[Array, "B S H"],
        gate: Gate,
        blocks: Blocks,
        row: Shaped[Array, " P"],
        expert: Int[Array | np.ndarray, ""] | np.int32,
        span: Span,
        pasts: Pasts,
    ) -> Arrival:
        """Runs the leg after a gate of whose experts one is left, and that one with it."""
        both, weights = self._with(leg, how)
        return _go_last(both, weights, stream, gate, blocks, row, expert, span, pasts)

    def _with(self, leg: int, how: How) -> tuple[Static[tuple[Leg, How]], LegWeights]:
        static, weights = self._legs[leg]
        if (static, how) not in self._joined:
            self._joined[static, how] = Static((static.value, how))
        return self._joined[static, how], weights


def _without_layers(decoder: Decoder) -> Decoder:
    ends = nnx.clone(decoder)
    ends.layers = nnx.List([])
    return ends


@partial(jax.jit, static_argnums=0, donate_argnames="pasts")
def _begin(leg, weights, tokens, span, pasts):
    return leg.value.begin(weights, tokens, span, pasts)


@partial(jax.jit, static_argnums=0, donate_argnames="pasts")
def _go(leg, weights, stream, hidden, out, span, pasts):
    return leg.value.go(weights, stream, hidden, out, span, pasts)


@partial(jax.jit, static_argnums=0, donate_argnames="pasts")
def _go_held(both, weights, stream, gate, blocks, slots, pages, due, span, pasts):
    leg, how = both.value
    out = compute_rest(how.value, blocks, gate.weights, slots, pages, due)
    return leg.go(weights, stream, gate.hidden, out, span, pasts)


@partial(jax.jit, static_argnums=0, donate_argnames="pasts")
def _go_last(both, weights, stream, gate, blocks, row, expert, span, pasts):
    leg, how = both.value
    blocks = cut(compute_arrived(how.value, blocks, row, expert))
    out = cut(combine(blocks, gate.weights))
    return leg.go(weights, stream, gate.hidden, out, span, pasts)
