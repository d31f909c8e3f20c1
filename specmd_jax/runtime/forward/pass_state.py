"""A pass under way: how far it has come through the segments of the decoder."""

from dataclasses import dataclass, field, replace

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int

from specmd_jax.core.interned import Interned
from specmd_jax.models import Gate, KvCache, Pass
from specmd_jax.models.layers.kv_cache import Remembered, Span
from specmd_jax.runtime.forward.segments import AtGate, Left, SegmentOutput, Segments
from specmd_jax.runtime.forward.whole_pass import WholePass
from specmd_jax.runtime.gates.message import Messages
from specmd_jax.runtime.offload.ffn import Blocks, FfnSpec, lay_out_now


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
        output = SegmentOutput((), AtGate(stream, gate, lay_out_now(gate)), here, None)
        pasts = list(whole.cache.layers)
        return cls(segments, span, stream.shape[1], pasts, output, right, [before] if right else [])

    @property
    def at(self) -> AtGate:
        """The gate at which the last segment ended."""
        assert self.output.at is not None
        return self.output.at

    @property
    def gate(self) -> Gate:
        """Its choice."""
        return self.at.gate

    @property
    def blocks(self) -> Blocks:
        """The rows of the layer, and what has been made of them so far."""
        return self.at.blocks

    @blocks.setter
    def blocks(self, blocks: Blocks) -> None:
        self.output = self.output._replace(at=self.at._replace(blocks=blocks))

    def choose(self, gate: Gate) -> None:
        """Has another choice computed than the gate's own."""
        at = self.at._replace(gate=gate, blocks=lay_out_now(gate))
        self.output = self.output._replace(at=at)

    def advance(self, left: Left, ffn: Interned[FfnSpec] | None = None) -> None:
        """Goes on to the next gate.

        Args:
          left: of the layer's experts: computed in the same program.
          ffn: how they are read and computed, if any is left.
        """
        self.layer += 1
        own = self.segments.layers_of(self.layer)
        pasts = tuple(self.pasts[own])
        self.output = self.segments.run(self.layer, ffn, self.at, left, self.span, pasts)
        self.pasts[own] = self.output.pasts

    def scratch_copy(self) -> "PassState":
        """Returns this pass as it came to its gate: whatever is run from it changes nothing."""
        pasts, own = list(self.pasts), self.segments.layers_of(self.layer + 1)
        pasts[own] = jax.tree.map(jnp.copy, pasts[own])
        copy = replace(self, pasts=pasts)
        copy.choose(self.gate)
        return copy

    def end(self) -> Pass:
        """Returns the pass, all gates of which are behind; what they chose is told to recorders."""
        assert self.output.logits is not None
        after = KvCache(tuple(self.pasts), self.span.after(self.length))
        return Pass(self.output.logits, (), after)
