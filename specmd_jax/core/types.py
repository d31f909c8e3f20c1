"""The data that every floor of the package speaks: no behaviour, only shapes and meaning.

Axes, named once and used everywhere:
  T  token rows of a trace       P  forward passes           L  MoE layers
  N  routed experts of a layer   K  experts a token (top-k)  D  lookahead, in layers
  Q  precision tiers             W  cache pools (1 when global, L when each layer has its own)

Integers carry whatever is ranked or compared, so that two programs agree to the last count:
router scores are fixed point (`ONE` is 1.0), capacities and expert sizes are whole units, and
times are whole ticks.
"""

from typing import Any, NamedTuple

from jaxtyping import Array, Bool, Int, Int8

ONE = 1 << 20  # 1.0 in the fixed-point scale of gate weights, router scores and predictions
LOGIT_ONE = 1 << 16  # 1.0 in the fixed-point scale of router logits
NEVER = 1 << 30  # the next use of an expert that is not used again; no trace has so many events
ABSENT = -1  # the tier of an expert that is not on the device

Params = Any  # what a policy is tuned by: a pytree of scalars, so that a batch of them is a sweep
State = Any  # what a policy remembers: a pytree of arrays of fixed shape


class ModelShape(NamedTuple):
    """The static part of a model: hashable, so that a jitted function takes it as static."""

    num_layers: int
    num_experts: int
    top_k: int


class Events(NamedTuple):
    """A trace made dense, pass by pass: what a scan over passes consumes.

    The optional fields are None unless a policy of the strategy reads them, see
    `policies.base.Eviction`.
    """

    tokens: Int[Array, " P"]  # tokens that the pass computes
    prefill: Bool[Array, " P"]
    fresh: Bool[Array, " P"]  # the pass is the first of a new request
    valid: Bool[Array, " P"]  # False pads the last chunk: such a pass asks for nothing
    routed: Int[Array, "P L N"]  # tokens routed to each expert; an expert is demanded if > 0
    gate: Int[Array, "P L N"]  # gate weight, mean over the tokens of the pass, 0 where unused
    next_use: Int[Array, "P L N"] | None  # event that next demands the expert, after this one
    upcoming: Bool[Array, "P L D N"] | None  # what the layers 1..D ahead will demand
    predicted: Int[Array, "P L D N"] | None  # router probability foreseen for 1..D layers ahead
    logits: Int[Array, "P L N"] | None  # router logits
    probs: Int[Array, "P L N"] | None  # router probabilities, of all experts


class Event(NamedTuple):
    """Layer `layer` of pass `step` asks for a set of experts."""

    clock: Int[Array, ""]  # step * L + layer: what all recency is measured by
    step: Int[Array, ""]  # the pass, from 0
    layer: Int[Array, ""]
    tokens: Int[Array, ""]
    prefill: Bool[Array, ""]
    fresh: Bool[Array, ""]  # the first event of a new request
    valid: Bool[Array, ""]
    used: Bool[Array, " N"]  # the demand set, after routing
    routed: Int[Array, " N"]
    gate: Int[Array, " N"]
    next_use: Int[Array, " N"] | None
    upcoming: Bool[Array, "D N"] | None
    predicted: Int[Array, "D N"] | None
    logits: Int[Array, " N"] | None
    probs: Int[Array, " N"] | None


class CacheState(NamedTuple):
    """What is on the device, and the bookkeeping that every policy shares."""

    tier: Int8[Array, "L N"]  # precision tier of the resident copy, ABSENT if there is none
    last_used: Int[Array, "L N"]  # event of last use, -1 before the first: breaks every tie
    next_use: Int[Array, "L N"] | None  # event that next demands the expert, NEVER if none
    speculative: Bool[Array, "L N"] | None  # brought by a prefetch, unused since; None: no prefetch
    seen: Bool[Array, "L N"]  # demanded before: a miss on the rest is compulsory
    evicted: Bool[Array, "L N"]  # evicted during the current pass: a miss on it is a collision
    occupied: Int[Array, " W"]  # units taken, by pool
    copies: Int[Array, " W"]  # resident experts, by pool
    broken: Bool[Array, ""]  # a policy's score was not a number: nothing counted since is right

    @property
    def one_pool(self) -> bool:
        """Whether all layers share one pool; else each has its own."""
        return self.copies.shape[0] == 1


class Flight(NamedTuple):
    """The one copy that is on the link: its slot is taken, its weights are not there yet."""

    layer: Int[Array, ""]  # -1 when the link is idle
    expert: Int[Array, ""]


class Outcome(NamedTuple):
    """What serving a demand, or letting one prefetch in, did to the cache."""

    demand: bool  # a Python bool: True for an event's demand, False for one prefetch target
    layer: Int[Array, ""]  # the layer that the masks of one row speak of
    step: Int[Array, ""]  # the pass for which that layer's experts were used or named
    used: Bool[Array, " N"]  # used on demand, whether found or loaded; empty for a prefetch
    found: Bool[Array, " N"]  # of these, the ones demanded that were on the device or on their way
    high: Bool[Array, " N"]  # of these, used at the highest precision
    selected: Bool[Array, " N"]  # selected by the prefetcher; empty for a demand
    inserted: Bool[Array, " N"]  # newly resident
    evicted: Bool[Array, "L N"]
