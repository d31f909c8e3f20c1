"""The laws that every eviction policy obeys, under every scope and admission, from one table.

A policy that is added to the dict is tried here by itself.
"""

from functools import partial

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings

from specmd_jax.core.errors import InputError
from specmd_jax.policies.base import Eviction, stateless_init, stateless_update
from specmd_jax.policies.eviction import EVICTIONS
from specmd_jax.policies.strategy import SCOPES, Strategy, make_strategy
from specmd_jax.simulator.batch import SimConfig, SimResult, run_batch
from specmd_jax.simulator.timeline import Costs
from specmd_jax.traces import Trace
from tests.helpers.compiles import compiles
from tests.helpers.laws import (
    FITS,
    LARGEST,
    SHAPE,
    SLOTS,
    Way,
    check_laws,
    demands,
    lone_demands,
    split,
    trace_of,
    ways,
)
from tests.helpers.laws import run as replay_way

pytestmark = pytest.mark.matrix

given_some = partial(
    settings,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.too_slow],
)
UNITS = np.ones((SHAPE.num_layers, 1), np.int32)


@pytest.mark.parametrize("way", ways(), ids=str)
def test_every_law_holds(way: Way):
    @given_some(max_examples=8)
    @given(lone_demands())
    def check(masks: np.ndarray):
        check_laws(way, trace_of(masks))

    check()


@pytest.mark.parametrize("scope", SCOPES)
def test_no_forced_policy_beats_belady_where_every_event_fits(scope: str):
    names = [way for way in ways() if way.scope == scope and way.admission == "forced"]
    fits = (LARGEST if scope == "global" else FITS) <= SLOTS

    @given_some(max_examples=10)
    @given(demands())
    def check(masks: np.ndarray):
        trace = trace_of(masks)
        best = replay_way(Way("belady", scope, "forced"), trace).seen.total["hits"][fits]
        for way in names:
            hits = replay_way(way, trace).seen.total["hits"][fits]
            assert (hits <= best).all(), str(way)

    check()


@pytest.mark.parametrize("scope", SCOPES)
def test_more_slots_never_cost_lru_a_hit(scope: str):
    fits = (LARGEST if scope == "global" else FITS) <= SLOTS

    @given_some(max_examples=60)
    @given(demands())
    def check(masks: np.ndarray):
        hits = replay_way(Way("lru", scope, "forced"), trace_of(masks)).seen.total["hits"]
        assert (np.diff(hits[fits]) >= 0).all()

    check()


def some_trace(seed: int = 0, passes: int = 40) -> Trace:
    rng = np.random.default_rng(seed)
    return trace_of(rng.integers(1, 16, (passes, SHAPE.num_layers)).astype(np.uint8))


def tallies(
    strategy: Strategy, capacities: np.ndarray, costs: Costs | None = None
) -> list[SimResult]:
    configs = [SimConfig(strategy.params, units, costs) for units in capacities]
    return run_batch(some_trace(), strategy, configs, UNITS)


@pytest.mark.parametrize("scope", SCOPES)
@pytest.mark.parametrize("name", [name for name in EVICTIONS if EVICTIONS[name].distinct])
def test_scores_that_are_distinct_rank_without_recency(name: str, scope: str):
    for prefetch in ("none", "previous"):
        strategy = make_strategy(name, prefetch, scope=scope)
        by_both = strategy._replace(eviction=strategy.eviction._replace(distinct=False))
        capacities = split(SLOTS, scope)
        expected = tallies(by_both, capacities)
        for one, other in zip(tallies(strategy, capacities), expected, strict=True):
            for field in one.counts._fields:
                np.testing.assert_array_equal(
                    getattr(one.counts, field), getattr(other.counts, field), err_msg=field
                )


@pytest.mark.parametrize("scope", SCOPES)
@pytest.mark.parametrize("name", ["lru", "s3-fifo", "score-based", "belady"])
def test_a_batch_is_a_loop(name: str, scope: str):
    strategy = make_strategy(name, scope=scope)
    capacities = split(SLOTS, scope)
    together = tallies(strategy, capacities)
    for one, units in zip(together, capacities, strict=True):
        (alone,) = tallies(strategy, units[None])
        for field in one.counts._fields:
            np.testing.assert_array_equal(getattr(one.counts, field), getattr(alone.counts, field))


def test_any_number_of_settings_is_one_compile():
    strategy = make_strategy("lfu-decay")
    tallies(strategy, split(SLOTS, "global"))
    with compiles() as more:
        for decay in (0.1, 0.2, 0.99):
            chosen = strategy.params.eviction._replace(decay=decay)
            other = strategy._replace(eviction=strategy.eviction._replace(params=chosen))
            tallies(other, split(SLOTS[::-1].copy(), "global"))
    assert not more


@pytest.mark.parametrize("name", ["lru", "least-stale", "sieve"])
def test_a_prefetcher_that_names_nothing_is_none(name: str):
    silent = make_strategy(name, "noisy-oracle")
    recall = silent.params.prefetch._replace(recall=0.0)
    silent = silent._replace(prefetch=silent.prefetch._replace(params=recall))
    capacities = split(SLOTS, "global")
    for one, other in zip(
        tallies(silent, capacities), tallies(make_strategy(name), capacities), strict=True
    ):
        for field in ("hits", "loads", "evictions", "collisions"):
            np.testing.assert_array_equal(getattr(one.counts, field), getattr(other.counts, field))
        assert not one.counts.prefetched.any()


def instant_link(passes: int) -> Costs:
    """Returns the costs of a machine that computes, and whose link takes no time at all."""
    by_pass = jnp.full(passes, 100, jnp.int32)
    return Costs(
        attention=by_pass,
        shared=by_pass,
        head=by_pass,
        expert_memory=jnp.asarray([7], jnp.int32),
        expert_per_1024=jnp.int32(3),
        host_memory=jnp.int32(50),
        host_per_1024=jnp.int32(50),
        load=jnp.zeros((SHAPE.num_layers, 1), jnp.int32),
        overlap=jnp.bool_(True),
    )


@pytest.mark.parametrize("prefetch", ["none", "previous", "oracle"])
def test_an_instant_link_never_stalls(prefetch: str):
    strategy = make_strategy("lru", prefetch)
    for tally in tallies(strategy, split(SLOTS[1:], "global"), instant_link(40)):
        assert tally.times is not None
        assert not tally.times.stall.any() and tally.times.ticks.all()
        assert not tally.counts.late.any()


def test_a_score_that_is_no_number_is_reported():
    def score(params, state, cache, event):
        return jnp.where(event.clock > 20, jnp.nan, cache.last_used.astype(jnp.float32))

    strategy = Strategy(eviction=Eviction(stateless_init, score, stateless_update))
    with pytest.raises(InputError, match="NaN"):
        tallies(strategy, np.array([[FITS]]))
