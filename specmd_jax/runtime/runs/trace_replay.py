"""Replay mode: a model of any zoo shape with random weights, its routing forced from a trace.

Times depend on what is moved and computed, not on what it means: so the real timing of a model can
be had without its weights. All layers share one set of random experts, which are copied from
different places of host memory all the same.
"""

import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Int

from specmd_jax.core.errors import InputError
from specmd_jax.model_zoo import GroupedQuery, ModelSpec
from specmd_jax.models import Decoder, DecoderConfig, ExpertWeights, KvCache, Pass
from specmd_jax.models.config import Attention, Rope, Router
from specmd_jax.models.layers.kv_cache import empty_cache
from specmd_jax.policies.base import LOGITS, PREDICTED, PROBS
from specmd_jax.runtime.engine import OffloadedModel
from specmd_jax.runtime.forward.pass_state import PassState
from specmd_jax.runtime.gates.message import forced_message
from specmd_jax.runtime.offload.store import ExpertStore
from specmd_jax.runtime.runs.generation import Generation, summarise_run
from specmd_jax.runtime.transfer.link import DirectLink, Link
from specmd_jax.study.setup import Setup
from specmd_jax.traces import PAD, PREFILL, Trace
from specmd_kernels import Implementation

DEVIATION = 0.02  # of random weights


def shaped_config(spec: ModelSpec) -> DecoderConfig:
    """Returns a decoder of a zoo model's sizes: plain softmax routing, plain rotary positions.

    Raises:
      InputError: its attention is of a kind that is not grouped-query.
    """
    mixer = spec.mixers[0]
    if not isinstance(mixer, GroupedQuery) or any(one != mixer for one in spec.mixers):
        raise InputError(
            f"{spec.name} has attention that replay mode does not shape: choose a model whose "
            "layers are all of one grouped-query kind, such as olmoe or qwen3-30b-a3b"
        )
    rope = Rope.plain(10_000.0, mixer.head_dim)
    return DecoderConfig(spec, rope, Attention(scale=mixer.head_dim**-0.5), router=Router())


def shaped_decoder(config: DecoderConfig, dtype: Any) -> Decoder:
    """Returns a decoder with random weights."""
    return Decoder(config, nnx.Rngs(0), dtype)


def shaped_store(spec: ModelSpec, dtype: Any, precisions: tuple[str, ...]) -> ExpertStore:
    """Returns random experts, one layer of them for all layers."""
    rng = np.random.default_rng(0)

    def drawn(*shape: int) -> np.ndarray:
        values = rng.standard_normal((spec.num_experts, *shape), np.float32)
        return (DEVIATION * values).astype(jnp.dtype(dtype))

    size, width = spec.hidden_size, spec.moe_intermediate_size
    bias = spec.expert_bias
    experts = ExpertWeights(
        drawn(size, 2 * width),
        drawn(width, size),
        drawn(2 * width) if bias else None,
        drawn(size) if bias else None,
    )
    return ExpertStore.repeated(experts, spec.num_moe_layers, precisions)


class ForcedModel(OffloadedModel):
    """An offloaded model whose gates choose what a trace says."""

    _rows: tuple[np.ndarray, np.ndarray] | None = None  # ids and weights of the pass, [T, L, K]

    def force(self, ids: Int[np.ndarray, "T L K"], weights: np.ndarray) -> None:
        """Takes what the gates of the next pass shall choose."""
        self._rows = ids.astype(np.int32), weights.astype(np.float32)

    def _await_message(self, state: PassState) -> Int[np.ndarray, "1 T M"]:
        assert self._rows is not None
        ids, weights = (part[:, state.layer] for part in self._rows)
        super()._await_message(state)  # asks before it is told: a run would wait as long
        state.choose(state.gate._replace(ids=jnp.asarray(ids), weights=jnp.asarray(weights)))
        return forced_message(ids, weights)

    def _dispatch_whole(self, tokens: Int[Array, "B S"], cache: KvCache) -> None:
        """Never: a program of a whole pass asks the gates themselves."""


def replay_passes(
    model: ForcedModel, trace: Trace, most: int | None = None
) -> Iterator[tuple[bool, Pass]]:
    """Runs the passes of a trace, one request after the other; yields whether each was prefill.

    Tokens are made up; a pass is done when its logits are.

    Args:
      model: of the trace's shape.
      trace: single requests, not batched.
      most: passes, at most; None: all.

    Raises:
      InputError: the trace is of another shape, or its requests share passes.
    """
    spec = model.config.spec
    if trace.shape[:2] != spec.shape[:2] or trace.shape[2] != spec.top_k:
        raise InputError(f"the trace is of {tuple(trace.shape)}, {spec.name} of {spec.shape}")
    weights = trace.weights
    if weights is None:
        weights = np.where(trace.experts == PAD, 0.0, 1.0 / spec.top_k).astype(np.float32)
    cache: KvCache | None = None
    request = -1
    for step in range(trace.num_passes if most is None else min(most, trace.num_passes)):
        rows = np.flatnonzero(trace.step == step)
        owners = set(trace.request[rows].tolist())
        if len(owners) != 1:
            raise InputError("requests share passes in this trace: replay mode takes single ones")
        if (owner := owners.pop()) != request or cache is None:
            request, length = owner, int((trace.request == owner).sum())
            cache = empty_cache(model.config, 1, length, jnp.zeros(1, jnp.int32), _dtype(model))
        model.force(trace.experts[rows], weights[rows])
        tokens = jnp.asarray(rows[None] % spec.vocab_size, jnp.int32)
        done = model(tokens, cache)
        jax.block_until_ready(done.logits)
        cache = done.cache
        yield bool((trace.phase[rows] == PREFILL).any()), done


def time_passes(
    model: ForcedModel, trace: Trace, most: int | None = None
) -> tuple[list[float], list[bool]]:
    """Returns the seconds of each pass and whether it was prefill; all is compiled before.

    Args:
      model: begins anew.
      trace: see `replay_passes`.
      most: passes, at most.
    """
    link = model.link
    model.link = DirectLink()
    model.reset()
    for _ in replay_passes(model, trace, most):
        pass
    model.link = link
    model.reset()
    seconds, prefill, begun = [], [], time.perf_counter()
    for first, _ in replay_passes(model, trace, most):
        now = time.perf_counter()
        seconds.append(now - begun)
        prefill.append(first)
        begun = now
    return seconds, prefill


def _dtype(model: OffloadedModel) -> Any:
    return model.store.packings[0].compute


def open_forced(
    spec: ModelSpec,
    setup: Setup,
    dtype: str,
    link: Link | None,
    implementation: Implementation | None = None,
) -> ForcedModel:
    """Returns a model of a zoo model's shape under a strategy.

    Args:
      spec: the model.
      setup: strategy and capacity.
      dtype: of its random weights.
      link: to the device; its own by default.
      implementation: of the experts' kernel; None: the platform's.

    Raises:
      InputError: the model cannot be shaped, or the strategy cannot be run.
    """
    if setup.strategy.reads & {PREDICTED, LOGITS, PROBS}:
        raise InputError(
            "the strategy reads the gates' scores, which random weights do not have: use specmd "
            "simulate, or specmd generate with the model's weights"
        )
    config = shaped_config(spec)
    store = shaped_store(spec, dtype, setup.precisions)
    setup = replace(setup, with_scales=True)
    decoder = shaped_decoder(config, jnp.dtype(dtype))
    return ForcedModel(decoder, store, setup, link, implementation=implementation)


def summarise_replay(
    model: ForcedModel, trace: Trace, seconds: list[float], prefill: list[bool]
) -> dict[str, Any]:
    """Returns the result of `time_passes` as `summarise_run` has it: TTFT is of prefill passes.

    Args:
      model: that ran nothing else since it began anew.
      trace: whose first passes it ran.
      seconds: of each pass.
      prefill: whether each was one of prefill.
    """
    first = [one for one, is_first in zip(seconds, prefill, strict=True) if is_first]
    rest = [one for one, is_first in zip(seconds, prefill, strict=True) if not is_first]
    at_s = np.cumsum([float(np.mean(first)) if first else 0.0, *rest]).tolist()
    made = Generation([[0] * len(at_s)], at_s, sum(seconds))
    tokens = np.bincount(trace.step)[: len(seconds)]
    prompts = int(tokens[np.asarray(prefill, bool)].sum())
    return summarise_run(model, made) | {
        "ttft_s": at_s[0] if first else None,
        "tokens": int(tokens.sum()),
        "tokens_per_s": (int(tokens.sum()) - prompts) / sum(rest) if rest else None,
        "prefill_tokens_per_s": prompts / sum(first) if first else None,
    }
