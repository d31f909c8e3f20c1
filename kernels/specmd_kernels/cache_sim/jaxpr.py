"""A pure function, unrolled into the few primitives that its arguments decide.

What depends on shapes alone (positions, layer numbers) is computed here, ahead of the kernel, and
handed to it as data: a kernel may hold no constant arrays, and builds no sequences of one axis.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.extend import core as jex

_INLINED = {"jit", "pjit", "closed_call", "custom_jvp_call", "remat"}


class Step(NamedTuple):
    """One primitive; places are those of a list that holds arguments first, then results."""

    primitive: Any
    params: dict[str, Any]
    inputs: tuple[int | np.ndarray, ...]  # a place, or a scalar
    outputs: tuple[int, ...]
    shapes: tuple[tuple[int, ...], ...]  # of inputs, as the function sees them
    result: tuple[int, ...]  # shape of the first output


class Program(NamedTuple):
    """A function of `arguments` arrays and of `constants`, which follow them."""

    arguments: int
    constants: tuple[np.ndarray, ...]
    steps: tuple[Step, ...]
    outputs: tuple[int | np.ndarray, ...]
    places: int
    tree: Any  # of the outputs


def trace(function: Callable[..., Any], *example: Any) -> Program:
    """Returns the program of `function`.

    Args:
      example: arguments, or their shapes.
    """
    closed, shape = jax.make_jaxpr(function, return_shape=True)(*example)
    return _Unrolling(len(closed.in_avals)).run(closed, jax.tree.structure(shape))


class _Unrolling:
    """Collects steps; a value is a place, or a numpy array if it is known."""

    def __init__(self, arguments: int):
        self.arguments, self.places = arguments, arguments
        self.steps: list[Step] = []

    def run(self, closed: Any, tree: Any) -> Program:
        outputs = self._walk(closed.jaxpr, closed.consts, list(range(self.arguments)))
        constants: list[np.ndarray] = []
        names: dict[int, int] = {}

        def placed(value: int | np.ndarray) -> int | np.ndarray:
            """Known arrays become constants, behind the arguments; all that follows moves on."""
            if isinstance(value, int) or value.ndim == 0:
                return value
            if id(value) not in names:
                names[id(value)] = -1 - len(constants)
                constants.append(value)
            return names[id(value)]

        steps = [step._replace(inputs=tuple(map(placed, step.inputs))) for step in self.steps]
        final = [placed(value) for value in outputs]
        many = len(constants)

        def moved(value: int | np.ndarray) -> int | np.ndarray:
            if not isinstance(value, int):
                return value
            if value < 0:
                return self.arguments - 1 - value
            return value if value < self.arguments else value + many

        return Program(
            self.arguments,
            tuple(constants),
            tuple(
                step._replace(
                    inputs=tuple(map(moved, step.inputs)),
                    outputs=tuple(place + many for place in step.outputs),
                )
                for step in steps
            ),
            tuple(map(moved, final)),
            self.places + many,
            tree,
        )

    def _walk(self, jaxpr: Any, consts: Sequence[Any], arguments: Sequence[Any]) -> list[Any]:
        known = [np.asarray(value) for value in consts]
        values = dict(zip([*jaxpr.constvars, *jaxpr.invars], [*known, *arguments], strict=True))
        for eqn in jaxpr.eqns:
            results = self._one(eqn, [_value(atom, values) for atom in eqn.invars])
            values.update(zip(eqn.outvars, results, strict=True))
        return [_value(atom, values) for atom in jaxpr.outvars]

    def _one(self, eqn: Any, inputs: list[Any]) -> list[Any]:
        if eqn.primitive.name in _INLINED:
            inner = eqn.params.get("jaxpr") or eqn.params["call_jaxpr"]
            return self._walk(inner.jaxpr, inner.consts, inputs)
        if not any(isinstance(value, int) for value in inputs):
            with jax.ensure_compile_time_eval():
                found = eqn.primitive.bind(*inputs, **eqn.params)
            return [
                np.asarray(one) for one in (found if eqn.primitive.multiple_results else [found])
            ]
        outputs = tuple(range(self.places, self.places + len(eqn.outvars)))
        self.places += len(outputs)
        self.steps.append(
            Step(
                eqn.primitive,
                eqn.params,
                tuple(inputs),
                outputs,
                tuple(atom.aval.shape for atom in eqn.invars),
                eqn.outvars[0].aval.shape,
            )
        )
        return list(outputs)


def _value(atom: Any, values: dict[Any, Any]) -> Any:
    if isinstance(atom, jex.Literal):
        known: Any = atom
        return np.asarray(known.val, known.aval.dtype)
    return values[atom]
