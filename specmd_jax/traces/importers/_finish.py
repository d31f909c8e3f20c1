"""The last step of every importer: arrays as found become a checked `Trace`.

Here whatever may be misread without a word is looked for: ids that count on from layer to layer,
shared experts among the routed ones, a model of another shape, a path for a model's name.
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from jaxtyping import Float, Integer

from specmd_jax.core.errors import InputError
from specmd_jax.core.model_name import plain_model_name
from specmd_jax.core.types import ModelShape
from specmd_jax.traces.importers._ids import block_size, within_layers
from specmd_jax.traces.importers._model import check_shape
from specmd_jax.traces.importers._options import ImportOptions
from specmd_jax.traces.importers._shared import SHARED_DOUBT, Scores, always_chosen, without_shared
from specmd_jax.traces.trace import MAX_EXPERTS, PAD, Provenance, Trace, assumed_experts

_LAYERS = "MoE layers"  # how the note begins that says which they are
_ALL_IDS = 1 << 24  # of all layers together, where ids count on from one to the next


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
      provenance: its `layers` are the file's numbers of the layers, where it has any.
      num_experts: what the file says; the options go before it, and where neither speaks it is
        the highest id + 1, or the width of the logits.
      notes: what the importer assumed or repaired, added to the provenance.

    Raises:
      InputError: the arrays break the contract of `Trace`, or contradict the options.
    """
    experts = _signed(experts)
    provenance = replace(
        provenance,
        model=options.model or plain_model_name(provenance.model),
        notes=(*(note for note in provenance.notes if not note.startswith(_LAYERS)), *notes),
    )
    if num_experts is None and logits is not None:
        num_experts = logits.shape[-1]
    found = Scores(experts, weights, logits)
    found, expert_bytes, provenance = _of_layers(found, expert_bytes, options, provenance)
    found, num_experts, provenance = _within_layers(found, num_experts, options, provenance)
    found, num_experts, provenance = _routed(found, num_experts, options, provenance)
    known = options.known_experts or num_experts
    _check_highest(found.experts)
    provenance = _noted(provenance, _layers_note(provenance.layers))
    if known is None:
        known = max(int(found.experts.max()) + 1, 1)
        provenance = _noted(provenance, assumed_experts(known))
    if options.shape is not None:
        _, layers, top_k = found.experts.shape
        read = ModelShape(layers, num_experts or known, top_k)
        check_shape(read, options.shape, options.model)
    return Trace(
        experts=found.experts.astype(np.int16),
        num_experts=known,
        step=step.astype(np.int32),
        request=request.astype(np.int32),
        phase=phase.astype(np.uint8),
        weights=_single(found.weights),
        logits=_single(found.logits),
        expert_bytes=None if expert_bytes is None else expert_bytes.astype(np.int64),
        provenance=provenance,
    )


def _of_layers(
    found: Scores,
    expert_bytes: Integer[np.ndarray, " L"] | None,
    options: ImportOptions,
    provenance: Provenance,
) -> tuple[Scores, Integer[np.ndarray, " L"] | None, Provenance]:
    """Keeps the layers that are asked for, by the file's numbers, or else counted from 0."""
    count = found.experts.shape[1]
    numbers = provenance.layers or tuple(range(count))
    kept = [at for at, number in enumerate(numbers) if options.keeps(number)]
    if len(kept) == count:
        return found, expert_bytes, provenance
    if not kept:
        raise InputError(f"layers {options.layers} are none of {numbers[0]}..{numbers[-1]}")
    experts, weights, logits = found
    found = Scores(
        experts[:, kept],
        None if weights is None else weights[:, kept],
        None if logits is None else logits[:, kept],
    )
    sizes = None if expert_bytes is None else expert_bytes[kept]
    provenance = replace(provenance, layers=tuple(numbers[at] for at in kept))
    note = f"{count - len(kept)} of {count} layers left out, as asked: kept {options.layers}"
    return found, sizes, _noted(provenance, note)


def _layers_note(layers: tuple[int, ...]) -> str:
    """Which layers of the model the MoE layers are, where that is not plain."""
    if layers == tuple(range(len(layers))):
        return ""
    first, last = layers[0], layers[-1]
    if layers == tuple(range(first, last + 1)):
        return f"{_LAYERS} 0..{len(layers) - 1} are model layers {first}..{last}"
    shown = ", ".join(map(str, layers[:80]))
    return f"{_LAYERS} 0..{len(layers) - 1} are model layers {shown}"


def _within_layers(
    found: Scores, num_experts: int | None, options: ImportOptions, provenance: Provenance
) -> tuple[Scores, int | None, Provenance]:
    """Ids counted within their layer, and how many a layer has where they were not."""
    if options.ids == "per-layer":
        return found, num_experts, provenance
    hint = options.known_experts or num_experts
    blocks = block_size(found.experts, provenance.layers, hint)
    if blocks is None and options.ids is None:
        return found, num_experts, provenance
    size, offsets = blocks or (hint, None)
    if size is None:
        raise InputError("where ids are global, the experts of one layer must be given or recorded")
    if options.ids is None and options.known_experts not in (None, size):
        doubt = (
            f"the ids of each layer lie in a block of {size} of their own: if they count on from "
            "layer to layer, import with --ids global"
        )
        return found, num_experts, _noted(provenance, doubt=doubt)
    experts = within_layers(found.experts, size, offsets)
    said = f"ids count on from layer to layer: taken as layer x {size} + expert"
    if options.ids is None:
        provenance = _noted(
            provenance, doubt=f"{said}; if they do not, import with --ids per-layer"
        )
    else:
        provenance = _noted(provenance, said)
    return found._replace(experts=experts), size, provenance


def _routed(
    found: Scores, num_experts: int | None, options: ImportOptions, provenance: Provenance
) -> tuple[Scores, int | None, Provenance]:
    """Leaves shared experts out where it is clear that they are, else names them."""
    shared, known = options.shared_experts, options.known_experts or num_experts
    if shared is None:
        always = always_chosen(found.experts)
        shared = tuple(expert for expert in always if known is not None and expert >= known)
        if always and not shared:
            listed = ",".join(map(str, always))
            doubt = (
                f"{SHARED_DOUBT} {listed} at every layer, as it does a shared one: "
                f"import with --shared-experts {listed} to leave it out, or with "
                "--shared-experts none"
            )
            return found, num_experts, _noted(provenance, doubt=doubt)
    if not shared:
        return found, num_experts, provenance
    listed = ", ".join(map(str, shared))
    note = f"expert {listed}, which every token chooses, left out as shared"
    if num_experts is not None:  # the file counted them among the others
        num_experts -= sum(expert < num_experts for expert in shared)
    return without_shared(found, shared), num_experts, _noted(provenance, note)


def _noted(provenance: Provenance, note: str = "", doubt: str = "") -> Provenance:
    return replace(
        provenance,
        notes=(*provenance.notes, *([note] if note else [])),
        doubts=(*provenance.doubts, *([doubt] if doubt else [])),
    )


def _signed(experts: Integer[np.ndarray, "T L K"]) -> Integer[np.ndarray, "T L K"]:
    """The ids in a type that holds PAD; none is below it, and one is above."""
    if not experts.size:
        raise InputError(f"the trace is empty (shape {experts.shape}): record at least one pass")
    low, high = int(experts.min()), int(experts.max())
    if low < PAD or high >= _ALL_IDS:
        raise InputError(_outside(low if low < PAD else high))
    if high == PAD:
        raise InputError("no expert is chosen anywhere: the trace is all padding")
    return experts.astype(np.int32) if experts.dtype.kind == "u" else experts


def _check_highest(experts: Integer[np.ndarray, "T L K"]) -> None:
    """Ids are checked before they are narrowed to 16 bits."""
    if int(experts.max()) >= MAX_EXPERTS:
        raise InputError(_outside(int(experts.max())))


def _outside(expert: int) -> str:
    return (
        f"expert id {expert} is outside 0..{MAX_EXPERTS - 1}: the file is damaged, no routing "
        "trace, or its ids count on from layer to layer (--ids global --num-experts N)"
    )


def _single(scores: Float[np.ndarray, "..."] | None) -> Float[np.ndarray, "..."] | None:
    """Scores in at most single precision; what was recorded in half stays so."""
    if scores is None or scores.dtype == np.float16:
        return scores
    with np.errstate(over="ignore"):  # infinity is refused by the trace
        return scores.astype(np.float32)
