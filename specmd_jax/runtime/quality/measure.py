"""What a cache costs in quality: closed loop, teacher-forced, beside the exact model."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Integer

from specmd_jax.core.errors import InputError
from specmd_jax.hardware.capacity import BASE_PRECISION, Capacity, Copies
from specmd_jax.models import Checkpoint, DecoderConfig, ExpertWeights, resident
from specmd_jax.models.experts.quantize import dequantize, quantize
from specmd_jax.models.forward import Structure, take_apart
from specmd_jax.runtime.decide.applied_choice import check_bendable
from specmd_jax.runtime.quality.closed_loop import Cached, Compared, Exact, Tiers, read_text
from specmd_jax.simulator.state import begin
from specmd_jax.study.resolve import Resolved, resolve
from specmd_jax.study.setup import Setup

RESAMPLES = 2000
LEVEL = 0.95


class Reading(NamedTuple):
    """A model, and texts that it has read with all its experts."""

    config: DecoderConfig
    structure: Structure
    weights: list[Array]
    experts: tuple[ExpertWeights, ...]
    texts: Int[np.ndarray, "W S1"]
    exact: list[Exact]


@dataclass(frozen=True)
class Quality:
    """What one configuration came to over all texts."""

    setup: Setup
    capacity: Capacity
    copies: Copies
    compared: Compared  # [texts, tokens]
    exact_nll: Float[np.ndarray, "W S"]
    counts: Any  # `Counts`, numpy


def cut(tokens: Integer[np.ndarray, " T"], length: int, most: int) -> Int[np.ndarray, "W S1"]:
    """Returns texts of `length` tokens and one to predict, at most `most` tokens in all.

    Raises:
      InputError: there are fewer tokens than one text has.
    """
    count = min((len(tokens) - 1) // length, max(most // length, 1))
    if count < 1:
        raise InputError(
            f"the text has {len(tokens)} tokens, and {length + 1} are read at a time: give more "
            "text, or a smaller --length"
        )
    starts = np.arange(count) * length
    return np.stack([tokens[start : start + length + 1] for start in starts]).astype(np.int32)


def read_exactly(checkpoint: Checkpoint, texts: Int[np.ndarray, "W S1"]) -> Reading:
    """Returns the model and what it makes of the texts with all its experts, in float32.

    Raises:
      InputError: a token is not in the vocabulary, or the weights cannot be read.
    """
    vocabulary = checkpoint.config.spec.vocab_size
    if texts.max(initial=0) >= vocabulary or texts.min(initial=0) < 0:
        raise InputError(
            f"the text holds token {texts.max()}, the model's vocabulary {vocabulary}: use the "
            "tokenizer of this model"
        )
    decoder, experts = checkpoint.decoder(), checkpoint.all_experts()
    structure, weights = take_apart(decoder)

    @jax.jit
    def whole(weights: list[Array], experts: Any, tokens: Array) -> Exact:
        made = structure.module(weights)(tokens[None], resident(experts, checkpoint.config))
        return Exact(made.logits[0], jnp.stack([gate.ids for gate in made.gates], axis=1))

    exact = [whole(weights, experts, jnp.asarray(text[:-1])) for text in texts]
    return Reading(checkpoint.config, structure, weights, experts, texts, exact)


def check_quality(setup: Setup, config: DecoderConfig) -> Resolved:
    """Returns the sizes of a configuration that can be run in the loop.

    Raises:
      InputError: it cannot.
    """
    if setup.strategy.routing.choose is not None:
        check_bendable(config)
    return resolve(setup, config.spec)


def measure(
    reading: Reading,
    setups: Sequence[Setup],
    on_progress: Callable[[float], None] = lambda share: None,
) -> list[Quality]:
    """Returns what each configuration makes of the texts, one after another through one cache.

    Configurations that differ only in numbers share one compile.

    Raises:
      InputError: a configuration cannot be run.
    """
    for setup in setups:
        check_quality(setup, reading.config)
    found, tiers = [], _Tiers(reading.experts)
    for number, setup in enumerate(setups):

        def progress(share: float, done: int = number) -> None:
            on_progress((done + share) / len(setups))

        found.append(_measure_one(reading, setup, tiers.of(setup.precisions), progress))
    return found


def _measure_one(
    reading: Reading, setup: Setup, tiers: Tiers, on_progress: Callable[[float], None]
) -> Quality:
    _, copies, capacity, _ = resolve(setup, reading.config.spec)
    strategy = setup.strategy.structure
    units = jnp.asarray(copies.units, jnp.int32)
    params = jax.tree.map(jnp.asarray, setup.params)
    cached = Cached(params, jnp.asarray(capacity.units, jnp.int32), units)
    state = begin(strategy, params, reading.config.spec.shape, units)
    compared, exact_nll = [], []
    for number, (text, exact) in enumerate(zip(reading.texts, reading.exact, strict=True), 1):
        tokens = jnp.asarray(text)
        state, one = read_text(
            reading.structure, strategy, reading.weights, tiers, cached, state, tokens, exact
        )
        compared.append(one)
        exact_nll.append(_nll(exact.logits, tokens[1:]))
        on_progress(number / len(reading.texts))
    if bool(state.cache.broken):
        raise InputError(f"{setup.name}: a policy's score was not a number")
    return Quality(
        setup,
        capacity,
        copies,
        jax.tree.map(lambda *rows: jnp.stack(rows), *compared),
        np.stack(exact_nll),
        jax.tree.map(np.asarray, state.counts),
    )


class _Tiers:
    """Copies of all experts by precision, each made once; the best is the model as it is."""

    def __init__(self, experts: tuple[ExpertWeights, ...]):
        self._made: dict[str, tuple[ExpertWeights, ...]] = {BASE_PRECISION: experts}
        self._experts = experts

    def of(self, precisions: tuple[str, ...]) -> Tiers:
        """Returns the copies of each layer, [precisions, experts, ...]."""
        by_precision = [self._in(precision) for precision in precisions]
        return tuple(
            jax.tree.map(lambda *leaves: jnp.stack(leaves), *layer)
            for layer in zip(*by_precision, strict=True)
        )

    def _in(self, precision: str) -> tuple[ExpertWeights, ...]:
        if precision not in self._made:
            self._made[precision] = tuple(
                jax.tree.map(jnp.asarray, dequantize(quantize(layer, precision), jnp.float32))
                for layer in self._experts
            )
        return self._made[precision]


def summarise_quality(quality: Quality, seed: int = 0) -> dict[str, Any]:
    """Returns one row: counts, and each measure over all tokens; nats a token.

    The intervals of the NLL's rise are bootstrapped over the texts (percentiles, 95 %), because
    the tokens of one text are not independent.
    """
    compared, counts = quality.compared, quality.counts
    delta = np.asarray(compared.nll) - quality.exact_nll
    low, high = bootstrap(delta.mean(axis=1), seed)
    accesses, hits = int(counts.accesses.sum()), int(counts.hits.sum())
    loads = counts.loads.sum(axis=0) + _prefetched(quality)
    nbytes = quality.copies.nbytes
    tokens = quality.exact_nll.size
    return {
        "strategy": quality.setup.name,
        "capacity": quality.capacity.text,
        "capacity_slots": quality.capacity.slots,
        "precisions": list(quality.copies.precisions),
        "tokens": tokens,
        "accesses": accesses,
        "hits": hits,
        "misses": accesses - hits,
        "hit_rate": hits / accesses,
        "loads": int(loads.sum()),
        "bytes_loaded": None if nbytes is None else int((loads * nbytes[0]).sum()),
        "dropped": int(counts.dropped.sum()),
        "substituted": int(counts.substituted.sum()),
        "swapped": int(counts.swapped.sum()),
        "nll_exact": float(quality.exact_nll.mean()),
        "nll": float(compared.nll.mean()),
        "nll_delta": float(delta.mean()),
        "nll_delta_low": low,
        "nll_delta_high": high,
        "perplexity": float(np.exp(compared.nll.mean())),
        "kl": float(compared.kl.mean()),
        "same_top": float(compared.same_top.mean()),
        "same_experts": float(compared.same_experts.mean()),
        "label": "MEASURED, closed loop",
    }


def _prefetched(quality: Quality) -> Integer[np.ndarray, " Q"]:
    """Returns the prefetch loads by tier."""
    by_tier = np.zeros(quality.counts.loads.shape[1], np.int64)
    last = -1 if quality.setup.strategy.miss.prefetch_last_tier else 0
    by_tier[last] = quality.counts.prefetched.sum()
    return by_tier


def bootstrap(means: Float[np.ndarray, " W"], seed: int) -> tuple[float | None, float | None]:
    """Returns the interval in which the mean lies; nothing from one text alone."""
    if len(means) < 2:
        return None, None
    rng = np.random.default_rng(seed)
    drawn = rng.integers(0, len(means), (RESAMPLES, len(means)))
    low, high = np.quantile(means[drawn].mean(axis=1), [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)


def _nll(logits: Float[Array, "S V"], following: Int[Array, " S"]) -> Float[np.ndarray, " S"]:
    logs = jax.nn.log_softmax(logits)
    return -np.asarray(jnp.take_along_axis(logs, following[:, None], axis=1)[:, 0])
