"""What a gate decides."""

from typing import NamedTuple

from jaxtyping import Array, Bool, Float, Int


class GateChoice(NamedTuple):
    """The experts of each token, best first, and those that the next layer is likely to want."""

    ids: Int[Array, "T K"]
    weights: Float[Array, "T K"]
    ahead: Bool[Array, "T N"] | None  # None where no logits of the next layer were given


class GateRule(NamedTuple):
    """The static part of the gate."""

    top_k: int
    top_j: int  # of the router's best, favoured like resident ones: never displaced
    normalize: bool  # weights of a token sum to 1
