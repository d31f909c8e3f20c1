"""Whether a file can be written, asked before the work that it shall hold."""

import os
from pathlib import Path

from specmd_jax.core.errors import InputError


def check_writable(path: Path, example: str) -> None:
    """Raises InputError if there can be no file at `path`.

    A slip in the name should be told before a model has run for an hour.

    Args:
      path: of the output.
      example: a good name, for the message.
    """
    if path.is_dir():
        raise InputError(f"{path} is a folder: give a file in it, for example {example}")
    if not os.access(path.parent, os.W_OK | os.X_OK):
        raise InputError(f"{path} cannot be written: give a file in a folder that exists")
