"""What of a pass is recorded, brought together on the device so that little has to leave it."""

from collections.abc import Sequence
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from specmd_jax.models import Decoder, Gate
from specmd_jax.models.decoder import MoeBlock
from specmd_jax.models.layers.router import affinities
from specmd_jax.runtime.gates.gate_events import GateChoices

MAX_LOOKAHEAD = 3  # further ahead the hidden state says little


class RecordOptions(NamedTuple):
    """What is recorded beside ids and weights. Hashable: jitted functions take it as static."""

    scores: bool = False  # the gates' logits of all experts
    lookahead: int = 0  # layers ahead for which the choice is foreseen


class PassRecord(NamedTuple):
    """The choices of one pass at all L MoE layers; T counts the tokens of all sequences."""

    ids: Int[Array | np.ndarray, "T L K"]  # int16, -1 where the token is padding
    weights: Float[Array | np.ndarray, "T L K"]
    logits: Float[Array | np.ndarray, "T L N"] | None = None
    predicted: Float[Array | np.ndarray, "T L D N"] | None = None  # as in a `Trace`


def see(decoder: Decoder, gates: Sequence[Gate], options: RecordOptions) -> PassRecord:
    """Returns what is wanted of the gates of a pass; to be traced into its program."""
    hidden = [gate.hidden for gate in gates]
    return PassRecord(
        jnp.stack([gate.ids for gate in gates], axis=1).astype(jnp.int16),
        jnp.stack([gate.weights for gate in gates], axis=1),
        jnp.stack([gate.logits for gate in gates], axis=1) if options.scores else None,
        foresee(decoder, hidden, options.lookahead) if options.lookahead else None,
    )


def foresee(
    decoder: Decoder, hidden: Sequence[Float[Array, "T H"]], lookahead: int
) -> Float[Array, "T L D N"]:
    """Returns what the gates of the next layers make of the hidden state at each gate.

    Source: Eliseev & Mazur 2023 (arXiv 2312.17238, §3.2): residual streams change slowly.

    Args:
      decoder: whose gates are choices.
      hidden: at the gate of each MoE layer.
      lookahead: layers ahead, D.

    Returns:
      Entry [t, l, d]: shares of the experts of layer l + 1 + d; zeros past the last layer.
    """
    blocks = [layer.moe for layer in decoder.layers if layer.has_experts]
    nothing = jnp.zeros((hidden[0].shape[0], decoder.config.spec.num_experts), jnp.float32)

    def foreseen(layer: int, target: int) -> Float[Array, "T N"]:
        return ask_gate(blocks[target], hidden[layer]) if target < len(blocks) else nothing

    by_layer = [
        jnp.stack([foreseen(layer, layer + 1 + d) for d in range(lookahead)], axis=1)
        for layer in range(len(blocks))
    ]
    return jnp.stack(by_layer, axis=1)


def ask_gate(block: MoeBlock, hidden: Float[Array, "T H"]) -> Float[Array, "T N"]:
    """Returns the shares of the experts that a gate would choose by a hidden state."""
    router = block.config.router
    bias = block.correction[...] if router.kind == "sigmoid" else None
    return affinities(block.gate(hidden), bias, router)


def record_of_choices(choices: GateChoices, options: RecordOptions) -> PassRecord:
    """Returns what a recorder wants of what the gates of a pass said."""
    logits = predicted = None
    if options.scores:
        assert choices.logits is not None
        logits = choices.logits.swapaxes(0, 1)
    if options.lookahead:
        assert choices.predicted is not None
        predicted = choices.predicted[:, :, : options.lookahead].swapaxes(0, 1)
    ids, weights = choices.ids.astype(np.int16), choices.weights
    return PassRecord(ids.swapaxes(0, 1), weights.swapaxes(0, 1), logits, predicted)
