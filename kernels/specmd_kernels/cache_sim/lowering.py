"""Runs a `Program` on what a kernel can hold: arrays of two axes, and references to larger ones.

A row [N] is [1 N]. A slice at a traced place is a masked sum, an update there a masked choice;
of a reference they are a load and a store. Widths may be larger than the program knows (Triton
wants powers of two): what lies beyond them is arbitrary, and nobody asks for it.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import pallas as pl
from jaxtyping import Array

from specmd_kernels.cache_sim.jaxpr import Program, Step

ELEMENTWISE = {
    "abs", "add", "and", "clamp", "convert_element_type", "copy", "div", "eq", "exp", "floor", "ge",
    "gt", "integer_pow", "le", "log", "lt", "max", "min", "mul", "ne", "neg", "not", "or", "rem",
    "select_n", "shift_left", "shift_right_arithmetic", "shift_right_logical", "sign", "square",
    "sub", "xor",
}  # fmt: skip
_EXACT_FROM = 2.0**23  # float32 values from here on are whole


class Buffer(NamedTuple):
    """An array of three axes that stays in memory, behind a reference with a leading axis."""

    ref: Any
    index: Any  # on the leading axis


class Patch(NamedTuple):
    """A buffer in which one slice is to be overwritten."""

    buffer: Buffer
    starts: Sequence[Any]
    shape: tuple[int, ...]
    update: Array


def physical(shape: Sequence[int], whole: Callable[[int], int]) -> tuple[int, ...]:
    """Returns the shape in which an array of `shape` is held."""
    grown = tuple(1 if size == 1 else whole(size) for size in shape)
    return (1, *grown) if len(grown) == 1 else grown


def supported(program: Program) -> None:
    """Raises NotImplementedError if a step of the program has no rule."""
    known = {*ELEMENTWISE, *_RULES}
    strange = {step.primitive.name for step in program.steps} - known
    if strange:
        raise NotImplementedError(
            f"a policy uses {', '.join(sorted(strange))}, not known in kernels"
        )


def run(program: Program, whole: Callable[[int], int], values: Sequence[Any]) -> list[Any]:
    """Returns the outputs of the program.

    Args:
      whole: the width in which one is held.
      values: arguments, then constants, in their physical shapes; Buffers for those of three axes.
    """
    held: list[Any] = [*values, *[None] * (program.places - len(values))]
    for step in program.steps:
        inputs = [held[one] if isinstance(one, int) else one.item() for one in step.inputs]
        _check_buffers(step, inputs)
        rule = _RULES.get(step.primitive.name)
        if rule is None:
            found = step.primitive.bind(*map(_typed, inputs, step.inputs), **step.params)
        else:
            found = rule(step, whole, *inputs)
        held[step.outputs[0]] = found
    return [held[one] if isinstance(one, int) else one for one in program.outputs]


def _check_buffers(step: Step, inputs: Sequence[Any]) -> None:
    sliced = step.primitive.name in ("dynamic_slice", "dynamic_update_slice")
    whole = inputs[1:] if sliced else inputs
    if any(isinstance(value, Patch) for value in inputs) or any(
        isinstance(value, Buffer) for value in whole
    ):
        raise NotImplementedError(
            "a policy's state of three axes may be read and written in slices"
        )


def store(buffer: Buffer, patched: Any) -> None:
    """Writes a state of three axes back: the slice that changed, if any did."""
    if patched is not buffer and not (isinstance(patched, Patch) and patched.buffer is buffer):
        raise NotImplementedError("a policy's state of three axes may change by one slice an event")
    if isinstance(patched, Patch):
        place = _place(patched.buffer, patched.starts, patched.shape)
        patched.buffer.ref[place] = patched.update[None]


def _typed(value: Any, known: int | np.ndarray) -> Any:
    return value if isinstance(known, int) else known.dtype.type(value)


def _place(buffer: Buffer, starts: Sequence[Any], shape: Sequence[int]) -> tuple[Any, ...]:
    slices = [
        pl.ds(start, 1) if size == 1 else slice(None)
        for start, size in zip(starts, shape, strict=True)
    ]
    return (pl.ds(buffer.index, 1), *slices)


def _dynamic_slice(step: Step, whole: Any, operand: Any, *starts: Any) -> Array:
    sizes = step.params["slice_sizes"]
    if isinstance(operand, Buffer):
        return operand.ref[_place(operand, starts, sizes)][0]
    kept = operand
    for axis, here in _cuts(step.shapes[0], sizes, starts, operand.shape):
        cut = jnp.where(here, kept, jnp.zeros_like(kept))
        if cut.dtype == bool:
            cut = jnp.sum(jnp.where(cut, 1, 0), axis=axis, keepdims=True, dtype=jnp.int32) > 0
        else:
            cut = jnp.sum(cut, axis=axis, keepdims=True, dtype=cut.dtype)
        kept = cut
    return kept


def _dynamic_update_slice(
    step: Step, whole: Any, operand: Any, update: Array, *starts: Any
) -> Array | Patch:
    if isinstance(operand, Buffer):
        return Patch(operand, starts, step.shapes[1], update)
    here = jnp.ones(operand.shape, bool)
    for _, inside in _cuts(step.shapes[0], step.shapes[1], starts, operand.shape):
        here = here & inside
    return jnp.where(here, update, operand)


def _cuts(shape: Sequence[int], sizes: Sequence[int], starts: Sequence[Any], held: Sequence[int]):
    """Yields each axis that is cut to one, with the mask of what is kept."""
    shift = len(held) - len(shape)
    for axis, (size, cut, start) in enumerate(zip(shape, sizes, starts, strict=True)):
        if cut not in (1, size):
            raise NotImplementedError(f"a policy cuts {cut} of {size}: only one or all can be")
        if cut != size:
            place = jax.lax.broadcasted_iota(jnp.int32, held, axis + shift)
            yield axis + shift, place == start


def _broadcast(step: Step, whole: Any, operand: Any, *_: Any) -> Array:
    axes, rank = step.params["broadcast_dimensions"], len(step.result)
    shape = physical(step.result, whole)
    if axes == (0,) and rank == 2:  # down the rows: what lies along lanes is laid along sublanes
        size = operand.shape[1]
        across = jax.lax.broadcasted_iota(jnp.int32, (size, size), 1)
        down = jax.lax.broadcasted_iota(jnp.int32, (size, size), 0)
        zero = jnp.zeros_like(operand)
        operand = jnp.sum(
            jnp.where(down == across, operand, zero), axis=1, keepdims=True, dtype=operand.dtype
        )
    elif axes != tuple(range(rank - len(axes), rank)):
        raise NotImplementedError(f"a policy broadcasts axes {axes} to {rank} axes")
    if rank == 3 and len(axes):
        operand = operand.reshape(*(1,) * (3 - operand.ndim), *operand.shape)
    return jnp.broadcast_to(operand, shape)


def _squeeze(step: Step, whole: Any, operand: Array) -> Array:
    before, after = step.shapes[0], step.result
    if not after:
        return jnp.max(operand)
    if before[-len(after) :] != after:
        raise NotImplementedError(f"a policy squeezes {before} to {after}")
    return operand.reshape(physical(after, whole))


def _round(step: Step, whole: Any, operand: Array) -> Array:
    """Halves to even, without the primitive, which Triton lacks: far numbers have no halves."""
    if step.params["rounding_method"] != jax.lax.RoundingMethod.TO_NEAREST_EVEN:
        raise NotImplementedError("a policy rounds halves away from zero")
    size = jnp.abs(operand)
    near = (size + _EXACT_FROM) - _EXACT_FROM
    rounded = jnp.where(size < _EXACT_FROM, near, size)
    return jnp.where(operand < 0, -rounded, rounded)


_RULES: dict[str, Callable[..., Any]] = {
    "broadcast_in_dim": _broadcast,
    "dynamic_slice": _dynamic_slice,
    "dynamic_update_slice": _dynamic_update_slice,
    "round": _round,
    "squeeze": _squeeze,
}
