"""Every capacity in one walk, held against the plain-Python oracle at each of them."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from specmd_jax.core.errors import InputError
from specmd_jax.core.types import ModelShape
from specmd_jax.policies.eviction import EVICTIONS
from specmd_jax.policies.strategy import make_strategy
from specmd_jax.simulator.engines.curve import Curve, capacity_curve, why_no_curve
from specmd_jax.simulator.events import dense_events
from specmd_jax.traces.trace import PAD, PREFILL, Trace
from tests.oracle import Case, Config, simulate

pytestmark = pytest.mark.matrix

SHAPE = ModelShape(num_layers=3, num_experts=7, top_k=2)
CELLS = SHAPE.num_layers * SHAPE.num_experts
NESTED = [name for name in EVICTIONS if why_no_curve(make_strategy(name)) is None]


def some_trace(seed: int, passes: int) -> Trace:
    """Passes of one to six tokens, some of which choose fewer experts than top-k, or none."""
    rng = np.random.default_rng(seed)
    step = np.repeat(np.arange(passes), rng.choice([1, 1, 2, 6], size=passes)).astype(np.int32)
    size = (step.size, SHAPE.num_layers)
    weight = 1 / np.arange(1, SHAPE.num_experts + 1)
    noise = rng.gumbel(size=(*size, SHAPE.num_experts)) + np.log(weight)
    experts = np.argsort(-noise, axis=-1)[..., : SHAPE.top_k].astype(np.int16)
    experts[rng.random(experts.shape) < 0.15] = PAD
    experts = -np.sort(-experts, axis=-1)  # what pads a row stands at its end
    return Trace(
        experts=experts,
        num_experts=SHAPE.num_experts,
        step=step,
        request=(step // 5).astype(np.int32),
        phase=np.full(step.size, PREFILL, np.uint8),
        weights=np.where(experts == PAD, 0, rng.random(experts.shape)).astype(np.float32),
        logits=noise.astype(np.float32),
    )


def by_oracle(trace: Trace, name: str, scope: str, slots: int) -> dict[str, list[int]]:
    events = dense_events(trace, make_strategy(name).reads)
    case = Case(
        *SHAPE, events.tokens, events.prefill, events.fresh, events.routed, events.gate,
        probs=events.probs,
    )  # fmt: skip
    each, rest = divmod(slots, SHAPE.num_layers)
    quotas = [each + (layer < rest) for layer in range(SHAPE.num_layers)]
    config = Config(
        capacity=quotas if scope == "layer" else [slots],
        units=[[1]] * SHAPE.num_layers,
        eviction=name,
        scope=scope,
    )
    found = simulate(case, config)
    names = ("accesses", "hits", "collisions", "compulsory", "streamed", "evictions", "misses")
    return {name: getattr(found, name) for name in names}


def at(curve: Curve, slots: int) -> dict[str, list[int]]:
    counts = {
        name: getattr(curve, name)[:, slots].tolist()
        for name in ("hits", "collisions", "streamed", "evictions", "misses")
    }
    return counts | {"accesses": curve.accesses.tolist(), "compulsory": curve.compulsory.tolist()}


def test_most_published_policies_nest():
    assert sorted(set(EVICTIONS) - set(NESTED)) == [
        "belady-bypass", "fifo", "lfu-in-cache", "s3-fifo", "sieve", "static",
    ]  # fmt: skip


@pytest.mark.parametrize("scope", ["global", "layer"])
@pytest.mark.parametrize("name", NESTED)
@settings(deadline=None, max_examples=6)
@given(seed=st.integers(0, 2**32 - 1), passes=st.integers(1, 24))
def test_the_curve_is_the_oracle_at_every_capacity(name, scope, seed, passes):
    trace = some_trace(seed, passes)
    curve = capacity_curve(trace, make_strategy(name, scope=scope))
    for slots in range(1, CELLS + 1):
        assert at(curve, slots) == by_oracle(trace, name, scope, slots), slots


def test_one_slot_more_never_hits_less():
    for name in NESTED:
        hits = capacity_curve(some_trace(3, 20), make_strategy(name)).hits
        assert np.all(np.diff(hits, axis=1) >= 0), name


@pytest.mark.parametrize(
    ("flags", "reason"),
    [
        ({"eviction": "fifo"}, "ranking depends on what is resident"),
        ({"eviction": "sieve"}, "ranking depends on what is resident"),
        ({"eviction": "belady-bypass"}, "bypass"),
        ({"prefetch": "previous"}, "prefetch"),
        ({"miss": "cpu"}, "miss"),
    ],
)
def test_what_does_not_nest_is_refused_with_the_reason(flags, reason):
    with pytest.raises(InputError, match=reason):
        capacity_curve(some_trace(0, 4), make_strategy(**flags))
