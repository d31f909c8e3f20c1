"""What a model will do on a machine, before anybody downloads it: what fits, how fast, why.

The cache is a per-layer LRU without prefetch, the plain strategy that every engine has; its hit
rate comes from `Locality`, of a trace or published.
"""

import json
from dataclasses import dataclass, replace
from importlib import resources
from typing import NamedTuple

import numpy as np

from specmd_jax.core.errors import InputError
from specmd_jax.hardware.profiles import HardwareProfile
from specmd_jax.model_zoo import ModelSpec
from specmd_jax.predict.break_even import batch_gain, batch_pass, break_even_acceptance
from specmd_jax.predict.hit_rates import KNEE, Locality
from specmd_jax.predict.latency import PassTime, pass_parts, pass_time

RESERVE = 0.1  # of the device's memory, for activations and the allocator; hardware.capacity's
ERRORS = "forecast_errors.json"
NEAR_FULL = 0.9  # hit rate up to which a working set is said to be held
DRAFT = 4  # tokens that speculative decoding would check in one pass
BATCH = 8  # sequences that would be decoded together


@dataclass(frozen=True)
class Question:
    """What is to be run, and on what."""

    spec: ModelSpec
    hardware: HardwareProfile  # its memory is the budget
    precision: str = "bf16"  # of the routed experts; the rest is bf16
    prompt: int = 512  # tokens
    context: int = 1024  # tokens of each sequence when it is decoded, prompt included
    batch: int = 1

    def __post_init__(self) -> None:
        if not 1 <= self.prompt <= self.context:
            raise InputError(
                f"a prompt of {self.prompt} tokens in a context of {self.context}: "
                "the context holds the prompt, so give a longer one"
            )
        if self.batch < 1:
            raise InputError(f"batch {self.batch} decodes nothing: give 1 or more")


class Memory(NamedTuple):
    """Where the device's bytes go."""

    total: int
    reserve: int
    weights: int  # all but the routed experts
    kv: int
    experts: int  # what is left for copies of experts
    slots_per_layer: int  # copies a layer that fit
    all_experts: int  # bytes of all routed experts


class Forecast(NamedTuple):
    """Times in seconds, ESTIMATED."""

    memory: Memory
    hit_rate: float
    decode: PassTime
    ttft_s: float  # cold: every expert the prompt needs is loaded
    doubled_bytes: int | None  # smallest device memory that halves the time of a token
    working_set_bytes: int  # device memory for the knee of the hit rate
    near_full_bytes: int | None  # device memory for 90 % of hits
    draft_acceptance: float | None  # from which DRAFT tokens, drafted for nothing, pay; None: never
    batch_gain: float | None  # tokens/s of BATCH sequences to those of one; None: no room for them


class Band(NamedTuple):
    """Ratios of what was found to what this model had estimated, from its own error table."""

    low: float  # 2.5 % of the runs lay below
    high: float
    median_error: float
    p95_error: float
    runs: int
    against: str  # SIMULATED or MEASURED


def forecast(question: Question, locality: Locality) -> Forecast:
    """Returns what `question` comes to.

    Raises:
      InputError: the machine cannot hold what stays on the device beside one expert a layer.
    """
    memory = share_out(question)
    slots = memory.slots_per_layer
    decode = decode_time(question, locality.at(slots))
    by_slots = np.arange(question.spec.num_experts + 1)
    times = [float(decode_time(question, locality.at(float(count))).total) for count in by_slots]
    halved = np.flatnonzero(np.asarray(times) <= float(decode.total) / 2)
    near_full = locality.slots_for(NEAR_FULL)
    knee = min(KNEE * question.spec.top_k, question.spec.num_experts)
    return Forecast(
        memory,
        locality.at(slots),
        decode,
        float(prefill_time(question, locality).total),
        bytes_for(question, int(halved[0])) if len(halved) else None,
        bytes_for(question, knee),
        None if near_full is None else bytes_for(question, near_full),
        *_of_one_sequence(replace(question, batch=1), locality),
    )


def _of_one_sequence(question: Question, locality: Locality) -> tuple[float | None, float | None]:
    """Returns from which acceptance drafts pay, and what a batch gains over this one sequence."""
    machine = (question.spec, question.hardware, question.precision)
    hit_rate = locality.at(share_out(question).slots_per_layer)
    context = question.context
    acceptance = break_even_acceptance(*machine, hit_rate, DRAFT, context=context)
    try:
        together = locality.at(share_out(replace(question, batch=BATCH)).slots_per_layer)
    except InputError:
        return acceptance, None
    gain = batch_gain(*machine, hit_rate, BATCH, context=context, batch_hit_rate=together)
    return acceptance, gain


def share_out(question: Question) -> Memory:
    """Returns where the device's memory goes.

    Raises:
      InputError: no expert finds room.
    """
    spec, total = question.spec, question.hardware.device_memory_bytes
    reserve, weights = int(RESERVE * total), spec.non_expert_bytes()
    kv = question.batch * spec.cache_bytes(question.context)
    left = total - reserve - weights - kv
    layer_bytes = spec.num_moe_layers * spec.expert_bytes(question.precision)
    slots = min(left // layer_bytes, spec.num_experts)
    if slots < 1:
        raise InputError(
            f"{total / 1e9:.1f} GB hold no expert a layer: {weights / 1e9:.1f} GB of other weights,"
            f" {kv / 1e9:.2f} GB of KV cache and {RESERVE:.0%} of reserve leave "
            f"{max(left, 0) / 1e9:.1f} GB and {layer_bytes / 1e9:.2f} GB are needed: give more "
            "--vram, a lower --precision or a shorter --context"
        )
    return Memory(total, reserve, weights, kv, left, int(slots), spec.num_experts * layer_bytes)


def bytes_for(question: Question, slots_per_layer: int) -> int:
    """Returns the device memory with which so many experts of each layer fit."""
    spec = question.spec
    copies = slots_per_layer * spec.num_moe_layers * spec.expert_bytes(question.precision)
    kv = question.batch * spec.cache_bytes(question.context)
    return round((spec.non_expert_bytes() + kv + copies) / (1 - RESERVE))


def decode_time(question: Question, hit_rate: float) -> PassTime:
    """Returns the expected time of one decode pass."""
    machine = (question.spec, question.hardware, question.precision)
    return batch_pass(*machine, hit_rate, question.batch, context=question.context)


def prefill_time(question: Question, locality: Locality) -> PassTime:
    """Returns the time of one prompt through an empty cache: the union of its experts, loaded."""
    spec, tokens = question.spec, question.prompt
    union = locality.demanded(tokens)
    parts = pass_parts(spec, question.hardware, question.precision, tokens=tokens, context=tokens)
    per_expert = tokens * spec.top_k / union
    return pass_time(parts, spec.num_moe_layers, union, 0.0, tokens_per_expert=per_expert)


def bottleneck(time: PassTime) -> str:
    """Returns which of its parts a pass spends most time in."""
    parts = {"link": time.link, "software": time.software, "experts": time.experts}
    return max(parts, key=lambda name: float(parts[name]))


def known_band(kind: str) -> Band | None:
    """Returns how far off this model was in its own error table; None: there is no table.

    Args:
      kind: of rows: "ttft", or where the hit rate behind a TPOT is from, "trace" or "published".
    """
    file = resources.files("specmd_jax.predict").joinpath(ERRORS)
    if not file.is_file():
        return None
    bands = json.loads(file.read_text())["bands"]
    return Band(**bands[kind]) if kind in bands else None
