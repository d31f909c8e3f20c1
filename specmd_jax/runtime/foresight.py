"""What the gates of the layers to come make of the hidden state at a gate, while a model runs."""

from functools import partial

import jax
from jaxtyping import Array, Float

from specmd_jax.models import Decoder
from specmd_jax.models.programs import Structure, take_apart
from specmd_jax.runtime.seen import ask_gate


class Foresight:
    """The gates of a model, to be asked ahead of time; see `seen.foresee` for the source."""

    def __init__(self, decoder: Decoder, lookahead: int):
        """Takes the gates.

        Args:
          decoder: whose gates are asked.
          lookahead: layers ahead, D.
        """
        self._gates = [take_apart(layer.moe) for layer in decoder.layers if layer.has_experts]
        self._lookahead = lookahead

    def __call__(self, layer: int, hidden: Float[Array, "T H"]) -> list[Float[Array, "T N"]]:
        """Returns the shares of the experts of the layers 1..D ahead, as far as there are any.

        Args:
          layer: MoE layer at whose gate the hidden state is.
          hidden: state of each token.
        """
        targets = self._gates[layer + 1 : layer + 1 + self._lookahead]
        return [_ask(*gate, hidden) for gate in targets]


@partial(jax.jit, static_argnums=0)
def _ask(
    structure: Structure, weights: list[Array], hidden: Float[Array, "T H"]
) -> Float[Array, "T N"]:
    return ask_gate(structure.module(weights), hidden)
