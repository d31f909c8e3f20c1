"""What the kernels of TPU and GPU share: the policy as programs, and the loop over events."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int

from specmd_kernels.cache_sim import lowering
from specmd_kernels.cache_sim.jaxpr import Program, trace
from specmd_kernels.cache_sim.lowering import Buffer, physical
from specmd_kernels.cache_sim.policy import CachePolicy, SimOutcome, SimView
from specmd_kernels.cache_sim.serve import Cache, serve


class Setup(NamedTuple):
    """The static part of a kernel."""

    score: Program | None
    update: Program
    flags: tuple[bool, ...]  # which leaves of params and state are booleans, held as int32
    layers: int
    experts: int
    whole: Callable[[int], int]  # the width in which one is held


class Inputs(NamedTuple):
    """What a kernel reads; lists of leaves. Configurations are the first axis where there are any.

    In the kernel, references to them.
    """

    capacity: Int[Array, " C"]
    params: list[Any]
    state: list[Any]  # before the first event
    score_constants: list[Any]
    update_constants: list[Any]


def prepare(
    policy: CachePolicy,
    params: Any,
    capacity: Int[Array, " C"],
    gate: Int[Array, "P L N"],
    whole: Callable[[int], int],
) -> tuple[Setup, Inputs]:
    """Returns the programs of a policy and the arrays that they need.

    Args:
      policy: whose functions are traced.
      params: of the policy, [C] along the first axis of each leaf.
      capacity: slots of each configuration.
      gate: of each event; positive where an expert is used.
      whole: the width in which a kernel holds one.

    Raises:
      NotImplementedError: the policy does what no kernel can.
    """
    _, layers, experts = gate.shape
    states = jax.vmap(lambda params, _: policy.init(params))(params, capacity)
    leaves = jax.tree.leaves((params, states))
    one = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape[1:], leaf.dtype), leaves)
    of_state = one[len(jax.tree.leaves(params)) :]
    if any(not 1 <= len(leaf.shape) <= 3 for leaf in of_state):
        raise NotImplementedError("a policy's state must be arrays of one to three axes")
    if any(len(leaf.shape) == 3 and leaf.dtype == bool for leaf in of_state):
        raise NotImplementedError("a policy's state of three axes must be numbers")
    own_params, own_state = jax.tree.unflatten(jax.tree.structure((params, states)), one)
    view, outcome = _examples(layers, experts)
    score = None
    if policy.score is not None:
        score = trace(policy.score, own_params, own_state, view)
        lowering.supported(score)
    update = trace(policy.update, own_params, own_state, view, outcome)
    lowering.supported(update)
    num_params = len(jax.tree.leaves(params))
    flags = tuple(leaf.dtype == bool for leaf in leaves)
    setup = Setup(score, update, flags, layers, experts, whole)
    held_params = [_number(leaf) for leaf in leaves[:num_params]]
    held_state = [_held(leaf, setup) for leaf in leaves[num_params:]]

    def constants(program: Program | None) -> list[Any]:
        known = () if program is None else program.constants
        return [_held(jnp.asarray(value)[None], setup)[0] for value in known]

    return setup, Inputs(capacity, held_params, held_state, constants(score), constants(update))


def _examples(layers: int, experts: int) -> tuple[Any, Any]:
    def of(dtype: Any, *shape: int) -> Any:
        return jax.ShapeDtypeStruct(shape, dtype)

    number, flags = of(jnp.int32), of(bool, experts)
    view = SimView(
        of(bool, layers, experts), of(jnp.int32, layers, experts), number, number, number, flags,
        of(jnp.int32, experts),
    )  # fmt: skip
    return view, SimOutcome(flags, flags, of(bool, layers, experts))


def _number(leaf: Array) -> Array:
    return leaf.astype(jnp.int32) if leaf.dtype == bool else leaf


def _held(leaf: Array, setup: Setup) -> Array:
    """Returns an array per configuration as a kernel holds it, filled up with zeros."""
    shape = physical(leaf.shape[1:], setup.whole)
    leaf = _number(leaf).reshape(
        leaf.shape[0], *(1,) * (len(shape) - leaf.ndim + 1), *leaf.shape[1:]
    )
    grown = [(0, new - old) for new, old in zip(shape, leaf.shape[1:], strict=True)]
    return jnp.pad(leaf, [(0, 0), *grown])


def replay(
    setup: Setup,
    inputs: Inputs,
    clocks: tuple[Int[Array, ""] | int, Int[Array, ""] | int],
    gate_of: Callable[[Int[Array, ""]], Int[Array, "1 N"]],
    cache: Cache,
    state: Sequence[Any],
) -> tuple[Cache, list[Any]]:
    """Serves the events from the first clock to before the second; runs in a kernel.

    Args:
      setup: of the kernel.
      clocks: of the first event, and of the one behind the last.
      inputs: capacity and params of this configuration, as numbers; references to constants.
      gate_of: the row of an event.
      state: of the policy: arrays, or Buffers, which stay where they are.

    Returns:
      The cache and the state after the last event; None in place of Buffers.
    """
    constants = (
        _loaded(setup.score, inputs.score_constants),
        _loaded(setup.update, inputs.update_constants),
    )
    buffers = [leaf if isinstance(leaf, Buffer) else None for leaf in state]

    def body(clock: Int[Array, ""], carry: tuple[Cache, list[Any]]) -> tuple[Cache, list[Any]]:
        whole = [kept or leaf for kept, leaf in zip(buffers, carry[1], strict=True)]
        return _one_event(setup, inputs, constants, clock, gate_of(clock), carry[0], whole)

    start = [None if kept else leaf for kept, leaf in zip(buffers, state, strict=True)]
    return jax.lax.fori_loop(*clocks, body, (cache, start))


def _loaded(program: Program | None, refs: Sequence[Any]) -> list[Any]:
    known = () if program is None else program.constants
    return [
        ref[...] != 0 if value.dtype == bool else ref[...]
        for ref, value in zip(refs, known, strict=True)
    ]


def _one_event(
    setup: Setup,
    inputs: Inputs,
    constants: tuple[Sequence[Any], Sequence[Any]],
    clock: Int[Array, ""],
    gate: Int[Array, "1 N"],
    cache: Cache,
    state: list[Any],
) -> tuple[Cache, list[Any]]:
    own = [
        value != 0 if flag and not isinstance(value, Buffer) else value
        for value, flag in zip([*inputs.params, *state], setup.flags, strict=True)
    ]

    def score(view: SimView) -> Array | None:
        if setup.score is None:
            return None
        return lowering.run(setup.score, setup.whole, [*own, *view, *constants[0]])[0]

    after, view, outcome = serve(score, cache, inputs.capacity, clock, setup.layers, gate)
    told = [*own, *view, *outcome, *constants[1]]
    updated = lowering.run(setup.update, setup.whole, told)
    kept = []
    for old, new in zip(state, updated, strict=True):
        if isinstance(old, Buffer):
            lowering.store(old, new)
        kept.append(None if isinstance(old, Buffer) else new.astype(old.dtype))
    return after, kept
