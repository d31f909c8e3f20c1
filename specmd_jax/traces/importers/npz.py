"""Plain NumPy archives: `trace.npz`, with `meta.json` beside it.

Arrays: experts [T, L, K], or [L, T, K], see `_axes`, with -1 as padding; optional weights
[T, L, K], logits [T, L, N], request [T], step [T] and phase [T], which counts 0 as prefill and 1 as
decode, as the phone engine does that most of these come from. Without `step`, prefill tokens of a
request that stand together are one pass, and every other token is its own. meta.json may give
experts, model, licence, source and recorded. A folder that holds both files is accepted too.
"""

from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Integer, Shaped

from specmd_jax.core.errors import InputError
from specmd_jax.core.json_files import read_object
from specmd_jax.traces.importers._archive import ZIP, member_names, opened, parse_npy
from specmd_jax.traces.importers._axes import in_order, order_of_axes
from specmd_jax.traces.importers._finish import finish
from specmd_jax.traces.importers._options import ImportOptions
from specmd_jax.traces.importers._values import integer, text
from specmd_jax.traces.trace import DECODE, PREFILL, Provenance, Trace

NAME = "npz"
DESCRIPTION = "trace.npz of arrays (experts, request, phase, weights) with meta.json beside it"

_PREFILL_CODE = 0  # in the file
_WANTED = ("experts", "request", "phase", "step", "weights", "logits")


def detect(head: bytes, path: Path) -> bool:
    file = _archive(path)
    return (path.is_dir() or head.startswith(ZIP)) and "experts.npy" in member_names(file)


def load(path: Path, options: ImportOptions) -> Trace:
    """Reads the arrays and their meta data."""
    file = _archive(path)
    arrays = _arrays(file)
    meta = _meta(file.with_name("meta.json"))
    experts = _of_kind(arrays, "experts", "iu", 3)
    order = order_of_axes([experts], options, _tokens(arrays))
    experts, tokens = in_order(experts, order), experts.shape[order.layers_first]
    request = _per_token(arrays, "request", tokens, default=0)
    prefill = _per_token(arrays, "phase", tokens, default=1) == _PREFILL_CODE
    given = "step" in arrays
    step = _per_token(arrays, "step", tokens) if given else _steps(request, prefill)
    weights, logits = (
        in_order(_of_kind(arrays, name, "f", 3), order) if name in arrays else None
        for name in ("weights", "logits")
    )
    return finish(
        experts,
        step=step,
        request=request,
        phase=np.where(prefill, PREFILL, DECODE),
        weights=weights,
        logits=logits,
        options=options,
        num_experts=integer(meta["experts"], "meta.json: experts") if "experts" in meta else None,
        provenance=Provenance(
            model=text(meta.get("model")),
            producer="numpy",
            source=text(meta.get("source")) or path.name,
            licence=text(meta.get("licence")),
            recorded=text(meta.get("recorded")),
            doubts=order.doubts,
        ),
        notes=order.notes,
    )


def _tokens(arrays: dict[str, Shaped[np.ndarray, "..."]]) -> int | None:
    """How many tokens there are, where an array beside the experts counts them."""
    named = [arrays[name] for name in ("request", "phase", "step") if name in arrays]
    return next((len(array) for array in named if array.ndim == 1), None)


def _archive(path: Path) -> Path:
    return path / "trace.npz" if path.is_dir() else path


def _arrays(file: Path) -> dict[str, Shaped[np.ndarray, "..."]]:
    with opened(file) as members:
        names = [name for name in _WANTED if f"{name}.npy" in members.names]
        return {name: parse_npy(members.read(f"{name}.npy"), name) for name in names}


def _meta(file: Path) -> dict[str, Any]:
    return read_object(file, "write it again") if file.exists() else {}


def _of_kind(arrays: dict[str, Any], name: str, kinds: str, axes: int) -> np.ndarray:
    array = arrays.get(name)
    if array is None:
        raise InputError(f"there is no array {name!r}: save experts [T, L, K]")
    if array.dtype.kind not in kinds or array.ndim != axes:
        raise InputError(
            f"{name} is {array.dtype} of shape {array.shape}: expected {axes} axes of "
            f"{'floats' if kinds == 'f' else 'integers'}"
        )
    if not array.size:
        raise InputError(f"the trace is empty: {name} has shape {array.shape}, record a pass")
    return array


def _per_token(
    arrays: dict[str, Any], name: str, tokens: int, default: int = 0
) -> Integer[np.ndarray, " T"]:
    values = _of_kind(arrays, name, "iu", 1) if name in arrays else np.full(tokens, default)
    if len(values) != tokens:
        raise InputError(f"{name} has {len(values)} entries for {tokens} tokens: give one a token")
    if values.size and not 0 <= int(values.min()) <= int(values.max()) < 2**31:
        raise InputError(f"{name} runs from {values.min()} to {values.max()}: expected 0..2^31 - 1")
    return values.astype(np.int64)


def _steps(
    request: Integer[np.ndarray, " T"], prefill: Bool[np.ndarray, " T"]
) -> Integer[np.ndarray, " T"]:
    together = prefill[1:] & prefill[:-1] & (request[1:] == request[:-1])
    return np.cumsum(np.concatenate([[0], ~together]))[: len(request)]
