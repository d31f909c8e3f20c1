"""Safetensors files, written as every file is."""

import errno
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
    """Writes a safetensors file, whole or not at all.

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
