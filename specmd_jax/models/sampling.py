"""How the next token is drawn from the logits."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key

from specmd_jax.core.errors import InputError


@dataclass(frozen=True)
class Sampling:
    """Greedy by default.

    Raises:
      InputError: a parameter is out of range.
    """

    temperature: float = 0.0  # 0 takes the likeliest token
    top_p: float = 1.0  # draws from the likeliest tokens of this mass (arXiv 1904.09751)

    def __post_init__(self) -> None:
        if not self.temperature >= 0:
            raise InputError(f"temperature {self.temperature} is negative: 0 is greedy, 1 as is")
        if not 0 < self.top_p <= 1:
            raise InputError(f"top-p {self.top_p} is not in (0, 1]: 1 draws from all tokens")


def sample(
    logits: Float[Array, "B V"], sampling: Sampling, key: Key[Array, ""]
) -> Int[Array, " B"]:
    """Returns a token a sequence; the same one for the same key."""
    if sampling.temperature == 0:
        return jnp.argmax(logits, axis=-1).astype(jnp.int32)
    logits = logits / sampling.temperature
    if sampling.top_p < 1:
        logits = jnp.where(_likeliest(logits, sampling.top_p), logits, -jnp.inf)
    return jax.random.categorical(key, logits, axis=-1).astype(jnp.int32)


def _likeliest(logits: Float[Array, "B V"], mass: float) -> Array:
    """Marks the fewest tokens that reach `mass` together; the likeliest one always."""
    falling = jnp.sort(logits, axis=-1, descending=True)
    probs = jax.nn.softmax(falling, axis=-1)
    needed = jnp.cumsum(probs, axis=-1) - probs < mass
    least = jnp.min(jnp.where(needed, falling, jnp.inf), axis=-1, keepdims=True)
    return logits >= least
