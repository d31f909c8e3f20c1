"""`cache_sim` counts what the simulator counts, to the last one, with the simulator's policies."""

from functools import partial
from itertools import product
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from specmd_jax.core.types import ModelShape
from specmd_jax.policies.eviction import EVICTIONS
from specmd_jax.policies.eviction.linear import LinearParams
from specmd_jax.simulator.fused import kernel_policy
from specmd_kernels import CachePolicy, Implementation, SimCounts, cache_sim
from specmd_kernels.cache_sim import pallas_gpu, pallas_tpu, reference, xla
from specmd_kernels.cache_sim.arg_specs import ODD, REAL, SimSizes, draw
from specmd_kernels.cache_sim.serve import PHASE, packed
from tests.kernels.lowering import lowered
from tests.kernels.simulated import simulator_counts

pytestmark = pytest.mark.matrix

BACKENDS = {
    "xla": xla.cache_sim,
    "tpu": partial(pallas_tpu.cache_sim, interpret=True),
    "gpu": partial(pallas_gpu.cache_sim, interpret=True),
}
POLICIES = ("lru", "lfu", "fld", "least-stale", "linear")
MORE = ("fifo", "lfu-decay", "lfru", "score-based", "random", "fld-cyclic")
SIZES = SimSizes(3, 6, 2)


def policy_of(name: str, sizes: SimSizes) -> tuple[CachePolicy, Any]:
    eviction = EVICTIONS[name]
    params = LinearParams(0.4, 0.3, 0.2, 0.1) if name == "linear" else eviction.params
    return kernel_policy(eviction, ModelShape(*sizes)), jax.tree.map(jnp.asarray, params)


def count(backend: str, policy: CachePolicy, params: Any, capacities: Any, gate: Any) -> SimCounts:
    """Returns the counts of a batch by a backend."""
    spread = jax.tree.map(lambda value: jnp.broadcast_to(value, capacities.shape), params)
    run = jax.jit(BACKENDS[backend], static_argnums=0)
    found = run(policy, spread, capacities, packed(gate, None))
    return SimCounts(*[np.asarray(found[..., index]) for index in range(len(SimCounts._fields))])


def check(got: Any, wanted: Any) -> None:
    for name in SimCounts._fields:
        np.testing.assert_array_equal(getattr(got, name), getattr(wanted, name), err_msg=name)


@pytest.mark.parametrize(
    "name", [*POLICIES, *[pytest.param(name, marks=pytest.mark.slow) for name in MORE]]
)
def test_counts_what_the_simulator_counts(name: str, monkeypatch: pytest.MonkeyPatch):
    """From a cache of one, where nearly all is streamed, to one that holds everything."""
    monkeypatch.setattr(pallas_tpu, "EVENTS", 16)  # the last part of the trace is not a whole one
    gate, capacities = draw(SIZES, 24), jnp.asarray([1, 3, 7, 12, 18])
    policy, params = policy_of(name, SIZES)
    expected = simulator_counts(name, params, capacities, gate)
    assert np.all(np.asarray(expected.accesses) > 0)
    for backend in BACKENDS:
        check(count(backend, policy, params, capacities, gate), expected)


@pytest.mark.parametrize("backend", BACKENDS)
def test_marked_passes_are_counted_apart(backend: str):
    """What is marked at the front is what a shorter trace counts; the rest is no concern of it."""
    gate, (policy, params) = draw(SIZES, 12, seed=2), policy_of("lru", SIZES)
    capacities, marked = jnp.asarray([4, 9]), jnp.arange(12) < 5
    run = jax.jit(BACKENDS[backend], static_argnums=0)
    both = run(policy, params, capacities, packed(gate, marked))
    alone = run(policy, params, capacities, packed(gate, None))
    short = run(policy, params, capacities, packed(gate[:5], None))
    np.testing.assert_array_equal(both[..., :PHASE], alone[..., :PHASE])
    np.testing.assert_array_equal(both[..., PHASE:], short[..., :PHASE])
    assert not np.any(alone[..., PHASE:])


@pytest.mark.parametrize("name", ["lru", "least-stale"])
def test_equals_the_reference(name: str):
    gate, capacities = draw(SIZES, 8, seed=1), jnp.asarray([2, 5])
    policy, params = policy_of(name, SIZES)
    expected = [reference.cache_sim(policy, params, capacity, gate) for capacity in capacities]
    got = count("xla", policy, params, capacities, gate)
    check(got, jax.tree.map(lambda *counts: np.stack(counts), *expected))


@pytest.mark.slow
@pytest.mark.parametrize("name", POLICIES)
@pytest.mark.parametrize("size", REAL | ODD)
@pytest.mark.parametrize("backend", ["tpu", "gpu"])
def test_real_and_odd_sizes(backend: str, size: str, name: str):
    sizes = (REAL | ODD)[size]
    gate = draw(sizes, 9)
    capacities = jnp.asarray([sizes.top_k, sizes.layers * sizes.experts // 3])
    policy, params = policy_of(name, sizes)
    expected = count("xla", policy, params, capacities, gate)
    check(count(backend, policy, params, capacities, gate), expected)


@pytest.mark.parametrize("implementation", ["xla", "interpret"])
def test_a_sweep_is_one_call(implementation: Implementation):
    """Over capacities and weights of one policy, nested."""
    gate, (policy, _) = draw(SIZES, 6), policy_of("linear", SIZES)
    call = partial(cache_sim, policy, gate=gate, implementation=implementation)
    weights = LinearParams(*jnp.asarray([[1, 0], [0, 1], [0, 0], [0, 0]], jnp.float32))
    capacities = jnp.asarray([4, 9])
    sweep = jax.vmap(jax.vmap(call, in_axes=(None, 0)), in_axes=(0, None))
    got, none = jax.jit(sweep)(weights, capacities)
    assert not any(jnp.any(values) for values in none), "no pass is marked"
    for index in range(2):
        own = jax.tree.map(lambda value, index=index: value[index], weights)
        expected = count("xla", policy, own, capacities, gate)
        check(jax.tree.map(lambda values, index=index: values[index], got), expected)


def test_a_batch_of_traces():
    traces = jnp.stack([draw(SIZES, 4, seed) for seed in range(2)])
    policy, params = policy_of("lfu", SIZES)
    got, _ = jax.jit(jax.vmap(partial(cache_sim, policy, params, 5)))(traces)
    for index in range(2):
        alone, _ = cache_sim(policy, params, 5, traces[index])
        check(jax.tree.map(lambda values, index=index: values[index], got), alone)


def test_no_passes():
    policy, params = policy_of("lru", SIZES)
    both = cache_sim(policy, params, 4, jnp.zeros((0, 3, 6), jnp.int32))
    assert all(values.tolist() == [0, 0, 0] for counts in both for values in counts)


def test_a_policy_that_no_kernel_can_run_is_declined():
    gate = draw(SIZES, 2)
    plain, params = policy_of("lru", SIZES)
    sorting = plain._replace(score=lambda params, state, view: jnp.sort(view.last_used))
    with pytest.raises(NotImplementedError, match="a policy uses sort, not known in kernels"):
        cache_sim(sorting, params, 4, gate, implementation="interpret")
    assert cache_sim(sorting, params, 4, gate)[0].accesses.sum() == jnp.sum(gate > 0)
    scalar = plain._replace(init=lambda params: jnp.int32(0))
    with pytest.raises(NotImplementedError, match="arrays of one to three axes"):
        cache_sim(scalar, params, 4, gate, implementation="pallas_gpu")
    cube = plain._replace(init=lambda params: jnp.zeros((3, 2, 6), jnp.int32))
    for update, why in (
        (lambda params, state, view, outcome: state + 1, "read and written in slices"),
        (lambda params, state, view, outcome: jnp.zeros_like(state), "by one slice an event"),
    ):
        with pytest.raises(NotImplementedError, match=why):
            odd = cube._replace(update=update)
            cache_sim(odd, params, 4, gate, implementation="interpret")
    with pytest.raises(NotImplementedError, match="do not fit in registers"):
        wide = jnp.zeros((1, 200, 128), jnp.int32)
        cache_sim(plain, params, 4, wide, implementation="pallas_gpu")


@pytest.mark.parametrize(
    ("size", "name"),
    [*product(["olmoe"], POLICIES), *product(sorted(set(REAL) - {"olmoe"}), ["linear"])],
)
@pytest.mark.parametrize(("platform", "custom_call"), [("tpu", "tpu_custom"), ("cuda", "triton")])
def test_lowers_at_real_sizes(platform: str, custom_call: str, size: str, name: str):
    """A thousand passes and 16 capacities."""
    policy, params = policy_of(name, REAL[size])
    backend = pallas_tpu if platform == "tpu" else pallas_gpu
    of: Any = jax.ShapeDtypeStruct
    gate = of((1000, REAL[size].layers, REAL[size].experts), jnp.int32)
    many = jax.tree.map(lambda value: of((16,), value.dtype), params)
    call = partial(backend.cache_sim, policy)
    text = lowered(call, many, of((16,), jnp.int32), gate, platform=platform)
    assert custom_call in text
