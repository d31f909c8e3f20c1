"""Recording: prompts are continued, batch after batch, while a recorder looks on."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import jax.numpy as jnp

from specmd_jax.core.errors import InputError
from specmd_jax.models import Sampling, stream_tokens
from specmd_jax.runtime.record.model import RecordingModel

MAX_BATCH = 4096
MAX_TOKENS = 1 << 20


@dataclass(frozen=True)
class Continuation:
    """How far and how prompts are continued.

    Raises:
      InputError: a number is out of range.
    """

    max_tokens: int = 64  # new ones of each request
    batch: int = 1  # requests that run together
    sampling: Sampling = field(default_factory=Sampling)
    seed: int = 0
    stop: frozenset[int] = frozenset()  # tokens that end a request

    def __post_init__(self) -> None:
        for name, most in (("max_tokens", MAX_TOKENS), ("batch", MAX_BATCH)):
            if not 1 <= getattr(self, name) <= most:
                flag = name.replace("_", "-")
                raise InputError(f"{flag} {getattr(self, name)} is out of range: give 1 to {most}")
        if not 0 <= self.seed < 1 << 31:
            raise InputError(f"seed {self.seed} is out of range: give 0 to {(1 << 31) - 1}")


def record(
    model: RecordingModel,
    prompts: Sequence[Sequence[int]],
    how: Continuation,
    *,
    dtype: jnp.dtype | type = jnp.float32,
    on_progress: Callable[[float], None] = lambda share: None,
) -> None:
    """Continues every prompt; the recorder of `model` then holds all of them.

    The last token of a request is drawn but not run, so that it has no row in the trace. If it
    is interrupted, the recorder keeps the batches before.

    Args:
      model: runs the passes.
      prompts: token ids of each request.
      how: they are continued; batches are drawn from with seeds one after another.
      dtype: of cached keys and values.
      on_progress: called with the share that is done, after every token; what it raises ends the
        recording.

    Raises:
      InputError: a prompt is empty, or holds no token of the vocabulary.
    """
    for number, first in enumerate(range(0, len(prompts), how.batch)):
        batch = prompts[first : first + how.batch]

        def on_token(made: int, before: int = first, size: int = len(batch)) -> None:
            on_progress((before + size * made / (how.max_tokens + 1)) / len(prompts))

        _record_batch(model, batch, how, how.seed + number, dtype, on_token)
        on_progress((first + len(batch)) / len(prompts))


def _record_batch(
    model: RecordingModel,
    batch: Sequence[Sequence[int]],
    how: Continuation,
    seed: int,
    dtype: jnp.dtype | type,
    on_token: Callable[[int], None],
) -> None:
    recorder, going = model.recorder, set(range(len(batch)))
    recorder.begin([len(prompt) for prompt in batch])
    drawn = stream_tokens(
        model,
        model.config,
        batch,
        how.max_tokens,
        sampling=how.sampling,
        seed=seed,
        dtype=dtype,
    )
    for made, tokens in enumerate(drawn, start=1):
        on_token(made)
        for row in [row for row in going if int(tokens[row]) in how.stop]:
            recorder.end(row)
            going.remove(row)
        if not going:
            break
    recorder.finish()
