"""A forecast as a record for JSON: sizes in bytes, times in seconds, with their bands."""

from typing import Any

from specmd_jax.predict.forecast import BATCH, DRAFT, Band, Forecast, bottleneck
from specmd_jax.predict.memory import Question

ESTIMATED = "ESTIMATED"


def describe_forecast(
    question: Question,
    found: Forecast,
    source: str,
    bands: tuple[Band | None, Band | None],
) -> dict[str, Any]:
    """Returns a forecast ready for JSON: sizes in bytes, times in seconds.

    Args:
      question: what was asked.
      found: what it comes to.
      source: of the hit rate, in words.
      bands: of TTFT and of TPOT, where they are known.
    """
    return (
        _asked(question)
        | _memory(question, found)
        | _times(question, found, bands)
        | _advice(question, found)
        | {"hit_rate_source": source, "notes": list(question.spec.notes)}
    )


def _asked(question: Question) -> dict[str, Any]:
    spec = question.spec
    return {
        "model": spec.hf_id,
        "shape": list(spec.shape),
        "total_params": spec.total_params,
        "active_params": spec.active_params,
        "hardware": question.hardware.name,
        "precision": question.precision,
        "non_expert_precision": spec.non_expert_precision,
        "prompt": question.prompt,
        "context": question.context,
        "batch": question.batch,
        "label": ESTIMATED,
    }


def _memory(question: Question, found: Forecast) -> dict[str, Any]:
    spec, memory = question.spec, found.memory
    return {
        "vram_bytes": memory.total,
        "reserve_bytes": memory.reserve,
        "weights_bytes": memory.weights,
        "kv_bytes": memory.kv,
        "expert_cache_bytes": memory.experts + memory.free,
        "cached_bytes": memory.experts,
        "free_bytes": memory.free,
        "all_experts_bytes": memory.all_experts,
        "fits": memory.slots_per_layer == spec.num_experts,
        "capacity_slots": memory.slots_per_layer * spec.num_moe_layers,
        "slots_per_layer": memory.slots_per_layer,
        "cycles": memory.slots_per_layer / spec.top_k,
    }


def _times(
    question: Question, found: Forecast, bands: tuple[Band | None, Band | None]
) -> dict[str, Any]:
    tpot = float(found.decode.total)
    return {
        "hit_rate": found.hit_rate,
        "ttft_s": found.ttft_s,
        "ttft_band_s": _within(bands[0], found.ttft_s),
        "prefill_tokens_per_s": question.prompt / found.ttft_s,
        "tpot_s": tpot,
        "tpot_band_s": _within(bands[1], tpot),
        "tokens_per_s": question.batch / tpot,
        "ttft_error": None if bands[0] is None else bands[0]._asdict(),
        "tpot_error": None if bands[1] is None else bands[1]._asdict(),
        "bottleneck": bottleneck(found.decode),
        "tpot_parts_s": {
            name: float(getattr(found.decode, name)) for name in ("software", "experts", "link")
        },
        "loads_per_token": float(found.decode.loads),
    }


def _advice(question: Question, found: Forecast) -> dict[str, Any]:
    spec = question.spec
    token_bytes = spec.top_k * spec.num_moe_layers * spec.expert_bytes(question.precision)
    return {
        "working_set_bytes": token_bytes,
        "working_set_vram_bytes": found.working_set_bytes,
        "near_full_vram_bytes": found.near_full_bytes,
        "double_speed_vram_bytes": found.doubled_bytes,
        "speculation": {"draft": DRAFT, "break_even_acceptance": found.draft_acceptance},
        "batching": {"batch": BATCH, "gain": found.batch_gain},
    }


def _within(band: Band | None, value: float) -> list[float] | None:
    return None if band is None else [band.low * value, band.high * value]
