"""The project's own file, `specmd.trace/1`: a safetensors file with a JSON header."""

import json
from bisect import bisect_left
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Shaped
from safetensors import SafetensorError, safe_open

from specmd_jax.core.errors import InputError
from specmd_jax.core.tensors import read_header, write_tensors
from specmd_jax.traces.trace import Provenance, Trace

FORMAT = "specmd.trace/1"


class _Field(NamedTuple):
    """How the file holds one field of a trace."""

    axes: int
    types: tuple[str, ...]  # as safetensors names them
    required: bool = False


_SCORES = ("F16", "F32")
_FIELDS = {
    "experts": _Field(3, ("I16",), required=True),
    "step": _Field(1, ("I32",), required=True),
    "request": _Field(1, ("I32",), required=True),
    "phase": _Field(1, ("U8",), required=True),
    "weights": _Field(3, _SCORES),
    "logits": _Field(3, _SCORES),
    "predicted": _Field(4, _SCORES),
    "expert_bytes": _Field(1, ("I64",)),
}
_LISTS = {"notes": str, "doubts": str, "layers": int}  # of the provenance; all else is text
_INTEGERS = {"I16": np.int16, "I32": np.int32, "I64": np.int64, "U8": np.uint8}


def write_trace(trace: Trace, path: str | Path) -> None:
    """Writes a trace as `specmd.trace/1`; a file of that name is replaced at once or not at all.

    Scores are stored as float16 where that loses nothing, else as float32.

    Raises:
      InputError: the folder does not exist or cannot be written.
    """
    path = Path(path)
    tensors = {name: _compact(name, getattr(trace, name)) for name in _present(trace)}
    write_tensors(tensors, path, _header(trace))


def read_trace(path: str | Path) -> Trace:
    """Reads a whole `specmd.trace/1` file.

    Raises:
      InputError: the file is damaged, of another format or version, or breaks the contract of
        `Trace`; nothing is allocated before its header is checked against its size.
    """
    with _opened(Path(path)) as (file, num_experts, provenance):
        tensors = {name: file.get_tensor(name) for name in _names(file)}
    return Trace(num_experts=num_experts, provenance=provenance, **tensors)


def stream_trace(path: str | Path, passes_per_chunk: int) -> Iterator[Trace]:
    """Yields a `specmd.trace/1` file in traces of at most `passes_per_chunk` passes.

    Only the rows of one chunk are in memory. Steps of each chunk start at 0; requests keep
    their numbers, so that a request may go on in the next chunk.

    Raises:
      InputError: as for `read_trace`, or `passes_per_chunk` is not positive.
    """
    if passes_per_chunk < 1:
        raise InputError(f"{passes_per_chunk} passes a chunk: give at least 1")
    with _opened(Path(path)) as (file, num_experts, provenance):
        names = _names(file)
        steps = file.get_slice("step")
        (tokens,) = steps.get_shape()
        row = 0
        while row < tokens:
            first = int(steps[row : row + 1][0])
            end = _first_row(steps, first + passes_per_chunk, row, tokens)
            chunk = {name: _rows(file, name, row, end) for name in names}
            chunk["step"] = chunk["step"] - first
            yield Trace(num_experts=num_experts, provenance=provenance, **chunk)
            row = end


def _present(trace: Trace) -> list[str]:
    return [name for name in _FIELDS if getattr(trace, name) is not None]


def _compact(name: str, values: Shaped[np.ndarray, "..."]) -> Shaped[np.ndarray, "..."]:
    stored = _FIELDS[name].types
    narrow = _narrow(values) if stored is _SCORES else values.astype(_INTEGERS[stored[0]])
    return np.ascontiguousarray(narrow)


def _narrow(scores: Float[np.ndarray, "..."]) -> Float[np.ndarray, "..."]:
    with np.errstate(over="ignore"):
        half = scores.astype(np.float16)
    return half if np.array_equal(half, scores) else scores.astype(np.float32)


def _header(trace: Trace) -> dict[str, str]:
    return {
        "format": FORMAT,
        "shape": json.dumps(trace.shape._asdict()),
        "provenance": json.dumps(asdict(trace.provenance)),
    }


@contextmanager
def _opened(path: Path) -> Iterator[tuple[Any, int, Provenance]]:
    """An open file whose header has been checked, its number of experts and its provenance."""
    try:
        read_header(path)
        with safe_open(path, framework="numpy") as file:
            header = file.metadata() or {}
            _check_format(path, header)
            _check_tensors(path, file)
            yield file, _num_experts(path, header), _provenance(path, header)
    except SafetensorError as error:
        raise InputError(
            f"{path.name} is not a whole safetensors file ({_one_line(error)}): "
            "write or copy it again"
        ) from error
    except OSError as error:
        raise InputError(
            f"{path} cannot be read ({error.strerror or error}): give a {FORMAT} file"
        ) from error


def _check_format(path: Path, header: dict[str, str]) -> None:
    found = header.get("format", "none")
    if found != FORMAT:
        raise InputError(
            f"{path.name} is of format {found!r}, this version reads {FORMAT!r}: "
            "import the original again"
        )


def _check_tensors(path: Path, file: Any) -> None:
    shapes = {name: file.get_slice(name).get_shape() for name in _names(file)}
    missing = [name for name, field in _FIELDS.items() if field.required and name not in shapes]
    if missing:
        raise InputError(f"{path.name} lacks {', '.join(missing)}: write it with write_trace")
    for name, shape in shapes.items():
        axes, types, _ = _FIELDS[name]
        found = file.get_slice(name).get_dtype()
        if found not in types:
            raise InputError(
                f"{path.name} holds {name} as {found}, expected {' or '.join(types)}: "
                "write it with write_trace"
            )
        if len(shape) != axes or (name != "expert_bytes" and shape[0] != shapes["step"][0]):
            raise InputError(
                f"{path.name} holds {name} of shape {shape} for {shapes['step']} tokens: expected "
                f"{axes} axes, write it with write_trace"
            )


def _num_experts(path: Path, header: dict[str, str]) -> int:
    value = _json(path, header, "shape").get("num_experts")
    if type(value) is not int:
        raise InputError(
            f"{path.name} does not say the number of experts: its shape is "
            f"{header.get('shape', 'missing')[:80]}"
        )
    return value


def _provenance(path: Path, header: dict[str, str]) -> Provenance:
    """Unknown keys are ignored, so that later versions may add some."""
    stored = _json(path, header, "provenance")
    known = {f.name: stored[f.name] for f in fields(Provenance) if f.name in stored}
    if not all(_is_kept(name, value) for name, value in known.items()):
        raise InputError(f"{path.name} has a provenance that is not text: write it again")
    for name in known.keys() & _LISTS.keys():
        known[name] = tuple(known[name])
    return Provenance(**known)


def _is_kept(name: str, value: object) -> bool:
    """Whether a value of the provenance is of the type that the field has."""
    if name not in _LISTS:
        return isinstance(value, str)
    return isinstance(value, list) and all(type(item) is _LISTS[name] for item in value)


def _json(path: Path, header: dict[str, str], key: str) -> dict[str, Any]:
    try:
        value = json.loads(header.get(key, "{}"))
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path.name} has a {key} that is not JSON: write it again") from error
    if not isinstance(value, dict):
        raise InputError(f"{path.name} has a {key} that is not a JSON object: write it again")
    return value


def _names(file: Any) -> list[str]:
    present = set(file.keys())
    return [name for name in _FIELDS if name in present]


def _first_row(steps: Any, step: int, low: int, high: int) -> int:
    """Bisects on disk: the first row of `step` or later."""
    return bisect_left(range(high), step, lo=low, key=lambda row: int(steps[row : row + 1][0]))


def _rows(file: Any, name: str, start: int, stop: int) -> Shaped[np.ndarray, "..."]:
    return file.get_tensor(name) if name == "expert_bytes" else file.get_slice(name)[start:stop]


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:120]
