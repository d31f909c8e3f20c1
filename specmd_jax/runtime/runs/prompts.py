"""Prompts and running text from files, as tokens, and what a model's files say of their ends."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int
from tokenizers import Tokenizer

from specmd_jax.core.errors import InputError
from specmd_jax.core.json_files import parse_object, shown
from specmd_jax.model_zoo.hf_config import read_config

JSON_LINES = (".jsonl", ".ndjson", ".json")
FIELDS = ("prompt", "question", "text")  # the first that a line has
MAX_FILE = 1 << 28  # bytes; more is no list of prompts


def read_prompts(path: Path) -> list[str]:
    """Returns the prompts of a file, one a line; lines of white space alone are skipped.

    A line of a .jsonl file is an object with a field `prompt`, `question` or `text`; of any
    other file it is the prompt.

    Raises:
      InputError: the file cannot be read, a line holds no prompt, or no line does.
    """
    # Not splitlines: a line of JSON may hold separators that only Unicode knows.
    lines = [(n, line) for n, line in enumerate(_text(path).split("\n"), 1) if line.strip()]
    if not lines:
        raise InputError(f"{path} holds no prompt: write one a line")
    if path.suffix.lower() not in JSON_LINES:
        return [line for _, line in lines]
    return [_prompt(line, f"{path.name}, line {number}") for number, line in lines]


def encode(
    tokenizer: Tokenizer, prompts: Sequence[str], max_tokens: int, context: int | None
) -> list[list[int]]:
    """Returns the token ids of each prompt, with what the tokenizer puts around them.

    Args:
      tokenizer: of the model.
      prompts: text.
      max_tokens: that shall follow each prompt.
      context: most tokens of a request that the model was made for; None if it does not say.

    Raises:
      InputError: a prompt has no tokens, or too many.
    """
    encoded = [encoding.ids for encoding in tokenizer.encode_batch(list(prompts))]
    for number, tokens in enumerate(encoded, 1):
        if not tokens:
            raise InputError(f"prompt {number} has no tokens: is the tokenizer of this model?")
        if context is not None and len(tokens) + max_tokens > context:
            raise InputError(
                f"prompt {number} has {len(tokens)} tokens, and {max_tokens} more exceed the "
                f"model's context of {context}: shorten it, or give a smaller --max-tokens"
            )
    return encoded


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


def stop_tokens(folder: Path) -> frozenset[int]:
    """Returns the tokens that end a text, by the files of a checkpoint; there may be none.

    Raises:
      InputError: a file is not JSON, or names something else than token ids.
    """
    named: list[Any] = []
    for file in ("config.json", "generation_config.json"):
        given = _settings(folder / file).get("eos_token_id")
        named += given if isinstance(given, list) else [] if given is None else [given]
    if not all(type(token) is int for token in named):
        raise InputError(f"{folder} has the eos_token_id {str(named)[:80]}: give token ids")
    return frozenset(named)


def context_length(folder: Path) -> int | None:
    """Returns most tokens that a model was made for, by its config.json; None if it says none."""
    length = _settings(folder / "config.json").get("max_position_embeddings")
    return length if type(length) is int else None


def _text(path: Path) -> str:
    try:
        if path.stat().st_size > MAX_FILE:
            raise InputError(f"{path} is larger than {MAX_FILE} bytes: split it")
        return path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise InputError(
            f"{path} cannot be read ({error.strerror or error}): give a file of prompts"
        ) from error
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not UTF-8 text: give one prompt a line") from error


def _prompt(line: str, where: str) -> str:
    values = parse_object(line, where, 'write {"prompt": "..."}, one object a line')
    field = next((field for field in FIELDS if field in values), None)
    if field is None:
        raise InputError(
            f"{where} has the fields {', '.join(values)[:80] or 'none'}: "
            f"name the prompt {', '.join(FIELDS[:-1])} or {FIELDS[-1]}"
        )
    text = values[field]
    if not isinstance(text, str) or not text.strip():
        raise InputError(f"{where}: {field} is {shown(text, 80)}, not a text: give some")
    return text


def _settings(path: Path) -> dict[str, Any]:
    return read_config(path) if path.is_file() else {}
