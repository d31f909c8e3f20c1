"""Without a kernel: XLA's own top-k, which is quick for so few experts."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from specmd_kernels.gate_topk.types import GateChoice, GateRule


def gate_topk(
    rule: GateRule,
    scalars: Float[Array, "2"],
    logits: Float[Array, "T N"],
    resident: Bool[Array, " N"],
    next_logits: Float[Array, "T N"] | None,
) -> GateChoice:
    """See `api.gate_topk`; `scalars` are the bonus and the threshold.

    Args:
      rule: top-k, top-j and normalisation.
      scalars: the bonus of residents and the threshold of foresight.
      logits: of the gate.
      resident: experts that are on the device.
      next_logits: of the next gate by the same hidden states; None: nothing is foreseen.
    """
    logits = logits.astype(jnp.float32)
    best = jax.lax.top_k(logits, rule.top_j)[1]
    leading = jnp.any(jax.nn.one_hot(best, logits.shape[1], dtype=bool), axis=1)
    bent = logits + jnp.where(resident | leading, scalars[0], 0)
    ids = jax.lax.top_k(bent, rule.top_k)[1]
    weights = jnp.take_along_axis(jax.nn.softmax(logits), ids, axis=1)
    if rule.normalize:
        weights = weights / jnp.sum(weights, axis=1, keepdims=True)
    if next_logits is None:
        return GateChoice(ids, weights, None)
    return GateChoice(ids, weights, jax.nn.softmax(next_logits.astype(jnp.float32)) > scalars[1])
