"""TTFT and TPOT in closed form: what a pass takes, given how often an expert is there.

No trace is replayed. The times of a layer's parts are those of `roofline`; what is added here is
how they overlap, in expectation:

  layer = attention + shared + E[max(d + n e + m a, m l + e + a, l + m (e + a))]
  m ~ Binomial(n, 1 - hit rate)

for n experts demanded, e the time of one on the device, a what one takes longer that arrives, l a
transfer and d a decision, if there is one to make: residents compute while the misses load one
after another, and each runs as soon as it is there, the main loop of SpecMD's Figure 2
(docs/semantics.md, section 8). That misses are independent is this model's assumption;
experiments/predict_error/run.py prices it. Everything is differentiable in the times and in the
rates.
"""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.scipy.special import gammaln
from jaxtyping import Array, Float, Int

from specmd_jax.hardware.profiles import HardwareProfile
from specmd_jax.hardware.roofline import attention_s, expert_roof, head_s, shared_s, transfer_s
from specmd_jax.model_zoo import ModelSpec

Scalar = Float[Array, ""] | float
ROUNDS = 24  # of the fixed point between what is prefetched and how long a layer takes
_NEVER = 1e-9  # keeps logarithms and quotients finite


class PassParts(NamedTuple):
    """The times of one pass's parts in seconds, each of one MoE layer but for `head`."""

    attention: Scalar  # with router, norms and dispatch
    shared: Scalar
    head: Scalar
    expert_memory: Scalar  # reading one expert
    expert_token: Scalar  # arithmetic of one expert for one token
    load: Scalar  # one transfer to the device
    arrive: Scalar = 0.0  # what an expert that arrives takes longer
    decide: Scalar = 0.0  # of the host, beside the loads


class Foresight(NamedTuple):
    """How good a prefetcher is, one layer ahead, on what it really fetches.

    Precision is that of absent experts: a predictor that is right four times in five overall is
    right far less often about those that are not there yet.
    """

    recall: Scalar = 0.0  # of the misses, the share that is named
    precision: Scalar = 1.0  # of the absent experts named, the share that is used


class Overheads(NamedTuple):
    """What software takes, in seconds, beside computing and loading."""

    arrive: Scalar = 0.0  # for an expert that arrives
    decide: Scalar = 0.0  # for a decision, beside the loads
    always: bool = False  # is there one to make where nothing is missing?

    def deciding(self, experts: Scalar, missing: Scalar, most: int) -> Float[Array, ""]:
        """Returns what decisions take of a layer, in expectation."""
        if self.always:
            return jnp.asarray(self.decide)
        some = 1 - binomial(experts, missing, most)[0]
        return self.decide * jnp.where(jnp.asarray(experts) > most, 1.0, some)


class PassTime(NamedTuple):
    """Where the time of a pass goes, in seconds; the three shares add up to `total`."""

    total: Scalar
    software: Scalar  # attention, router, dispatch, shared experts, head, and deciding
    experts: Scalar  # computing the routed experts
    link: Scalar  # waiting for transfers
    loads: Scalar  # transfers on demand, of the whole pass
    prefetched: Scalar  # transfers ahead of demand


def pass_parts(
    spec: ModelSpec,
    hardware: HardwareProfile,
    precision: str = "bf16",
    *,
    tokens: int = 1,
    context: int = 1024,
    sequences: int = 1,
    expert_bytes: int | None = None,
) -> PassParts:
    """Returns the times of a pass of `tokens` tokens over `sequences` sequences.

    Args:
      context: length of each sequence at the end of the pass, those tokens included.
      expert_bytes: of one copy; None: the model's at `precision`.

    Raises:
      InputError: the precision is unknown, or the context cannot hold the tokens.
    """
    roof = expert_roof(spec, hardware, precision)
    nbytes = spec.expert_bytes(precision) if expert_bytes is None else expert_bytes
    return PassParts(
        attention_s(spec, hardware, tokens, context, sequences=sequences),
        shared_s(spec, hardware, tokens),
        head_s(spec, hardware, sequences),
        roof.floor_s,
        roof.per_token_s,
        transfer_s(hardware, nbytes),
        hardware.arrive_s,
        hardware.decide_s,
    )


@partial(jax.jit, static_argnames="most")
def pass_time(
    parts: PassParts,
    num_layers: Int[Array, ""] | int,
    experts: Scalar,
    hit_rate: Scalar,
    foresight: Foresight | None = None,
    *,
    tokens_per_expert: Scalar = 1.0,
    most: int = 64,
) -> PassTime:
    """Returns the expected time of a pass that demands `experts` experts of each layer.

    Args:
      hit_rate: share of the demand that the cache holds without any prefetch.
      foresight: of the prefetcher; None: there is none.
      most: static bound on `experts`; above it the misses are taken at their mean.
    """
    expert = jnp.maximum(parts.expert_memory, tokens_per_expert * parts.expert_token)
    missing = experts * (1 - hit_rate)
    fixed = parts.attention + parts.shared
    software = Overheads(parts.arrive, parts.decide, foresight is not None)
    foresight = Foresight(0.0, 1.0) if foresight is None else foresight
    named = missing * foresight.recall / jnp.maximum(foresight.precision, _NEVER)
    load = jnp.maximum(parts.load, _NEVER)

    def refine(_, guess: tuple[Array, Array]) -> tuple[Array, Array]:
        started, overrun = guess
        on_demand = missing - started * foresight.precision
        end = served_s(experts, expert, parts.load, on_demand, overrun, software, most=most)
        window = fixed + end - on_demand * load - overrun  # until the next gate, the link free
        # A transfer that begins before the next gate is not aborted: on average half of one more.
        started = (started + jnp.clip(window / load + 0.5, 0.0, named)) / 2
        late = jnp.where(started < named, jnp.clip(started * load - window, 0.0, load), 0.0)
        return started, late * jnp.minimum(started, 1.0)

    nothing = jnp.zeros(jnp.shape(missing))
    started, overrun = lax.fori_loop(0, ROUNDS, refine, (nothing, nothing))
    useful = started * foresight.precision
    on_demand = missing - useful
    end = served_s(experts, expert, parts.load, on_demand, overrun, software, most=most)
    busy = experts * expert + on_demand * parts.arrive
    decided = software.deciding(experts, on_demand, most)
    return PassTime(
        num_layers * (fixed + end) + parts.head,
        num_layers * (fixed + decided) + parts.head,
        num_layers * busy,
        num_layers * (end - busy - decided),
        num_layers * on_demand,
        num_layers * started,
    )


def served_s(
    experts: Scalar,
    expert: Scalar,
    load: Scalar,
    missing: Scalar,
    busy_link: Scalar = 0.0,
    software: Overheads | None = None,
    *,
    most: int = 64,
) -> Float[Array, ""]:
    """Returns the expected seconds from gate to the last expert's end.

    Args:
      missing: of the experts, how many must be loaded on average.
      busy_link: seconds until the link is free.
      software: what it takes; None: no time.
      most: static bound on `experts`; above it the misses are taken at their mean.
    """
    software = Overheads() if software is None else software
    each = expert + software.arrive

    def end(misses: Array) -> Array:
        alone = software.decide + experts * expert + misses * software.arrive
        last = busy_link + misses * load + each
        return jnp.maximum(alone, jnp.maximum(last, busy_link + load + misses * each))

    smooth = experts * expert + (software.decide if software.always else 0.0)
    count = jnp.arange(most + 1, dtype=jnp.float32)
    few = jnp.sum(binomial(experts, missing, most) * jnp.where(count == 0, smooth, end(count)))
    at_mean = jnp.where(jnp.asarray(missing) > 0, end(jnp.asarray(missing)), smooth)
    return jnp.where(jnp.asarray(experts) > most, at_mean, few)


def binomial(experts: Scalar, missing: Scalar, most: int) -> Float[Array, " M"]:
    """Returns the chances of 0..most misses among `experts`, which need not be a whole number."""
    size = jnp.minimum(jnp.asarray(experts, jnp.float32), most)
    chance = jnp.clip(missing / jnp.maximum(size, _NEVER), _NEVER, 1 - 1e-6)
    count = jnp.arange(most + 1, dtype=jnp.float32)
    rest = jnp.maximum(size - count, 0.0)
    ways = gammaln(size + 1) - gammaln(count + 1) - gammaln(rest + 1)
    log = ways + count * jnp.log(chance) + rest * jnp.log1p(-chance)
    weight = jnp.where(count <= jnp.ceil(size), jnp.exp(log), 0.0)
    return weight / jnp.sum(weight)


def demanded_by_batch(num_experts: int, top_k: int, tokens: Scalar) -> Float[Array, ""]:
    """Returns the distinct experts that unrelated tokens demand of one layer, in expectation.

    Experts are grouped by popularity: N (1 - (1 - k share / n)^tokens) of each group of n. The
    shares are those of Qwen3-30B-A3B, where 10, 20 and 40 % of the experts draw 24.8, 44.0 and
    72.3 % of the uses (arXiv 2608.07911).
    """
    total = jnp.zeros(())
    for part, share in _POPULARITY:
        group = part * num_experts
        chance = jnp.minimum(top_k * share / group, 1.0 - 1e-7)
        total = total + group * -jnp.expm1(tokens * jnp.log1p(-chance))
    # What the groups cannot know: a token chooses k different experts.
    return jnp.clip(total, min(top_k, num_experts), num_experts)


_POPULARITY = ((0.1, 0.248), (0.1, 0.440 - 0.248), (0.2, 0.723 - 0.440), (0.6, 1 - 0.723))


def demanded_in_a_row(
    num_experts: int, top_k: int, tokens: int, jaccard: Scalar = 0.293
) -> Float[Array, ""]:
    """Returns the distinct experts that consecutive tokens of one sequence demand of one layer.

    Each token keeps the share 2J / (1 + J) of the last one's experts; of its others, those that
    older tokens brought are there by chance. J = 0.293 is Qwen3-30B-A3B's (arXiv 2608.07911).

    Args:
      tokens: consecutive ones, in one pass.
      jaccard: overlap of two tokens' sets of experts that follow each other, in 0..1.
    """
    kept = 2 * jaccard / (1 + jaccard)
    seen = jnp.float32(top_k)
    for _ in range(tokens - 1):
        older = (seen - top_k) / max(num_experts - top_k, 1)
        seen = seen + top_k * (1 - kept) * (1 - older)
    return jnp.minimum(seen, num_experts)
