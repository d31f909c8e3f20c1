"""Which outputs of a function depend on which inputs, found from its jaxpr without running it.

It tells what a batch of configurations has in common, and whether a policy's score knows what is
resident. Where a primitive is not known from inside, all its outputs count as dependent.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
from jax.extend.core import ClosedJaxpr, Jaxpr, JaxprEqn, Literal

Flags = list[bool]


def dependent_outputs(function: Callable[..., Any], marked: Sequence[Any], *inputs: Any) -> Any:
    """Returns, for each leaf of what `function` returns, whether it depends on a marked input.

    Args:
      function: of `inputs`; it is traced, not run.
      marked: a pytree of bools for each input, of its structure.
      inputs: arrays, or `jax.ShapeDtypeStruct`s.
    """
    closed, shapes = jax.make_jaxpr(function, return_shape=True)(*inputs)
    flags = [bool(flag) for flag in jax.tree.leaves(tuple(marked))]
    return jax.tree.unflatten(jax.tree.structure(shapes), _forward(closed.jaxpr, flags))


def _forward(jaxpr: Jaxpr, marked: Flags) -> Flags:
    """Returns the marks of a jaxpr's outputs, given those of its inputs."""
    reached = {var for var, mark in zip(jaxpr.invars, marked, strict=True) if mark}

    def marks(atoms: Sequence[Any]) -> Flags:
        return [not isinstance(atom, Literal) and atom in reached for atom in atoms]

    for eqn in jaxpr.eqns:
        given = marks(eqn.invars)
        if any(given):
            outputs = zip(eqn.outvars, _through(eqn, given), strict=True)
            reached.update(var for var, mark in outputs if mark)
    return marks(jaxpr.outvars)


def _through(eqn: JaxprEqn, given: Flags) -> Flags:
    name, params = eqn.primitive.name, eqn.params
    if name == "scan":
        return _loop(_opened(params["jaxpr"]), given, *_scan_parts(params))
    if name == "while":
        return _while(params, given)
    if name == "cond":
        branches = [_forward(_opened(branch), given[1:]) for branch in params["branches"]]
        return [given[0] or any(marks) for marks in zip(*branches, strict=True)]
    bodies = [value for value in params.values() if isinstance(value, Jaxpr | ClosedJaxpr)]
    if len(bodies) == 1:  # a call: jit, remat, custom_jvp_call and their like
        body = _opened(bodies[0])
        if (len(body.invars), len(body.outvars)) == (len(eqn.invars), len(eqn.outvars)):
            return _forward(body, given)
    return [True] * len(eqn.outvars)


def _opened(jaxpr: Jaxpr | ClosedJaxpr) -> Jaxpr:
    return jaxpr.jaxpr if isinstance(jaxpr, ClosedJaxpr) else jaxpr


def _scan_parts(params: dict[str, Any]) -> tuple[int, int]:
    """Returns how many inputs of a scan are constants, and how many it carries."""
    if "num_carry" in params:
        return params["num_consts"], params["num_carry"]
    constants, carry, _ = params["ft_in"].unpack()  # as JAX has it from 0.12 on
    return len(constants), len(carry)


def _loop(body: Jaxpr, given: Flags, num_consts: int, num_carry: int) -> Flags:
    """Follows a scan until no more of its carry is reached."""
    carry, rest = given[num_consts : num_consts + num_carry], given[num_consts + num_carry :]
    while True:
        outputs = _forward(body, [*given[:num_consts], *carry, *rest])
        grown = [a or b for a, b in zip(carry, outputs[:num_carry], strict=True)]
        if grown == carry:
            return [*carry, *outputs[num_carry:]]
        carry = grown


def _while(params: dict[str, Any], given: Flags) -> Flags:
    """Follows a while loop; if its end depends on a marked input, so does all it carries."""
    for_test, for_body = params["cond_nconsts"], params["body_nconsts"]
    consts = given[for_test : for_test + for_body]
    carry = given[for_test + for_body :]
    carry = _loop(_opened(params["body_jaxpr"]), [*consts, *carry], for_body, len(carry))
    ends = _forward(_opened(params["cond_jaxpr"]), [*given[:for_test], *carry])
    return [True] * len(carry) if ends[0] else carry
