"""Safetensors files, written as every file is."""

import errno
import json
import os
import re
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from jaxtyping import Shaped
from safetensors import SafetensorError
from safetensors.numpy import save_file

from specmd_jax.core.files import replace_file

_OS_ERROR = re.compile(r"os error (\d+)")


def write_tensors(
    tensors: Mapping[str, Shaped[np.ndarray, "..."]], path: Path, metadata: Mapping[str, str]
) -> None:
    """Writes a safetensors file, whole or not at all; the same bytes for the same contents.

    Raises:
      InputError: it cannot be written.
    """
    with replace_file(path) as half:
        try:
            save_file(dict(tensors), half, metadata=dict(metadata))
        except SafetensorError as error:  # which tells the system's errors in words alone
            found = _OS_ERROR.search(str(error))
            code = int(found[1]) if found else errno.EIO
            raise OSError(code, os.strerror(code)) from error
        _sort_metadata(half)


def _sort_metadata(path: Path) -> None:
    """Puts the metadata in the header in order: the library writes them in one that it draws."""
    with path.open("r+b") as file:
        size = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(size))
        header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
        text = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode()
        assert len(text) <= size, "the same header takes no more room"
        file.seek(8)
        file.write(text.ljust(size))
