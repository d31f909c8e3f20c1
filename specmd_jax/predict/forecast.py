"""What a model will do on a machine, before anybody downloads it: what fits, how fast, why.

The cache is a per-layer LRU without prefetch, the plain strategy that every engine has; its hit
rate comes from `Locality`, of a trace or published.
"""

import json
from bisect import bisect_left
from dataclasses import replace
from importlib import resources
from typing import NamedTuple

from specmd_jax.core.errors import InputError
from specmd_jax.predict.break_even import batch_gain, batch_pass, break_even_acceptance
from specmd_jax.predict.hit_rates import KNEE, Locality
from specmd_jax.predict.latency import PassTime, pass_parts, pass_time
from specmd_jax.predict.memory import Memory, Question, bytes_for, share_out

ERRORS = "forecast_errors.json"
NEAR_FULL = 0.9  # hit rate up to which a working set is said to be held
DRAFT = 4  # tokens that speculative decoding would check in one pass
BATCH = 8  # sequences that would be decoded together


class Forecast(NamedTuple):
    """Times in seconds, ESTIMATED."""

    memory: Memory
    hit_rate: float
    decode: PassTime
    ttft_s: float  # cold: every expert the prompt needs is loaded; less the known bias
    doubled_bytes: int | None  # smallest device memory that halves the time of a token
    working_set_bytes: int  # device memory for the knee of the hit rate
    near_full_bytes: int | None  # device memory for 90 % of hits
    draft_acceptance: float | None  # from which DRAFT tokens, drafted for nothing, pay; None: never
    batch_gain: float | None  # tokens/s of BATCH sequences to those of one; None: no room for them


class Band(NamedTuple):
    """Ratios of what was found to the estimate, from this model's own error table."""

    center: float  # by which the closed form was multiplied to become the estimate
    low: float  # 2.5 % of the runs lay below
    high: float
    median_error: float
    p95_error: float
    runs: int
    against: str  # SIMULATED or MEASURED
    scope: str  # what the runs were of, where it is less than what may be asked


def forecast(question: Question, locality: Locality) -> Forecast:
    """Returns what `question` comes to.

    Raises:
      InputError: the machine cannot hold what stays on the device beside one expert a layer.
    """
    memory = share_out(question)
    slots = memory.slots_per_layer
    decode = decode_time(question, locality.at(slots))
    halved = _fewest_slots(question, locality, float(decode.total) / 2)
    near_full = locality.slots_for(NEAR_FULL)
    knee = min(KNEE * question.spec.top_k, question.spec.num_experts)
    return Forecast(
        memory,
        locality.at(slots),
        decode,
        unbiased_ttft(float(prefill_time(question, locality).total)),
        None if halved is None else bytes_for(question, halved),
        bytes_for(question, knee),
        None if near_full is None else bytes_for(question, near_full),
        *_of_one_sequence(replace(question, batch=1), locality),
    )


def _fewest_slots(question: Question, locality: Locality, seconds: float) -> int | None:
    """Returns the fewest slots a layer with which a token takes so long at most; None: none do."""
    most = question.spec.num_experts
    slots = bisect_left(
        range(most + 1),
        -seconds,
        key=lambda slots: -float(decode_time(question, locality.at(slots)).total),
    )
    return slots if slots <= most else None


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


def unbiased_ttft(seconds: float) -> float:
    """Returns a closed form's TTFT without its known bias: prompts demand fewer experts."""
    band = known_band("ttft")
    return seconds if band is None else band.center * seconds


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
