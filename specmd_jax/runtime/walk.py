"""Where a pass stands on its way through the layers."""

from dataclasses import dataclass, field

from jaxtyping import Array, Float

from specmd_jax.models import DecoderConfig, Gate, KvCache, LayerPrograms, Pass
from specmd_jax.models.kv_cache import Remembered, Span
from specmd_jax.runtime.demand import Asked
from specmd_jax.runtime.whole_pass import Hoped


@dataclass
class Walk:
    """A pass under way: what the layers behind have left.

    Attributes:
      stream: the residual stream after them.
      span: where the tokens stand.
      length: tokens of each sequence.
      pasts: what each layer remembers; of the layers behind with this pass's tokens.
      gates: of the MoE layers behind.
      asked: by these gates, in one or several parts.
    """

    stream: Float[Array, "B S H"]
    span: Span
    length: int
    pasts: list[Remembered]
    gates: list[Gate] = field(default_factory=list)
    asked: list[Asked] = field(default_factory=list)
    _done: int = 0

    @classmethod
    def over(cls, cache: KvCache, length: int, stream: Float[Array, "B S H"]) -> "Walk":
        """Returns a pass that has only embedded its tokens."""
        return cls(stream, cache.span, length, list(cache.layers))

    @classmethod
    def resumed(
        cls, hoped: Hoped, span: Span, asked: Asked, right: int, config: DecoderConfig
    ) -> "Walk":
        """Returns a pass that was dispatched whole, as it stood at the gate of a MoE layer.

        What the layers from there on remember of it will be written anew, to the same place.

        Args:
          hoped: what it came to.
          span: of its tokens.
          asked: by all gates.
          right: MoE layer, all before which were right.
          config: of the decoder.
        """
        stream, gates = hoped.streams[right], list(hoped.gates[:right])
        length = stream.shape[1]
        before = [asked.of(layer) for layer in range(right)]
        done = config.moe_layers[right]
        return cls(stream, span, length, list(hoped.cache.layers), gates, before, done)

    @property
    def next_layer(self) -> int | None:
        """The decoder layer to run next; None at the end."""
        return self._done if self._done < len(self.pasts) else None

    def pass_by(self, stream: Float[Array, "B S H"]) -> None:
        """Leaves a dense layer behind."""
        self.stream = stream
        self._done += 1

    def take(self, stream: Float[Array, "B S H"], gate: Gate, asked: Asked) -> None:
        """Leaves a MoE layer behind."""
        self.gates.append(gate)
        self.asked.append(asked)
        self.pass_by(stream)

    def end(self, programs: LayerPrograms) -> Pass:
        """Returns the pass, all layers of which are behind."""
        after = KvCache(tuple(self.pasts), self.span.after(self.length))
        return Pass(programs.unembed(self.stream), tuple(self.gates), after)
