"""A pass under way: how far it has come through the segments of the decoder."""

from dataclasses import dataclass, field, replace

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Shaped

from specmd_jax.core.interned import Interned
from specmd_jax.models import Gate, KvCache, Pass
from specmd_jax.models.layers.kv_cache import Remembered, Span
from specmd_jax.runtime.forward.segments import SegmentOutput, Segments
from specmd_jax.runtime.forward.whole_pass import WholePass
from specmd_jax.runtime.gates.message import Messages
from specmd_jax.runtime.offload.ffn import Blocks, FfnSpec, lay_out_now
from specmd_jax.runtime.offload.pages import Memory


@dataclass
class PassState:
    """A pass under way: what the segments behind have left.

    Attributes:
      segments: of the decoder.
      span: where the tokens stand.
      length: tokens of each sequence.
      pasts: what each decoder layer remembers; of the layers behind with this pass's tokens.
      output: of the last segment.
      layer: the MoE layer at whose gate it ends.
      messages: of the gates behind, in one or several parts.
    """

    segments: Segments
    span: Span
    length: int
    pasts: list[Remembered]
    output: SegmentOutput
    layer: int = 0
    messages: list[Messages] = field(default_factory=list)

    @classmethod
    def begin(cls, segments: Segments, tokens: Int[Array, "B S"], cache: KvCache) -> "PassState":
        """Returns a pass that has come to the first gate."""
        pasts, own = list(cache.layers), segments.layers_of(0)
        output = segments.begin(tokens, cache.span, tuple(pasts[own]))
        pasts[own] = output.pasts
        return cls(segments, cache.span, tokens.shape[1], pasts, output)

    @classmethod
    def resume(cls, segments: Segments, whole: WholePass, span: Span, right: int) -> "PassState":
        """Returns a pass that was dispatched whole, as it stood at the gate of a MoE layer.

        What the layers from there on remember of it will be written anew, to the same place.

        Args:
          segments: of the decoder.
          whole: what it came to.
          span: of its tokens.
          right: MoE layer, all before which were right.
        """
        stream, messages = whole.streams[right], np.asarray(whole.messages)
        gate = jax.tree.map(lambda values: values[right], whole.gates)
        here, before = messages[right : right + 1], messages[:right]
        output = SegmentOutput(stream, (), gate, lay_out_now(gate), here, None)
        pasts = list(whole.cache.layers)
        return cls(segments, span, stream.shape[1], pasts, output, right, [before] if right else [])

    @property
    def gate(self) -> Gate:
        """At which the last segment ended."""
        assert self.output.gate is not None
        return self.output.gate

    @property
    def blocks(self) -> Blocks:
        """The rows of the layer, and what has been made of them so far."""
        assert self.output.blocks is not None
        return self.output.blocks

    @blocks.setter
    def blocks(self, blocks: Blocks) -> None:
        self.output = self.output._replace(blocks=blocks)

    def choose(self, gate: Gate) -> None:
        """Has another choice computed than the gate's own."""
        self.output = self.output._replace(gate=gate, blocks=lay_out_now(gate))

    def run(self, out: Float[Array, "T H"]) -> None:
        """Goes on with what the experts of the layer made."""
        begin = self.output.stream, self.gate.hidden, out
        self._advance(self.segments.run(self.layer + 1, *begin, self.span, self._own))

    def run_resident(
        self,
        ffn: Interned[FfnSpec],
        slots: Memory,
        pages: Int[Array | np.ndarray, "N pages"],
        due: Bool[Array | np.ndarray, " N"],
    ) -> None:
        """Goes on with experts that are all in slots: computed in the same program."""
        begin = self.output.stream, self.gate, self.blocks, slots, pages, due
        self._advance(self.segments.run_resident(self.layer + 1, ffn, *begin, self.span, self._own))

    def run_last_load(
        self,
        ffn: Interned[FfnSpec],
        row: Shaped[Array, " P"],
        expert: Int[Array | np.ndarray, ""] | np.int32,
    ) -> None:
        """Goes on with the one expert that was left: computed in the same program."""
        begin = self.output.stream, self.gate, self.blocks, row, expert
        self._advance(
            self.segments.run_last_load(self.layer + 1, ffn, *begin, self.span, self._own)
        )

    def scratch_copy(self) -> "PassState":
        """Returns this state with memory of its own: what is run from it changes nothing here."""
        pasts, own = list(self.pasts), self.segments.layers_of(self.layer + 1)
        pasts[own] = jax.tree.map(jnp.copy, pasts[own])
        return replace(self, pasts=pasts)

    def end(self) -> Pass:
        """Returns the pass, all gates of which are behind; what they chose is told to recorders."""
        assert self.output.logits is not None
        after = KvCache(tuple(self.pasts), self.span.after(self.length))
        return Pass(self.output.logits, (), after)

    @property
    def _own(self) -> tuple[Remembered, ...]:
        return tuple(self.pasts[self.segments.layers_of(self.layer + 1)])

    def _advance(self, output: SegmentOutput) -> None:
        self.layer += 1
        self.pasts[self.segments.layers_of(self.layer)] = output.pasts
        self.output = output
