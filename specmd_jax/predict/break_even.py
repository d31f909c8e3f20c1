"""When a pass of several tokens pays: speculative decoding and batches beside an expert cache.

More tokens a pass ask for more distinct experts, so the miss cost grows with them while attention
and dispatch are shared: both questions are about the union of experts.
"""

from collections.abc import Callable

import jax.numpy as jnp
from jaxtyping import Array, Float

from specmd_jax.hardware.profiles import HardwareProfile
from specmd_jax.model_zoo import ModelSpec
from specmd_jax.predict.latency import (
    PassTime,
    Scalar,
    demanded_by_batch,
    demanded_in_a_row,
    pass_parts,
    pass_time,
)

HALVINGS = 30


def accepted(draft: int, acceptance: Scalar) -> Scalar:
    """Returns the tokens that one verified pass yields: (1 - a^(draft + 1)) / (1 - a).

    Source: Leviathan et al. 2023 (arXiv 2211.17192), Eq. 1.
    """
    rate = jnp.clip(jnp.asarray(acceptance, jnp.float32), 0.0, 1 - 1e-6)
    return (1 - rate ** (draft + 1)) / (1 - rate)


def batch_pass(
    spec: ModelSpec,
    hardware: HardwareProfile,
    precision: str,
    hit_rate: Scalar,
    batch: int,
    *,
    context: int = 1024,
) -> PassTime:
    """Returns the time of a decode pass of `batch` unrelated sequences.

    Args:
      precision: of the expert copies.
      hit_rate: of a sequence alone, in 0..1.
      context: tokens in the KV cache of each sequence.
    """
    parts = pass_parts(spec, hardware, precision, tokens=batch, context=context, sequences=batch)
    union = demanded_by_batch(spec.num_experts, spec.top_k, float(batch))
    if batch == 1:
        union = jnp.float32(spec.top_k)
    return _of_union(spec, parts, union, hit_rate, batch)


def verify_pass(
    spec: ModelSpec,
    hardware: HardwareProfile,
    precision: str,
    hit_rate: Scalar,
    draft: int,
    *,
    context: int = 1024,
) -> PassTime:
    """Returns the time of the pass that checks `draft` drafted tokens and adds one.

    Args:
      precision: of the expert copies.
      hit_rate: of a pass of one token, in 0..1.
      context: tokens in the KV cache.
    """
    tokens = draft + 1
    parts = pass_parts(spec, hardware, precision, tokens=tokens, context=max(context, tokens))
    union = demanded_in_a_row(spec.num_experts, spec.top_k, tokens)
    return _of_union(spec, parts, union, hit_rate, tokens)


def _of_union(
    spec: ModelSpec, parts, union: Float[Array, ""], hit_rate: Scalar, tokens: int
) -> PassTime:
    return pass_time(
        parts,
        spec.num_moe_layers,
        union,
        hit_rate,
        tokens_per_expert=tokens * spec.top_k / union,
        most=spec.num_experts,
    )


def break_even_acceptance(
    spec: ModelSpec,
    hardware: HardwareProfile,
    precision: str,
    hit_rate: float,
    draft: int,
    *,
    context: int = 1024,
    draft_s: float = 0.0,
) -> float | None:
    """Returns the acceptance from which speculative decoding is faster; None: it never is.

    Args:
      draft_s: seconds that the draft model takes for one token.
    """
    one = float(batch_pass(spec, hardware, precision, hit_rate, 1, context=context).total)
    many = float(verify_pass(spec, hardware, precision, hit_rate, draft, context=context).total)
    needed = (many + draft * draft_s) / one
    if needed >= draft + 1:
        return None
    return _bisect(lambda rate: float(accepted(draft, rate)) >= needed)


def batch_gain(
    spec: ModelSpec,
    hardware: HardwareProfile,
    precision: str,
    hit_rate: float,
    batch: int,
    *,
    context: int = 1024,
    batch_hit_rate: float | None = None,
) -> float:
    """Returns how many times the tokens a second of one sequence a batch of them makes.

    Args:
      batch_hit_rate: of the batch, whose KV cache takes slots from the experts; None: the same.
    """
    theirs = hit_rate if batch_hit_rate is None else batch_hit_rate
    one = batch_pass(spec, hardware, precision, hit_rate, 1, context=context).total
    many = batch_pass(spec, hardware, precision, theirs, batch, context=context).total
    return batch * float(one) / float(many)


def _bisect(enough: Callable[[float], bool]) -> float:
    low, high = 0.0, 1.0
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        low, high = (low, middle) if enough(middle) else (middle, high)
    return high
