"""Where a pass stands on its way through the legs."""

from dataclasses import dataclass, field, replace

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Shaped

from specmd_jax.models import Gate, KvCache, Pass
from specmd_jax.models.layers.kv_cache import Remembered, Span
from specmd_jax.runtime.forward.segments import Arrival, Legs
from specmd_jax.runtime.forward.whole_pass import Hoped
from specmd_jax.runtime.gates.message import Messages
from specmd_jax.runtime.offload.ffn import Blocks, How, lay_out_now
from specmd_jax.runtime.offload.pages import Memory


@dataclass
class Walk:
    """A pass under way: what the legs behind have left.

    Attributes:
      legs: of the decoder.
      span: where the tokens stand.
      length: tokens of each sequence.
      pasts: what each decoder layer remembers; of the layers behind with this pass's tokens.
      at: where the last leg arrived.
      layer: the MoE layer at whose gate that is.
      heard: the messages of the gates behind, in one or several parts.
    """

    legs: Legs
    span: Span
    length: int
    pasts: list[Remembered]
    at: Arrival
    layer: int = 0
    heard: list[Messages] = field(default_factory=list)

    @classmethod
    def begin(cls, legs: Legs, tokens: Int[Array, "B S"], cache: KvCache) -> "Walk":
        """Returns a pass that has come to the first gate."""
        pasts, own = list(cache.layers), legs.layers_of(0)
        at = legs.begin(tokens, cache.span, tuple(pasts[own]))
        pasts[own] = at.pasts
        return cls(legs, cache.span, tokens.shape[1], pasts, at)

    @classmethod
    def resume(cls, legs: Legs, hoped: Hoped, span: Span, right: int) -> "Walk":
        """Returns a pass that was dispatched whole, as it stood at the gate of a MoE layer.

        What the layers from there on remember of it will be written anew, to the same place.

        Args:
          legs: of the decoder.
          hoped: what it came to.
          span: of its tokens.
          right: MoE layer, all before which were right.
        """
        stream, messages = hoped.streams[right], np.asarray(hoped.messages)
        gate = jax.tree.map(lambda values: values[right], hoped.gates)
        here, before = messages[right : right + 1], messages[:right]
        at = Arrival(stream, (), gate, lay_out_now(gate), here, None)
        pasts = list(hoped.cache.layers)
        return cls(legs, span, stream.shape[1], pasts, at, right, [before] if right else [])

    @property
    def gate(self) -> Gate:
        """Where the walk stands."""
        assert self.at.gate is not None
        return self.at.gate

    @property
    def blocks(self) -> Blocks:
        """The rows of the layer, and what has been made of them so far."""
        assert self.at.blocks is not None
        return self.at.blocks

    @blocks.setter
    def blocks(self, blocks: Blocks) -> None:
        self.at = self.at._replace(blocks=blocks)

    def choose(self, gate: Gate) -> None:
        """Has another choice computed than the gate's own."""
        self.at = self.at._replace(gate=gate, blocks=lay_out_now(gate))

    def go(self, out: Float[Array, "T H"]) -> None:
        """Goes on with what the experts of the layer made."""
        begin = self.at.stream, self.gate.hidden, out
        self._arrive(self.legs.go(self.layer + 1, *begin, self.span, self._own))

    def go_held(
        self,
        how: How,
        slots: Memory,
        pages: Int[Array | np.ndarray, "N pages"],
        due: Bool[Array | np.ndarray, " N"],
    ) -> None:
        """Goes on with experts that are all in slots: computed in the same program."""
        begin = self.at.stream, self.gate, self.blocks, slots, pages, due
        self._arrive(self.legs.go_held(self.layer + 1, how, *begin, self.span, self._own))

    def go_last(
        self,
        how: How,
        row: Shaped[Array, " P"],
        expert: Int[Array | np.ndarray, ""] | np.int32,
    ) -> None:
        """Goes on with the one expert that was left: computed in the same program."""
        begin = self.at.stream, self.gate, self.blocks, row, expert
        self._arrive(self.legs.go_last(self.layer + 1, how, *begin, self.span, self._own))

    def aside(self) -> "Walk":
        """Returns a walk from here with memory of its own: where it goes changes nothing here."""
        pasts, own = list(self.pasts), self.legs.layers_of(self.layer + 1)
        pasts[own] = jax.tree.map(jnp.copy, pasts[own])
        return replace(self, pasts=pasts)

    def end(self) -> Pass:
        """Returns the pass, all gates of which are behind; what they chose is told to recorders."""
        assert self.at.logits is not None
        after = KvCache(tuple(self.pasts), self.span.after(self.length))
        return Pass(self.at.logits, (), after)

    @property
    def _own(self) -> tuple[Remembered, ...]:
        return tuple(self.pasts[self.legs.layers_of(self.layer + 1)])

    def _arrive(self, at: Arrival) -> None:
        self.layer += 1
        self.pasts[self.legs.layers_of(self.layer)] = at.pasts
        self.at = at
