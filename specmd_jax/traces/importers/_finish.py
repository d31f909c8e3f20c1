"""The last step of every importer: arrays as found become a checked `Trace`."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from jaxtyping import Float, Integer

from specmd_jax.core.errors import InputError
from specmd_jax.traces.importers._options import ImportOptions
from specmd_jax.traces.trace import MAX_EXPERTS, PAD, Provenance, Trace


def finish(
    experts: Integer[np.ndarray, "T L K"],
    *,
    step: Integer[np.ndarray, " T"],
    request: Integer[np.ndarray, " T"],
    phase: Integer[np.ndarray, " T"],
    options: ImportOptions,
    provenance: Provenance,
    num_experts: int | None = None,
    weights: Float[np.ndarray, "T L K"] | None = None,
    logits: Float[np.ndarray, "T L N"] | None = None,
    expert_bytes: Integer[np.ndarray, " L"] | None = None,
    notes: Sequence[str] = (),
) -> Trace:
    """Narrows the types, settles the number of experts and records what was assumed.

    Args:
      num_experts: what the file says; the options go before it, and where neither speaks it is
        the highest id + 1, or the width of the logits.
      notes: what the importer assumed or repaired, added to the provenance.

    Raises:
      InputError: the arrays break the contract of `Trace`.
    """
    _check_range(experts)
    if num_experts is None and logits is not None:
        num_experts = logits.shape[-1]
    count = options.num_experts or num_experts
    if count is None:
        count = max(int(experts.max()) + 1, 1)
        notes = [*notes, f"number of experts not recorded: taken as highest id + 1 = {count}"]
    provenance = replace(
        provenance, model=options.model or provenance.model, notes=(*provenance.notes, *notes)
    )
    return Trace(
        experts=experts.astype(np.int16),
        num_experts=count,
        step=step.astype(np.int32),
        request=request.astype(np.int32),
        phase=phase.astype(np.uint8),
        weights=_single(weights),
        logits=_single(logits),
        expert_bytes=None if expert_bytes is None else expert_bytes.astype(np.int64),
        provenance=provenance,
    )


def _check_range(experts: Integer[np.ndarray, "T L K"]) -> None:
    """Ids are checked before they are narrowed to 16 bits."""
    if not experts.size:
        raise InputError(f"the trace is empty (shape {experts.shape}): record at least one pass")
    low, high = int(experts.min()), int(experts.max())
    if low < PAD or high >= MAX_EXPERTS:
        raise InputError(
            f"expert id {low if low < PAD else high} is outside 0..{MAX_EXPERTS - 1}: "
            "the file is damaged, or not a routing trace"
        )
    if high == PAD:
        raise InputError("no expert is chosen anywhere: the trace is all padding")


def _single(scores: Float[np.ndarray, "..."] | None) -> Float[np.ndarray, "..."] | None:
    """Scores in at most single precision; what was recorded in half stays so."""
    if scores is None or scores.dtype == np.float16:
        return scores
    with np.errstate(over="ignore"):  # infinity is refused by the trace
        return scores.astype(np.float32)
