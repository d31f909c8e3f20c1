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


def record_pass(decoder: Decoder, gates: Sequence[Gate], options: RecordOptions) -> PassRecord:
    """Returns what is wanted of the gates of a pass; to be traced into its program."""
    return PassRecord(
        jnp.stack([gate.ids for gate in gates], axis=1).astype(jnp.int16),
        jnp.stack([gate.weights for gate in gates], axis=1),
        jnp.stack([gate.logits for gate in gates], axis=1) if options.scores else None,
        _foresee_all(decoder, gates, options.lookahead) if options.lookahead else None,
    )


def foresee(ahead: Sequence[MoeBlock], gate: Gate, lookahead: int) -> Float[Array, "T D N"]:
    """Returns what the gates of the next layers make of the hidden state at one gate.

    Source: Eliseev & Mazur 2023 (arXiv 2312.17238, §3.2): residual streams change slowly.

    Args:
      ahead: the MoE blocks of the next layers: D, or fewer where the model ends.
      gate: at which the hidden state is.
      lookahead: layers ahead, D.

    Returns:
      Entry [t, d]: shares of the experts 1 + d layers ahead; zeros past the last layer.
    """
    shares = [_shares(block, gate.hidden) for block in ahead]
    past_end = [jnp.zeros_like(gate.logits)] * (lookahead - len(shares))
    return jnp.stack([*shares, *past_end], axis=1)


def _foresee_all(
    decoder: Decoder, gates: Sequence[Gate], lookahead: int
) -> Float[Array, "T L D N"]:
    by_layer = [
        foresee(decoder.blocks_after(layer, lookahead), gate, lookahead)
        for layer, gate in enumerate(gates)
    ]
    return jnp.stack(by_layer, axis=1)


def _shares(block: MoeBlock, hidden: Float[Array, "T H"]) -> Float[Array, "T N"]:
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
