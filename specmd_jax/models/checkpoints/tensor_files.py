"""The tensors of a checkpoint in safetensors files, memory-mapped one by one.

Each tensor is mapped on its own and unmapped with its array, so that a checkpoint larger than
memory can be read through.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated

import ml_dtypes
import numpy as np
from jaxtyping import Shaped
from msgspec import Meta, Struct

from specmd_jax.core.errors import InputError
from specmd_jax.core.json_files import read_object
from specmd_jax.core.schema import read_record
from specmd_jax.core.tensors import Place, read_header

INDEX = "model.safetensors.index.json"
_LONGEST_INDEX = 64 << 20
_DTYPES = {
    "F64": np.float64,
    "F32": np.float32,
    "F16": np.float16,
    "BF16": ml_dtypes.bfloat16,
    "U8": np.uint8,
}


_SHARD = r"^[ -.0-\[\]-~]{1,200}\.safetensors$"  # a file's name: no folder, and not too long


class _Index(Struct):
    """What the index of a checkpoint in several files holds; the files lie beside it."""

    weight_map: dict[str, Annotated[str, Meta(pattern=_SHARD)]]


class TensorFiles(Mapping[str, Shaped[np.ndarray, "..."]]):
    """All tensors of the safetensors files of a folder, by name; looking one up maps it.

    Raises:
      InputError: no such files, a file is cut short or is no safetensors file, or the index
        names a file that is not there.
    """

    def __init__(self, folder: Path):
        self.folder = folder
        self._places: dict[str, Place] = {}
        for file in _files(folder):
            for name, place in read_header(file).items():
                other = self._places.setdefault(name, place)
                if other is not place:
                    raise InputError(
                        f"{folder} holds {name[:80]} twice, in {other.file.name} and {file.name}: "
                        "remove the one that does not belong to the checkpoint"
                    )

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

    def _shaped(self, name: str, shape: tuple[int, ...]) -> Place:
        place = self._place(name)
        if place.shape != shape:
            raise InputError(
                f"{place.file.name}: {name} has shape {list(place.shape)}, config.json "
                f"asks for {list(shape)}: are they of the same model?"
            )
        return place

    def _place(self, name: str) -> Place:
        if name not in self._places:
            raise InputError(
                f"{self.folder} lacks the tensor {name}: is the checkpoint complete, and is its "
                "model_type right?"
            )
        return self._places[name]


def _mapped(
    place: Place, name: str, begin: int, shape: tuple[int, ...]
) -> Shaped[np.ndarray, "..."]:
    if place.dtype not in _DTYPES:
        raise InputError(
            f"{place.file.name}: {name[:80]} has type {place.dtype[:8]}, supported are "
            f"{', '.join(_DTYPES)}: give weights that are not quantised"
        )
    return np.memmap(place.file, _DTYPES[place.dtype], mode="r", offset=begin, shape=shape)


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
