"""Where a device's memory goes: weights, KV cache, copies of experts, and what stays free."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import product
from typing import NamedTuple

from specmd_jax.core.errors import InputError
from specmd_jax.core.json_files import shown
from specmd_jax.core.quantities import nbytes
from specmd_jax.hardware.capacity import RESERVE, DeviceBudget, device_budget
from specmd_jax.hardware.profiles import HardwareProfile
from specmd_jax.model_zoo import PRECISIONS, ModelSpec

MAX_TOKENS = 1 << 30
MAX_BATCH = 1 << 16
_FEWER_BITS = ("int8", "int4", "int2")  # that advice tries, in this order
_STEP = 10**8  # bytes, to which advice rounds up


@dataclass(frozen=True)
class Question:
    """What is to be run, and on what."""

    spec: ModelSpec  # its `non_expert_precision` is that of all but the routed experts
    hardware: HardwareProfile  # its memory is the budget
    precision: str = "bf16"  # of the routed experts
    prompt: int = 512  # tokens
    context: int = 1024  # tokens of each sequence when it is decoded, prompt included
    batch: int = 1

    def __post_init__(self) -> None:
        if not 1 <= self.prompt <= self.context:
            raise InputError(
                f"a prompt of {shown(self.prompt)} tokens in a context of {shown(self.context)}: "
                "the context holds the prompt, so give a longer one"
            )
        if self.context > MAX_TOKENS:
            raise InputError(f"a context of more than {MAX_TOKENS:,} tokens: give a shorter one")
        if self.batch < 1:
            raise InputError(f"batch {self.batch} decodes nothing: give 1 or more")
        if self.batch > MAX_BATCH:
            raise InputError(f"a batch of more than {MAX_BATCH:,} sequences: give fewer")


class Memory(NamedTuple):
    """Where the device's bytes go; all but `total` and the last two add up to it."""

    total: int
    reserve: int
    weights: int  # all but the routed experts
    kv: int
    experts: int  # copies of experts
    free: int  # less than one expert a layer, unless all of them are held
    slots_per_layer: int  # copies a layer that fit
    all_experts: int  # bytes of all routed experts


def share_out(question: Question) -> Memory:
    """Returns where the device's memory goes.

    Raises:
      InputError: no expert finds room; the message says with what one would.
    """
    spec, budget = question.spec, _budget(question)
    total, reserve, weights, kv = budget
    left = budget.free
    layer_bytes = spec.num_moe_layers * spec.expert_bytes(question.precision)
    slots = min(left // layer_bytes, spec.num_experts)
    if slots < 1:
        raise InputError(
            f"{nbytes(total)} hold no expert a layer: {nbytes(weights)} of other weights, "
            f"{nbytes(kv)} of KV cache and {RESERVE:.0%} of reserve leave {nbytes(max(left, 0))} "
            f"and {nbytes(layer_bytes)} are needed: {_advice(question)}"
        )
    experts = slots * layer_bytes
    return Memory(
        total, reserve, weights, kv, experts, left - experts, slots, spec.num_experts * layer_bytes
    )


def bytes_for(question: Question, slots_per_layer: int) -> int:
    """Returns the device memory with which so many experts of each layer fit."""
    spec = question.spec
    copies = slots_per_layer * spec.num_moe_layers * spec.expert_bytes(question.precision)
    kv = question.batch * spec.cache_bytes(question.context)
    return round((spec.non_expert_bytes() + kv + copies) / (1 - RESERVE))


def _budget(question: Question) -> DeviceBudget:
    return device_budget(question.hardware, question.spec, question.context, question.batch)


def _advice(question: Question) -> str:
    """Returns what would find room for an expert a layer; each was tried."""
    ways = [way for way in (_fewer_bits(question), _shorter_context(question)) if way]
    needed = -(-(bytes_for(question, 1) + 16) // _STEP) * _STEP / 1e9
    return f"give {', or '.join([*ways, f'--vram {needed:.1f}GB'])}"


def _fewer_bits(question: Question) -> str | None:
    for flags, precision, others in _precisions(question):
        spec = replace(question.spec, non_expert_precision=others)
        if _fits(replace(question, spec=spec, precision=precision)):
            return flags
    return None


def _precisions(question: Question) -> Iterator[tuple[str, str, str]]:
    """Yields flags with the precisions that they stand for, the least loss first."""
    held = question.precision, question.spec.non_expert_precision
    flags = ("--precision", "--non-expert-precision")
    choices = [[now, *(q for q in _FEWER_BITS if _bits(q) < _bits(now))] for now in held]
    ways = sorted(product(*choices), key=lambda chosen: sum(map(_lost, held, chosen)))
    for precision, others in ways:
        given = zip(flags, held, (precision, others), strict=True)
        named = " ".join(f"{flag} {new}" for flag, old, new in given if new != old)
        yield named, precision, others


def _bits(precision: str) -> int:
    return PRECISIONS[precision].bits


def _lost(held: str, chosen: str) -> float:
    return _bits(held) / _bits(chosen) - 1


def _shorter_context(question: Question) -> str | None:
    """Returns the longest context that leaves room, if the prompt fits into one."""
    tokens = _most(lambda tokens: _fits(replace(question, context=tokens)), question)
    return None if tokens is None else f"--context {tokens}"


def _most(fits: Callable[[int], bool], question: Question) -> int | None:
    low, high = question.prompt, question.context
    if not fits(low):
        return None
    while low + 1 < high:  # `low` fits, `high` does not
        middle = (low + high) // 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    return low


def _fits(question: Question) -> bool:
    spec = question.spec
    one = spec.num_moe_layers * spec.expert_bytes(question.precision)
    return _budget(question).free >= one
