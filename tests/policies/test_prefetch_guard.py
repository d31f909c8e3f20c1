"""The prefetch guard: the rule against a plain loop, what it learns, and what it is for."""

from dataclasses import replace

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from specmd_jax.core.errors import InputError
from specmd_jax.core.types import Event, ModelShape
from specmd_jax.hardware.profiles import get_hardware
from specmd_jax.model_zoo import get_model
from specmd_jax.policies import prefetch_guard
from specmd_jax.study.choice import Choice
from specmd_jax.study.metrics import summarise_result
from specmd_jax.study.run import compare
from specmd_jax.study.setup import Setup, make_setup
from specmd_jax.traces.synthetic.generator import SyntheticSpec, generate

SHAPE = ModelShape(num_layers=3, num_experts=6, top_k=2)
SPEC = get_model("olmoe-1b-7b-0924")
TRACE = generate(SyntheticSpec(SPEC.shape, tokens=80), seed=1)


def event(layer: int, used: list[int], valid: bool = True) -> Event:
    mask = jnp.zeros(6, bool).at[jnp.array(used, int)].set(True)
    nothing = jnp.zeros(6, jnp.int32)
    return Event(
        clock=jnp.int32(0), step=jnp.int32(0), layer=jnp.int32(layer), tokens=jnp.int32(1),
        prefill=jnp.bool_(False), fresh=jnp.bool_(False), valid=jnp.bool_(valid), used=mask,
        routed=mask.astype(jnp.int32), gate=nothing, next_use=None, upcoming=None,
        predicted=None, logits=None, probs=None,
    )  # fmt: skip


def by_loop(chance, margin, queued, priority, spare, load) -> set[int]:
    """The rule as one would tell it: down the queue, one transfer after the other."""
    order = sorted(np.flatnonzero(queued), key=lambda e: (-priority[e], e))
    scale = 1 << prefetch_guard.BITS
    free, allowed, late = spare, set(), False
    for place, expert in enumerate(order):
        worth = chance[min(place, prefetch_guard.PLACES - 1)] - round(margin * scale)
        if worth <= 0 or late:
            continue
        if free >= load:
            free -= load
            allowed.add(int(expert))
        elif worth > round((load - max(free, 0)) / load * scale):
            late = True
            allowed.add(int(expert))
    return allowed


@settings(deadline=None, max_examples=60)
@given(
    queued=st.lists(st.booleans(), min_size=6, max_size=6),
    priority=st.lists(st.integers(1, 4), min_size=6, max_size=6),
    used=st.lists(st.integers(0, 20), min_size=6, max_size=6),
    margin=st.sampled_from([-0.5, 0.0, 0.25, 0.75]),
    spare=st.integers(-5, 40),
    load=st.sampled_from([1, 4, 8, 16]),
)
def test_the_rule_is_that_of_a_loop_down_the_queue(queued, priority, used, margin, spare, load):
    state = prefetch_guard.init(SHAPE, 1)
    counts = jnp.zeros(prefetch_guard.PLACES, jnp.int32).at[:6].set(jnp.array(used))
    state = state._replace(selected=jnp.full((1, prefetch_guard.PLACES), 20), used=counts[None])
    allowed, _ = prefetch_guard.allow(
        prefetch_guard.GuardParams(margin), state, jnp.int32(1), 1, jnp.array(queued),
        jnp.array(priority), prefetch_guard.Outlook(jnp.int32(spare), jnp.int32(load)),
    )  # fmt: skip
    chance = np.asarray(prefetch_guard.chances(state, 1))
    expected = by_loop(chance, margin, queued, priority, max(spare, 0), load)
    assert set(np.flatnonzero(np.asarray(allowed)).tolist()) == expected


def test_it_learns_from_what_was_named_and_absent_whether_fetched_or_not():
    state = prefetch_guard.init(SHAPE, 1)
    never = prefetch_guard.GuardParams(margin=1.0)
    queued, priority = jnp.array([1, 0, 1, 1, 0, 0], bool), jnp.array([1, 9, 3, 2, 0, 0])
    wide = prefetch_guard.Outlook(jnp.int32(9), jnp.int32(1))
    allowed, state = prefetch_guard.allow(never, state, jnp.int32(1), 1, queued, priority, wide)
    assert not allowed.any()
    state = prefetch_guard.learn(state, event(0, [2, 3]))  # another layer's gate settles nothing
    assert int(state.selected.sum()) == 0
    state = prefetch_guard.learn(state, event(1, [2, 5]))
    assert state.selected[0, :4].tolist() == [1, 1, 1, 0]
    assert state.used[0, :4].tolist() == [1, 0, 0, 0]
    state = prefetch_guard.learn(state, event(1, [2, 5]))  # settled once
    assert int(state.selected.sum()) == 3


def test_passes_that_ask_for_nothing_settle_nothing():
    state = prefetch_guard.init(SHAPE, 1)
    queued = jnp.array([1, 1, 0, 0, 0, 0], bool)
    _, state = prefetch_guard.allow(
        prefetch_guard.GuardParams(), state, jnp.int32(1), 1, queued, queued * 1, None
    )
    state = prefetch_guard.learn(state, event(1, [0], valid=False))
    assert int(state.selected.sum()) == 0
    assert int(prefetch_guard.learn(state, event(1, [0])).selected.sum()) == 2


STARVED, IDLE = 1e9, 100e9  # bytes a second


def setup(link: float, prefetch: str = "transition", margin: str = "") -> Setup:
    params = (("guard.margin", margin),) if margin else ()
    choice = Choice(
        prefetch=prefetch,
        guard=bool(margin),
        capacity="8%",
        precision=("int4",),
        params=params,
    )
    laptop = replace(get_hardware("laptop-pcie4-x8"), h2d_bytes_per_s=link)
    return replace(make_setup(choice), hardware=laptop)


@pytest.fixture(scope="module")
def found() -> dict[str, dict]:
    """What each configuration came to: those of one strategy share a compile."""
    setups = {
        "starved": setup(STARVED, "none"),
        "idle": setup(IDLE, "none"),
        "starved, loose": setup(STARVED),
        "idle, loose": setup(IDLE),
        "starved, guarded": setup(STARVED, margin="0.1"),
        "idle, guarded": setup(IDLE, margin="0.1"),
        "starved, shut": setup(STARVED, margin="1"),
    }
    answers = compare(TRACE, list(setups.values()), SPEC)
    return {n: summarise_result(TRACE, a) for n, a in zip(setups, answers, strict=True)}


def test_a_guard_that_allows_nothing_is_no_prefetch(found: dict[str, dict]):
    shut = found["starved, shut"]
    assert shut["prefetched"] == 0 and shut["tpot_s"] == found["starved"]["tpot_s"]


def test_on_a_starved_link_it_keeps_what_an_unguarded_prefetcher_loses(found: dict[str, dict]):
    without, loose = found["starved"], found["starved, loose"]
    guarded = found["starved, guarded"]
    assert loose["tpot_s"] > 1.02 * without["tpot_s"]
    assert guarded["tpot_s"] < 1.01 * without["tpot_s"]
    assert guarded["prefetched"] < loose["prefetched"] / 4


def test_on_an_idle_link_it_still_prefetches(found: dict[str, dict]):
    guarded = found["idle, guarded"]
    assert guarded["prefetched"] > 0
    assert guarded["tpot_s"] < found["idle"]["tpot_s"]


def test_a_guard_needs_something_to_guard():
    with pytest.raises(InputError, match="nothing to guard"):
        make_setup(Choice(guard=True))
