"""What a gate tells the host, in one array: bringing several over takes as many times as long."""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from specmd_jax.models import Gate
from specmd_jax.models.decoder import MoeBlock
from specmd_jax.runtime.gates.gate_events import GateChoices
from specmd_jax.runtime.gates.scores import foresee

Messages = Int[Array | np.ndarray, "_ T M"]  # of some layers; on the device, or on the host


class MessageLayout(NamedTuple):
    """How a message lies in its columns: int32, and the bits of float32. Hashable: static to jit.

    Attributes:
      top_k: ids, -1 where the token is padding, and as many weights.
      num_experts: of a layer.
      scores: whether the logits of all experts follow.
      lookahead: layers ahead, for each of which the foreseen shares of its experts follow.
    """

    top_k: int
    num_experts: int
    scores: bool = False
    lookahead: int = 0

    @property
    def columns(self) -> int:
        """M."""
        return 2 * self.top_k + self.num_experts * (self.scores + self.lookahead)

    def write(self, gate: Gate, ahead: Sequence[MoeBlock]) -> Int[Array, "T M"]:
        """Returns the message of a gate; to be traced.

        Args:
          gate: which chose.
          ahead: the blocks of as many layers ahead as there are, see `foresee`.
        """
        numbers = [gate.weights]
        if self.scores:
            numbers.append(gate.logits)
        if self.lookahead:
            foreseen = foresee(ahead, gate, self.lookahead)
            numbers.append(foreseen.reshape(foreseen.shape[0], -1))
        bits = [jax.lax.bitcast_convert_type(part, jnp.int32) for part in numbers]
        return jnp.concatenate([gate.ids, *bits], axis=1)

    def ids(self, messages: Int[np.ndarray, "L T M"]) -> Int[np.ndarray, "L T K"]:
        """Returns the experts that were chosen."""
        return messages[..., : self.top_k]

    def read(self, messages: Messages) -> GateChoices:
        """Returns all that some gates said."""
        messages = np.asarray(messages)
        ids, rest = messages[..., : self.top_k], messages[..., self.top_k :].view(np.float32)
        weights, rest = rest[..., : self.top_k], rest[..., self.top_k :]
        logits = predicted = None
        if self.scores:
            logits, rest = rest[..., : self.num_experts], rest[..., self.num_experts :]
        if self.lookahead:
            predicted = rest.reshape(*rest.shape[:2], self.lookahead, self.num_experts)
        return GateChoices(ids, weights, logits, predicted)


def forced_message(
    ids: Int[np.ndarray, "T K"], weights: Float[np.ndarray, "T K"]
) -> Int[np.ndarray, "1 T M"]:
    """Returns the message of a gate that is told what to choose, and knows no scores."""
    return np.concatenate([ids, weights.view(np.int32)], axis=1, dtype=np.int32)[None]
