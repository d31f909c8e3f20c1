"""Running text from a file, as tokens."""

from pathlib import Path

import numpy as np
from jaxtyping import Int
from tokenizers import Tokenizer

from specmd_jax.core.errors import InputError

MAX_FILE = 1 << 28  # bytes


def read_tokens(path: Path, tokenizer: Tokenizer | None = None) -> Int[np.ndarray, " T"]:
    """Returns the tokens of a text file, or those that a .npy file holds.

    Args:
      path: the file.
      tokenizer: of the model; None for a .npy file.

    Raises:
      InputError: it cannot be read, or holds no text or no tokens.
    """
    try:
        if path.stat().st_size > MAX_FILE:
            raise InputError(f"{path} is larger than {MAX_FILE >> 20} MB: give a part of it")
        if tokenizer is None:
            tokens = np.load(path, allow_pickle=False)
        else:
            text = path.read_text(encoding="utf-8")
            tokens = np.asarray(tokenizer.encode(text, add_special_tokens=False).ids, np.int64)
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror or error})") from error
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is no UTF-8 text: byte {error.start} is not") from error
    except (ValueError, EOFError) as error:
        raise InputError(f"{path} is no .npy file of tokens: {error}") from error
    if not isinstance(tokens, np.ndarray) or tokens.ndim != 1 or tokens.dtype.kind not in "iu":
        raise InputError(f"{path} holds no tokens: give one row of whole numbers")
    if not len(tokens):
        raise InputError(f"{path} is empty: give text to read")
    return tokens.astype(np.int64)
