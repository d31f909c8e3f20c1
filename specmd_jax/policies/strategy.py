"""A strategy: one policy of each family, and the switches that change what is counted."""

from typing import Any, NamedTuple

from specmd_jax.core.errors import InputError
from specmd_jax.core.names import find_name
from specmd_jax.core.types import ModelShape, Params
from specmd_jax.policies.base import Eviction, Miss, Prefetch, Routing
from specmd_jax.policies.eviction import EVICTIONS
from specmd_jax.policies.miss import MISSES
from specmd_jax.policies.prefetch import PREFETCHES
from specmd_jax.policies.prefetch_guard import GuardParams
from specmd_jax.policies.routing import ROUTINGS

SCOPES = ("global", "layer")
ADMISSIONS = ("forced", "bypass")
FAMILIES = {"eviction": EVICTIONS, "prefetch": PREFETCHES, "miss": MISSES, "routing": ROUTINGS}


class Strategy(NamedTuple):
    """The four decisions. Static and hashable: a jitted function takes it as a whole."""

    eviction: Eviction = EVICTIONS["lru"]
    prefetch: Prefetch = PREFETCHES["none"]
    miss: Miss = MISSES["fetch"]
    routing: Routing = ROUTINGS["standard"]
    scope: str = "global"  # "global": one pool; "layer": a pool for each layer
    admission: str = "forced"  # "bypass": what ranks below every resident is not retained
    lookahead: int = 1  # layers ahead that the prefetcher names
    guard: bool = False  # fetch of what is named only what is worth its transfer
    touch_on_prefetch_insert: bool = True  # does an insert by prefetch count as recent?
    touch_on_prefetch_hit: bool = False  # does selecting a resident one?

    @property
    def prefetches(self) -> bool:
        return self.prefetch.select is not None

    @property
    def reads(self) -> frozenset[str]:
        """What the trace must record, or the simulator look ahead for."""
        families = (self.eviction, self.prefetch, self.miss, self.routing)
        return frozenset(need for family in families for need in family.reads)

    @property
    def open_loop(self) -> bool:
        """Whether the real model's hidden states would differ from the recorded ones."""
        return not (self.miss.lossless and self.routing.lossless)

    @property
    def structure(self) -> "Strategy":
        """The strategy without default parameters: other defaults are no other program."""
        families = {family: getattr(self, family)._replace(params=()) for family in FAMILIES}
        return self._replace(**families)

    @property
    def params(self) -> "StrategyParams":
        """The defaults of the four policies."""
        return StrategyParams(
            self.eviction.params,
            self.prefetch.params,
            self.miss.params,
            self.routing.params,
            GuardParams() if self.guard else (),
        )


# What a strategy says beside its policies, and of which type: scope, admission and the switches.
SWITCHES: dict[str, type] = {
    name: type(default)
    for name, default in Strategy._field_defaults.items()
    if name not in FAMILIES
}


class StrategyParams(NamedTuple):
    """The traced half of a strategy: batch it, and a sweep is one `vmap`."""

    eviction: Params = ()
    prefetch: Params = ()
    miss: Params = ()
    routing: Params = ()
    guard: Params = ()


def get_policy(family: str, name: str) -> Any:
    """Returns the policy called `name` of "eviction", "prefetch", "miss" or "routing".

    Raises:
      InputError: there is none; the message lists the nearest, or all.
    """
    return FAMILIES[family][find_policy(family, name)]


def find_policy(family: str, name: str) -> str:
    """Returns what the registry calls the policy that `name` spells.

    Raises:
      InputError: there is none; the message lists the nearest, or all.
    """
    return find_name(name, FAMILIES[family], f"no {family} policy is called {name!r}")


def policy_name(family: str, policy: Any) -> str | None:
    """Returns what the registry calls a policy, None if it is not registered."""
    return next((name for name, known in FAMILIES[family].items() if known == policy), None)


def make_strategy(
    eviction: str = "lru",
    prefetch: str = "none",
    miss: str = "fetch",
    routing: str = "standard",
    *,
    scope: str = "global",
    admission: str = "forced",
    **switches: Any,
) -> Strategy:
    """Returns the strategy of the named policies.

    Raises:
      InputError: a name is unknown.
    """
    scope = find_name(scope, SCOPES, f"scope {scope!r} is unknown")
    admission = find_name(admission, ADMISSIONS, f"admission {admission!r} is unknown")
    policy = get_policy("eviction", eviction)
    return Strategy(
        policy,
        get_policy("prefetch", prefetch),
        get_policy("miss", miss),
        get_policy("routing", routing),
        scope=scope,
        admission=policy.admission or admission,
        **switches,
    )


def check_strategy(strategy: Strategy, shape: ModelShape) -> None:
    """Raises InputError if the strategy asks for what the model's shape cannot give."""
    if not strategy.prefetches:
        return
    most = min(shape.num_layers - 1, strategy.prefetch.max_ahead)
    if not 1 <= strategy.lookahead <= most:
        raise InputError(
            f"lookahead {strategy.lookahead} is outside 1..{most}: this prefetcher on a model of "
            f"{shape.num_layers} MoE layers can name that far ahead"
        )
