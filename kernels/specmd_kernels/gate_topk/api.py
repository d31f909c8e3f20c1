"""Softmax, top-k, the bonus of residents and the next layer's mask, in one pass."""

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from specmd_kernels.dispatch import Implementation, call
from specmd_kernels.gate_topk.types import GateChoice, GateRule


def gate_topk(
    logits: Float[Array, "T N"],
    resident: Bool[Array, " N"],
    next_logits: Float[Array, "T N"] | None = None,
    *,
    top_k: int,
    top_j: int = 0,
    normalize: bool = False,
    bonus: Float[Array, ""] | float = 0.0,
    threshold: Float[Array, ""] | float = 0.0,
    implementation: Implementation | None = None,
) -> GateChoice:
    """Chooses the experts of each token; all arithmetic is in float32.

    The best `top_k` of the bent logits are chosen, ties falling to the lower expert; the softmax
    of the logits as they were weighs them. Equivalent to `reference.gate_topk`.

    Args:
      logits: of this layer's gate.
      resident: experts on the device.
      next_logits: of the next layer's gate on the same hidden states.
      top_k: experts a token, at most N.
      top_j: how many of the router's best have the bonus whether resident or not.
      normalize: whether the weights of a token sum to 1.
      bonus: added to the logits of favoured experts (Cache-Prior, arXiv 2412.00099: a share of
        the usual range of the logits).
      threshold: probability above which the next layer is taken to want an expert.

    Raises:
      NotImplementedError: the implementation asked for by name declines.
    """
    rule = GateRule(top_k, top_j, normalize)
    scalars = jnp.stack([jnp.asarray(bonus, jnp.float32), jnp.asarray(threshold, jnp.float32)])
    if logits.shape[0] == 0:
        nobody = jnp.zeros((0, top_k))
        ahead = None if next_logits is None else jnp.zeros(next_logits.shape, bool)
        return GateChoice(nobody.astype(jnp.int32), nobody, ahead)
    return call("gate_topk", implementation, rule, scalars, logits, resident, next_logits)
