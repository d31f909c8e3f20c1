"""Generation: prompts of any length in one batch, prefilled in chunks, then token by token."""

from collections.abc import Collection, Iterator, Sequence
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Integer, Key

from specmd_jax.core.errors import InputError
from specmd_jax.models.config import DecoderConfig
from specmd_jax.models.forward import Forward
from specmd_jax.models.layers.kv_cache import KvCache, empty_cache
from specmd_jax.models.sampling import Sampling, sample

CHUNK = 128  # tokens a sequence that a prefill pass computes


def stream_tokens(
    forward: Forward,
    config: DecoderConfig,
    prompts: Sequence[Sequence[int]],
    max_new_tokens: int,
    *,
    sampling: Sampling | None = None,
    seed: int = 0,
    chunk: int = CHUNK,
    dtype: jnp.dtype | type = jnp.float32,
) -> Iterator[Integer[np.ndarray, " B"]]:
    """Yields the next token of every sequence, `max_new_tokens` times.

    Prompts are padded on the left to whole chunks, so that all prefill passes are of one shape.
    A chunk that would be larger than the prompts is cut to a power of two, so that prompts of
    about the same length share what is compiled.

    Args:
      forward: runs a pass.
      config: of the decoder.
      prompts: token ids of each sequence.
      max_new_tokens: of each sequence.
      sampling: how tokens are drawn; greedy by default.
      seed: of the draws.
      chunk: tokens a sequence of a prefill pass.
      dtype: of cached keys and values.

    Raises:
      InputError: a prompt is empty, or holds no token of the vocabulary.
    """
    _check(prompts, config)
    chunk = min(chunk, _power_of_two(max(len(prompt) for prompt in prompts)))
    padded, padding = _padded(prompts, chunk)
    capacity = padded.shape[1] + max_new_tokens
    cache = empty_cache(config, len(prompts), capacity, padding, dtype)
    logits = None
    for start in range(0, padded.shape[1], chunk):
        cache, logits = _advance(forward, padded[:, start : start + chunk], cache)
    sampling, key = sampling or Sampling(), jax.random.key(seed)
    for step in range(max_new_tokens):
        tokens = _draw(logits, sampling, key, np.int32(step))
        yield np.asarray(tokens)[:, 0]
        if step + 1 < max_new_tokens:
            cache, logits = _advance(forward, tokens, cache)


def generate(
    forward: Forward,
    config: DecoderConfig,
    prompts: Sequence[Sequence[int]],
    max_new_tokens: int,
    *,
    stop: Collection[int] = (),
    **options,
) -> list[list[int]]:
    """Returns what follows each prompt, up to and with the first token of `stop`.

    Args:
      forward: runs a pass.
      config: of the decoder.
      prompts: token ids of each sequence.
      max_new_tokens: of each sequence, at most.
      stop: tokens that end a sequence. The batch runs until all have ended.
      **options: see `stream_tokens`.

    Raises:
      InputError: as `stream_tokens`.
    """
    made: list[list[int]] = [[] for _ in prompts]
    going = set(range(len(made)))
    for tokens in stream_tokens(forward, config, prompts, max_new_tokens, **options):
        for row in tuple(going):
            made[row].append(int(tokens[row]))
            if made[row][-1] in stop:
                going.remove(row)
        if not going:
            break
    return made


def _advance(
    forward: Forward, tokens: Int[Array, "B S"], cache: KvCache
) -> tuple[KvCache, Float[Array, "B S V"]]:
    after = forward(tokens, cache)
    assert after.cache is not None, "a pass over a cache returns its successor"
    return after.cache, after.logits


@partial(jax.jit, static_argnums=1)
def _draw(
    logits: Float[Array, "B S V"], sampling: Sampling, key: Key[Array, ""], step: Int[Array, ""]
) -> Int[Array, "B 1"]:
    return sample(logits[:, -1], sampling, jax.random.fold_in(key, step))[:, None]


def _padded(
    prompts: Sequence[Sequence[int]], chunk: int
) -> tuple[Int[Array, "B S"], Int[Array, " B"]]:
    length = _rounded(max(len(prompt) for prompt in prompts), chunk)
    padding = [length - len(prompt) for prompt in prompts]
    rows = [[0] * skip + list(prompt) for skip, prompt in zip(padding, prompts, strict=True)]
    return jnp.asarray(rows, jnp.int32), jnp.asarray(padding, jnp.int32)


def _rounded(value: int, unit: int) -> int:
    return -(-value // unit) * unit


def _power_of_two(least: int) -> int:
    return 1 << max(least - 1, 7).bit_length()


def _check(prompts: Sequence[Sequence[int]], config: DecoderConfig) -> None:
    if not prompts or not all(len(prompt) for prompt in prompts):
        raise InputError("a prompt has no tokens: give each sequence at least one")
    vocabulary = config.spec.vocab_size
    for prompt in prompts:
        for token in prompt:
            if not 0 <= token < vocabulary:
                raise InputError(
                    f"token {token} is outside the vocabulary of {vocabulary}: "
                    "is the tokenizer of this model?"
                )
