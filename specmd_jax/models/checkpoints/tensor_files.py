"""The tensors of a checkpoint in safetensors files, memory-mapped one by one.

A file is a length (8 bytes, little-endian), a JSON header that names each tensor's type, shape
and place, and the data. Each tensor is mapped on its own and unmapped with its array, so that a
checkpoint larger than memory can be read through.
"""

import json
import math
import operator
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import ml_dtypes
import numpy as np
from jaxtyping import Shaped
from msgspec import Meta, Struct

from specmd_jax.core.errors import InputError
from specmd_jax.core.json_files import read_object
from specmd_jax.core.schema import read_record

INDEX = "model.safetensors.index.json"
_LONGEST_HEADER = 100_000_000  # bytes, safetensors' own limit
_LONGEST_INDEX = 64 << 20
_DTYPES = {
    "F64": np.float64,
    "F32": np.float32,
    "F16": np.float16,
    "BF16": ml_dtypes.bfloat16,
    "U8": np.uint8,
}


class _Index(Struct):
    """What the index of a checkpoint in several files holds; the files lie beside it."""

    weight_map: dict[str, Annotated[str, Meta(pattern=r"^[^/\\\0]+\.safetensors$")]]


class _Place(NamedTuple):
    """Where a tensor lies."""

    file: Path
    kind: str  # as the header names its type
    shape: tuple[int, ...]
    begin: int  # bytes from the beginning of the file
    nbytes: int


class TensorFiles(Mapping[str, Shaped[np.ndarray, "..."]]):
    """All tensors of the safetensors files of a folder, by name; looking one up maps it.

    Raises:
      InputError: no such files, a file is cut short or is no safetensors file, or the index
        names a file that is not there.
    """

    def __init__(self, folder: Path):
        self.folder = folder
        self._places = {
            name: place for file in _files(folder) for name, place in _read_header(file).items()
        }

    def __getitem__(self, name: str) -> Shaped[np.ndarray, "..."]:
        place = self._place(name)
        return _mapped(place, name, place.begin, place.shape)

    def __contains__(self, name: object) -> bool:
        return name in self._places

    def __iter__(self):
        return iter(self._places)

    def __len__(self) -> int:
        return len(self._places)

    def shaped(self, name: str, shape: tuple[int, ...]) -> Shaped[np.ndarray, "..."]:
        """Returns a tensor that must have `shape`.

        Raises:
          InputError: it is missing, or has another shape.
        """
        place = self._shaped(name, shape)
        return _mapped(place, name, place.begin, shape)

    def parts(self, name: str, shape: tuple[int, ...]) -> Iterator[Shaped[np.ndarray, "..."]]:
        """Yields a tensor that must have `shape` along its first axis, one part mapped at a time.

        Raises:
          InputError: it is missing, or has another shape.
        """
        place = self._shaped(name, shape)
        nbytes = place.nbytes // shape[0]
        for part in range(shape[0]):
            yield _mapped(place, name, place.begin + part * nbytes, shape[1:])

    def _shaped(self, name: str, shape: tuple[int, ...]) -> _Place:
        place = self._place(name)
        if place.shape != shape:
            raise InputError(
                f"{place.file.name}: {name} has shape {list(place.shape)}, config.json "
                f"asks for {list(shape)}: are they of the same model?"
            )
        return place

    def _place(self, name: str) -> _Place:
        if name not in self._places:
            raise InputError(
                f"{self.folder} lacks the tensor {name}: is the checkpoint complete, and is its "
                "model_type right?"
            )
        return self._places[name]


def _mapped(
    place: _Place, name: str, begin: int, shape: tuple[int, ...]
) -> Shaped[np.ndarray, "..."]:
    if place.kind not in _DTYPES:
        raise InputError(
            f"{place.file.name}: {name} has type {place.kind}, supported are "
            f"{', '.join(_DTYPES)}: give weights that are not quantised"
        )
    return np.memmap(place.file, _DTYPES[place.kind], mode="r", offset=begin, shape=shape)


def _files(folder: Path) -> list[Path]:
    index = folder / INDEX
    if not index.exists():
        files = sorted(folder.glob("*.safetensors"))
        if not files:
            raise InputError(f"{folder} has no *.safetensors file: give a checkpoint's folder")
        return files
    advice = "it is not a checkpoint's index, download it again"
    written = read_object(index, advice, _LONGEST_INDEX)
    names = set(read_record(written, _Index, str(index), advice).weight_map.values())
    files = [folder / name for name in sorted(names)]
    for file in files:
        if not file.is_file():
            raise InputError(
                f"{folder} lacks {file.name}, which its index names: download it again"
            )
    return files


def _read_header(file: Path) -> dict[str, _Place]:
    try:
        size = file.stat().st_size
        with file.open("rb") as opened:
            length = int.from_bytes(opened.read(8), "little")
            header: dict[str, Any] = json.loads(opened.read(min(length, _LONGEST_HEADER)))
        header.pop("__metadata__", None)
        start = 8 + length
        places = {name: _parsed(file, entry, start) for name, entry in header.items()}
    except OSError as error:
        raise InputError(f"{file} cannot be read: {error.strerror}") from error
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise InputError(
            f"{file} has no safetensors header: it is cut short or of another format, "
            "download it again"
        ) from error
    end = max((place.begin + place.nbytes for place in places.values()), default=start)
    if size < end:
        raise InputError(f"{file} is cut short: {size} bytes of {end}, download or write it again")
    return places


def _parsed(file: Path, entry: Mapping[str, Any], start: int) -> _Place:
    begin, end = map(operator.index, entry["data_offsets"])
    kind, shape = str(entry["dtype"]), tuple(map(operator.index, entry["shape"]))
    if not 0 <= begin <= end or min(shape, default=0) < 0:
        raise ValueError("the header holds negative sizes")
    if kind in _DTYPES and end - begin != math.prod(shape) * np.dtype(_DTYPES[kind]).itemsize:
        raise ValueError("the header contradicts itself")
    return _Place(file, kind, shape, start + begin, end - begin)
