"""The recorder: takes what the gates of each pass chose, gives a trace.

Whoever runs the model tells it where a batch of requests begins and ends. Passes are left on the
device until the next one is on its way, so that nothing waits for a copy.
"""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import numpy as np
from jaxtyping import Bool, Float, Integer

from specmd_jax.core.errors import InputError
from specmd_jax.runtime.gates.scores import PassRecord, RecordOptions
from specmd_jax.traces import DECODE, PAD, PREFILL, Provenance, Trace


class _Pass(NamedTuple):
    """A pass, and which of its sequences still counted when it was made."""

    seen: PassRecord
    live: Bool[np.ndarray, " B"]


class _Rows(NamedTuple):
    """The tokens of some passes, as a `Trace` holds them."""

    experts: Integer[np.ndarray, "T L K"]
    step: Integer[np.ndarray, " T"]
    request: Integer[np.ndarray, " T"]
    phase: Integer[np.ndarray, " T"]
    weights: Float[np.ndarray, "T L K"]
    logits: Float[np.ndarray, "T L N"] | None
    predicted: Float[np.ndarray, "T L D N"] | None


class Recorder:
    """Every sequence is one request; requests are numbered in the order they were begun.

    Padding is not recorded, nor what a sequence computes after its end while the others of its
    batch go on. A pass is prefill as long as any of its sequences has tokens of its prompt left.

    Attributes:
      options: what engines hand in with each pass.
      requests: how many have been recorded to their end.
      tokens: how many they have, prompts included.
    """

    def __init__(self, options: RecordOptions | None = None):
        self.options = options or RecordOptions()
        self.requests = 0
        self.tokens = 0
        self._steps = 0
        self._whole: list[_Rows] = []  # of batches that are finished
        self._prompts = np.zeros(0, np.int64)  # tokens, of the batch in hand
        self._live = np.zeros(0, bool)
        self._passes: list[_Pass] = []

    def begin(self, prompt_tokens: Sequence[int]) -> None:
        """Begins a batch of sequences; one that was not finished is forgotten.

        Args:
          prompt_tokens: of each sequence, without padding.
        """
        self._prompts = np.asarray(prompt_tokens, np.int64)
        self._live = np.ones(len(prompt_tokens), bool)
        self._passes = []

    def add(self, seen: PassRecord) -> None:
        """Takes the next pass of the batch: the same number of tokens of each sequence."""
        for values in jax.tree.leaves(seen):
            if isinstance(values, jax.Array):
                values.copy_to_host_async()
        if self._passes:
            self._passes[-1] = _on_host(self._passes[-1])
        self._passes.append(_Pass(seen, self._live.copy()))

    def end(self, sequence: int) -> None:
        """Leaves a sequence of the batch out of the passes to come."""
        self._live[sequence] = False

    def finish(self) -> None:
        """Ends the batch: from now on its requests are part of the trace."""
        done, batch = np.zeros_like(self._prompts), []
        for one in self._passes:
            rows, counts = self._rows(_on_host(one), done, self._steps + len(batch))
            if len(rows.step):  # a pass of padding alone is none
                batch.append(rows)
            done += counts
        self._whole += batch  # all at once, should an interrupt come
        self._steps += len(batch)
        self.requests += len(done)
        self.tokens += int(done.sum())
        self.begin(())

    def trace(
        self,
        num_experts: int,
        provenance: Provenance | None = None,
        expert_bytes: Integer[np.ndarray, " L"] | None = None,
    ) -> Trace:
        """Returns the trace of all batches that are finished.

        Args:
          num_experts: of a layer.
          provenance: where it comes from.
          expert_bytes: of one expert, by MoE layer.

        Raises:
          InputError: none is finished, or the model computed NaN.
        """
        if not self._whole:
            raise InputError("no request was recorded to its end: there is no trace to give")
        joined = {
            name: np.concatenate([getattr(rows, name) for rows in self._whole])
            for name in _Rows._fields
            if getattr(self._whole[0], name) is not None
        }
        return Trace(
            num_experts=num_experts,
            provenance=provenance or Provenance(),
            expert_bytes=expert_bytes,
            **joined,
        )

    def _rows(
        self, one: _Pass, done: Integer[np.ndarray, " B"], step: int
    ) -> tuple[_Rows, Integer[np.ndarray, " B"]]:
        """Returns the rows of a pass that count, and how many each sequence has.

        Args:
          one: the pass, on the host.
          done: tokens of each sequence in the passes before.
          step: the pass's number.
        """
        seen, live = one
        sequence = np.repeat(np.arange(len(live)), len(seen.ids) // len(live))
        real = (seen.ids != PAD).any(axis=(1, 2))
        taken = np.flatnonzero(real & live[sequence])
        prefill = bool((live & (done < self._prompts)).any())
        rows = _Rows(
            experts=np.asarray(seen.ids)[taken],
            step=np.full(len(taken), step, np.int32),
            request=(self.requests + sequence[taken]).astype(np.int32),
            phase=np.full(len(taken), PREFILL if prefill else DECODE, np.uint8),
            weights=np.asarray(seen.weights)[taken],
            logits=None if seen.logits is None else np.asarray(seen.logits)[taken],
            predicted=None if seen.predicted is None else np.asarray(seen.predicted)[taken],
        )
        return rows, np.bincount(sequence[taken], minlength=len(live))


def _on_host(one: _Pass) -> _Pass:
    return one._replace(seen=jax.tree.map(np.asarray, one.seen))
