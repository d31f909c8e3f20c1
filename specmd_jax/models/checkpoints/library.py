"""Models by name: the bundled one, a folder, or a repository of the Hugging Face hub."""

import os
from pathlib import Path

from tokenizers import Tokenizer

from specmd_jax.core.errors import InputError
from specmd_jax.model_zoo import BUNDLED, bundled_folder
from specmd_jax.models.checkpoints.checkpoint import Checkpoint

FILES = ("*.safetensors", "*.json")  # what is fetched of a repository


def open_model(name: str) -> Checkpoint:
    """Opens a model; its weights are read when they are asked for.

    Args:
      name: `specmd-tiny`, the model that comes with the package; a folder with config.json and
        safetensors files; or a hub id such as allenai/OLMoE-1B-7B-0924, fetched once and kept by
        huggingface-hub.

    Raises:
      InputError: there is no such model, or it is not one that can be read.
    """
    if name == BUNDLED:
        return Checkpoint(str(bundled_folder()))
    if os.path.exists(name) or not _is_hub_id(name):
        return Checkpoint(name)
    return Checkpoint(_fetch(name))


def open_tokenizer(checkpoint: Checkpoint) -> Tokenizer:
    """Returns the tokenizer that lies beside the weights.

    Raises:
      InputError: there is no tokenizer.json, or it cannot be read.
    """
    path = checkpoint.folder / "tokenizer.json"
    if not path.is_file():
        raise InputError(f"{checkpoint.folder} has no tokenizer.json: put the model's own there")
    try:
        return Tokenizer.from_file(str(path))
    except Exception as error:  # the library raises nothing narrower
        raise InputError(f"{path} is not a tokenizer: {_first_line(error)}") from error


def _is_hub_id(name: str) -> bool:
    owner, slash, repository = name.partition("/")
    return bool(owner and slash and repository) and "/" not in repository and owner[0] not in ".~"


def _fetch(name: str) -> Path:
    try:
        from huggingface_hub import snapshot_download
        from huggingface_hub.errors import HfHubHTTPError, HFValidationError
    except ImportError as error:
        raise InputError(
            f"{name} is no folder here, and hub ids need an extra: pip install 'specmd-jax[hf]'"
        ) from error
    try:
        return Path(snapshot_download(name, allow_patterns=list(FILES)))
    except (HfHubHTTPError, HFValidationError, OSError) as error:
        raise InputError(f"{name} cannot be fetched from the hub: {_first_line(error)}") from error


def _first_line(error: Exception) -> str:
    return next(iter(str(error).strip().splitlines()), type(error).__name__)
