"""Where a recording comes from: the model, its weights, and how it was run."""

import hashlib
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import jax

from specmd_jax.core.errors import InputError
from specmd_jax.models import Checkpoint
from specmd_jax.runtime.record.record import Continuation
from specmd_jax.traces import Provenance


def describe_recording(
    name: str, checkpoint: Checkpoint, how: Continuation, dtype: str, source: str
) -> Provenance:
    """Returns the provenance of a trace that is recorded now.

    Args:
      name: of the model, as it was asked for.
      checkpoint: its files.
      how: prompts were continued.
      dtype: that the model was run in.
      source: of the prompts.

    Raises:
      InputError: the weights cannot be read.
    """
    drawn = how.sampling
    sampling = (
        f"temperature {drawn.temperature:g}, top-p {drawn.top_p:g}, seed {how.seed}"
        if drawn.temperature
        else "greedy"
    )
    return Provenance(
        model=_model(name, checkpoint),
        producer=f"specmd-jax {version('specmd-jax')}",
        source=source,
        recorded=f"{sampling}, {how.max_tokens} tokens at most, batch {how.batch}, {dtype} on "
        f"{jax.default_backend()}",
        date=datetime.now(UTC).date().isoformat(),
        weights_hash=f"sha256:{hash_weights(checkpoint.folder)}",
    )


def hash_weights(folder: Path) -> str:
    """Returns the SHA-256 that `sha256sum *.safetensors | sha256sum` prints in a folder.

    Raises:
      InputError: a file cannot be read.
    """
    whole = hashlib.sha256()
    try:
        for path in sorted(folder.glob("*.safetensors"), key=lambda path: path.name):
            with path.open("rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
            whole.update(f"{digest}  {path.name}\n".encode())
    except OSError as error:
        raise InputError(f"{folder} cannot be read ({error.strerror or error})") from error
    return whole.hexdigest()


def _model(name: str, checkpoint: Checkpoint) -> str:
    """Returns a name that means the same elsewhere: never a path of this machine."""
    if not Path(name).exists():
        return name
    written = checkpoint.config.spec.hf_id
    local = Path(written).is_absolute() or Path(written).exists()
    return checkpoint.folder.resolve().name if local else written
