"""The simulator equals the oracle to the last count, for any combination of policies."""

from dataclasses import replace
from itertools import product

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from specmd_jax.simulator.timeline import startable
from tests.helpers.parity import Program, expected, simulated
from tests.oracle import Config
from tests.oracle.cases import (
    EVICTION_PARAMS,
    MISS_PARAMS,
    PREFETCH_PARAMS,
    ROUTING_PARAMS,
    Shape,
    capacities,
    make_case,
    make_costs,
    params_of,
    unit_sizes,
    warm_start,
)
from tests.oracle.clock import Window
from tests.oracle.data import Costs

pytestmark = pytest.mark.matrix

SMALL = Shape(3, 6, 2, passes=12, tiers=1, lookahead=1, ahead=1)
WIDE = Shape(2, 9, 4, passes=14, tiers=3, lookahead=1, ahead=1)
DEEP = Shape(4, 5, 2, passes=10, tiers=2, lookahead=3, ahead=3)
PROGRAMS = [
    Program(SMALL, timed=False),
    Program(SMALL, scope="layer", timed=False, touch_hit=True),
    Program(SMALL, admission="bypass", timed=False, touch_insert=False),
    Program(SMALL, scope="layer", admission="bypass"),
    Program(SMALL, bends=True),
    Program(SMALL, ahead=False),
    Program(WIDE),
    Program(WIDE, scope="layer", touch_insert=False),
    Program(WIDE, scope="layer", bends=True, timed=False),
    Program(WIDE, admission="bypass", timed=False, cheapest_prefetch=True),
    Program(DEEP, touch_hit=True),
    Program(DEEP, scope="layer", admission="bypass", timed=False),
    Program(DEEP, admission="bypass", cheapest_prefetch=True, bends=True),
]
CASES_EACH = 220


@st.composite
def cases_for(draw, program: Program):
    shape = program.shape
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    eviction = draw(st.sampled_from(program.evictions()))
    prefetch = draw(st.sampled_from(program.prefetches()))
    miss = draw(st.sampled_from(program.misses()))
    routing = draw(st.sampled_from(program.routings()))
    units = draw(unit_sizes(shape))
    capacity = draw(capacities(shape, program.scope, units))
    config = Config(
        eviction=eviction,
        eviction_params=draw(params_of(EVICTION_PARAMS, eviction)),
        prefetch=prefetch,
        prefetch_params=draw(params_of(PREFETCH_PARAMS, prefetch)),
        lookahead=shape.lookahead,
        miss=miss,
        miss_params=draw(params_of(MISS_PARAMS, miss)),
        routing=routing,
        routing_params=draw(params_of(ROUTING_PARAMS, routing)),
        scope=program.scope,
        admission=program.admission,
        capacity=capacity,
        units=units,
        touch_on_prefetch_insert=program.touch_insert,
        touch_on_prefetch_hit=program.touch_hit,
        costs=_costs(program, rng, prefetch) if program.timed else None,
        initial=draw(
            st.sampled_from([None, warm_start(shape, rng, program.scope, capacity, units)])
        ),
    )
    return make_case(shape, rng, predictions=True, router=True), config


def _costs(program: Program, rng: np.random.Generator, prefetch: str) -> Costs:
    """Draws costs. A program that can prefetch decides at every gate, others where they miss."""
    costs = make_costs(program.shape, rng)
    idle = program.ahead and prefetch == "none"
    return replace(costs, decide=[0] * program.shape.passes) if idle else costs


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda program: repr(PROGRAMS.index(program)))
def test_simulator_equals_the_oracle(program: Program):
    @settings(
        max_examples=CASES_EACH,
        deadline=None,
        derandomize=True,
        database=None,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
    )
    @given(cases_for(program))
    def check(drawn):
        case, config = drawn
        wanted = expected(case, config, program.timed)
        got = simulated(program, case, config)
        assert got == wanted, {k: (got[k], wanted[k]) for k in wanted if got[k] != wanted[k]}

    check()


def test_watchdog_starts_what_the_oracle_starts():
    # Two targets of three entries each; all small numbers, as random costs seldom meet the edges.
    entries = 3
    cases = np.array(list(product(range(4), range(4), range(3), range(3))))

    def by_simulator(case):
        free, gate, *loads = case
        counts = []
        for load in loads:
            counts.append(jnp.minimum(startable(free, gate, load), entries))
            free = free + counts[-1] * load
        return jnp.stack([*counts, free])

    def by_oracle(free: int, gate: int, *loads: int) -> list[int]:
        window = Window(free, gate)
        counts = [sum(window.start(load) for _ in range(entries)) for load in loads]
        return [*counts, window.free]

    wanted = [by_oracle(*case) for case in cases.tolist()]
    assert jax.vmap(by_simulator)(jnp.asarray(cases, jnp.int32)).tolist() == wanted
