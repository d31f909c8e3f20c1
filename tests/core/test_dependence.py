"""What depends on what, found without running it."""

import jax
import jax.numpy as jnp

from specmd_jax.core.dependence import dependent_outputs

ZERO = jnp.int32(0)


def test_only_what_is_computed_from_a_marked_input_depends_on_it():
    def both(a, b):
        return {"a": a + 1, "b": b * 2, "ab": a * b, "none": jnp.int32(3)}

    found = dependent_outputs(both, (True, False), ZERO, ZERO)
    assert found == {"a": True, "b": False, "ab": True, "none": False}


def test_a_scan_is_followed_until_its_carry_is_settled():
    def shifts(first, kept):
        def step(carry, _):
            a, b, c, d = carry
            return (a, a, b, d), c

        return jax.lax.scan(step, (first, kept, kept, kept), jnp.arange(3))

    (a, b, c, d), seen = dependent_outputs(shifts, (True, False), ZERO, ZERO)
    assert (a, b, c, d, seen) == (True, True, True, False, True)


def test_a_loop_that_ends_by_a_marked_input_carries_it_everywhere():
    def add_up(limit, other):
        _, summed = jax.lax.while_loop(
            lambda state: state[0] < limit,
            lambda state: (state[0] + 1, state[1] + other),
            (ZERO, ZERO),
        )
        return summed

    assert dependent_outputs(add_up, (True, False), ZERO, ZERO) is True
    assert dependent_outputs(add_up, (False, True), ZERO, ZERO) is True
    assert dependent_outputs(add_up, (False, False), ZERO, ZERO) is False


def test_a_branch_depends_on_what_chooses_it():
    def choose(which, value):
        return jax.lax.cond(which > 0, lambda v: (v, ZERO + 1), lambda v: (v + 1, ZERO + 2), value)

    assert dependent_outputs(choose, (True, False), ZERO, ZERO) == (True, True)
    assert dependent_outputs(choose, (False, True), ZERO, ZERO) == (True, False)


def test_a_call_is_looked_into():
    inner = jax.jit(lambda a, b: (a + 1, b + 1))
    assert dependent_outputs(inner, (False, True), ZERO, ZERO) == (False, True)
