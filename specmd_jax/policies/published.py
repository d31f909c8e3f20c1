"""Strategies by the name of the paper or system they come from, as far as replay can express them.

What a system does beyond these four decisions is said in its note. Systems whose decisions need
more than a routing trace holds are in `NOT_EXPRESSIBLE`, not approximated under their name.
"""

from typing import NamedTuple

from specmd_jax.core.errors import InputError
from specmd_jax.core.names import find_name, same_name
from specmd_jax.policies.eviction import EVICTIONS
from specmd_jax.policies.routing.cache_prior import CachePriorParams
from specmd_jax.policies.strategy import FAMILIES, Strategy, StrategyParams, make_strategy


class StrategyPreset(NamedTuple):
    """A strategy with the parameters and precisions that its authors use."""

    strategy: Strategy
    params: StrategyParams
    note: str
    source: str
    precisions: tuple[str, ...] | None = None  # None: whatever the user asks for
    start: str = "cold"


def _preset(
    note: str,
    source: str,
    *,
    precisions: tuple[str, ...] | None = None,
    start: str = "cold",
    routing_params: CachePriorParams | None = None,
    **decisions,
) -> StrategyPreset:
    strategy = make_strategy(**decisions)
    params = strategy.params
    if routing_params is not None:
        params = params._replace(routing=routing_params)
    return StrategyPreset(strategy, params, note, source, precisions, start)


def _with_least_stale(preset: StrategyPreset) -> StrategyPreset:
    least_stale = EVICTIONS["least-stale"]
    return preset._replace(
        strategy=preset.strategy._replace(eviction=least_stale),
        params=preset.params._replace(eviction=least_stale.params),
        note=f"{preset.note} With Least-Stale in place of its own eviction.",
        source="SpecMD, Table 2",
    )


_ONE = _preset(
    "Next-gate top-k prefetch, global LRU, fetch.",
    "SpecMD, Table 1 #1, after Eliseev & Mazur 2023",
    eviction="lru",
    prefetch="next-gate",
    precisions=("int4",),
)
_TWO = _preset(
    "Next-gate scores over a running quantile, score-based eviction, unbounded substitution.",
    "SpecMD, Table 1 #2, after Zhu et al. 2025",
    eviction="score-based",
    prefetch="next-gate-quantile",
    miss="substitute-unbounded",
    precisions=("int4",),
)
_THREE = _preset(
    "Next-gate top-k prefetch, least-high-precision-used, precision cascade on a miss.",
    "SpecMD, Table 1 #3, after HOBBIT 2024",
    eviction="lhu",
    prefetch="next-gate",
    miss="fetch-priority",
    precisions=("int8", "int4", "int2"),
)
_FOUR = _preset(
    "No prefetch, global LRU, fetch, routing bent by the mean logit without protecting the top.",
    "SpecMD, Table 1 #4, after Skliar et al. 2024",
    eviction="lru",
    routing="cache-prior",
    routing_params=CachePriorParams(lam=0.3, top_j=0, use_mean=True),
    precisions=("int4",),
)
_FIVE = _preset(
    "Next-gate scores over a running quantile, Least-Stale, fetch: the paper's pick.",
    "SpecMD, Table 1 #5",
    eviction="least-stale",
    prefetch="next-gate-quantile",
    precisions=("int4",),
)

STRATEGIES: dict[str, StrategyPreset] = {
    "specmd-1": _ONE,
    "specmd-2": _TWO,
    "specmd-3": _THREE,
    "specmd-4": _FOUR,
    "specmd-5": _FIVE,
    "specmd-1-ls": _with_least_stale(_ONE),
    "specmd-2-ls": _with_least_stale(_TWO),
    "specmd-3-ls": _with_least_stale(_THREE),
    "specmd-4-ls": _with_least_stale(_FOUR),
    "mixtral-offloading": _preset(
        "LRU with the same slots in every layer and the next gate's top-k. The original stages "
        "guesses in a buffer of their own and never lets them evict; here they enter the cache.",
        "Eliseev & Mazur 2023, arXiv 2312.17238",
        eviction="lru",
        prefetch="next-gate",
        scope="layer",
    ),
    "moe-infinity": _preset(
        "Fewest visits in the cache leave; the stored activation matrix most like this request's "
        "names what comes. Its priorities decay with distance; here the nearest layer goes first.",
        "Xue et al. 2024, arXiv 2401.14361",
        eviction="lfu-in-cache",
        prefetch="activation-matrix",
        lookahead=3,
    ),
    "hobbit": _preset(
        "Eq. 3 eviction, next-gate prefetch, token-level precision by accumulated gate weight. "
        "The original splits the cache by precision and prefetches mixed precision.",
        "Tang et al. 2024, arXiv 2411.01433",
        eviction="hobbit",
        prefetch="next-gate",
        miss="drop-priority-cascade",
        precisions=("bf16", "int4"),
    ),
    "adapmoe": _preset(
        "Per-layer LRU and next-gate prefetch; give its optimised quotas as --capacity 8,7,.... "
        "Its top-1 gating by layer sensitivity changes the model and is left out.",
        "Zhong et al. 2024, arXiv 2408.10284",
        eviction="lru",
        prefetch="next-gate",
        scope="layer",
    ),
    "fiddler": _preset(
        "Popular experts stay on the device; a miss of few tokens is computed on the host, of many "
        "it is streamed. Popularity is that of the replayed trace itself.",
        "Kamahori et al. 2024, arXiv 2402.07033",
        eviction="static",
        miss="cpu",
        start="popular",
    ),
    "pre-gated": _preset(
        "The next layer's experts are known one layer ahead, exactly. Only meaningful on a trace "
        "of a model fine-tuned that way: for any other it is an oracle.",
        "Hwang et al. 2023, arXiv 2308.12066",
        eviction="lfu",
        prefetch="oracle",
    ),
    "hybrimoe": _preset(
        "Lowest recent score leaves, per layer; next-gate prefetch; misses on the host. The "
        "original schedules host and device by simulation; here a token count decides.",
        "Zhong et al. 2025, arXiv 2504.05897",
        eviction="mrs",
        prefetch="next-gate",
        miss="cpu",
        scope="layer",
    ),
    "mixture-cache": _preset(
        "No prefetch, per-layer LRU, fetch, logits of resident experts raised by lambda x range.",
        "Skliar et al. 2024, arXiv 2412.00099",
        eviction="lru",
        routing="cache-prior",
        scope="layer",
    ),
}

NOT_EXPRESSIBLE = {
    "finemoe": "it matches prompt embeddings and router maps of earlier requests, which no routing "
    "trace holds, and evicts by its own predictions (arXiv 2502.05370)",
    "promoe": "its predictors are networks trained on hidden states (arXiv 2410.22134)",
    "daop": "it computes predicted experts on the host one layer early: that changes which hidden "
    "state they see (arXiv 2501.10375)",
    "expertflow": "it needs a trained predictor, and regroups tokens between requests "
    "(arXiv 2410.17954)",
}


def get_preset(name: str) -> StrategyPreset:
    """Returns the named strategy.

    Raises:
      InputError: there is none of that name, or replay cannot express it.
    """
    return STRATEGIES[find_strategy(name)]


def find_strategy(name: str) -> str:
    """Returns the strategy that `name` spells.

    Raises:
      InputError: there is none of that name, or replay cannot express it.
    """
    if (reason := same_name(name, NOT_EXPRESSIBLE)) is not None:
        raise InputError(f"strategy {name!r} cannot be replayed: {NOT_EXPRESSIBLE[reason]}")
    complaint = f"no strategy is called {name!r}"
    for family, policies in FAMILIES.items():
        policy = same_name(name, policies)
        if policy is not None and same_name(name, STRATEGIES) is None:
            raise InputError(f"{complaint}: write --{family} {policy} for the policy of that name")
    return find_name(name, STRATEGIES, complaint)
