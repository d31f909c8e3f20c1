"""How fast the runtime is beside a plain jitted model on this machine: MEASURED, in one run."""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from specmd_jax.models import Checkpoint, ResidentModel, generate
from specmd_jax.runtime.engine import OffloadedModel
from specmd_jax.runtime.options import RunOptions
from specmd_jax.runtime.runs.generation import follow, warm_up
from specmd_jax.runtime.runs.offloading import Offloading
from specmd_jax.study.choice import Choice
from specmd_jax.study.metrics import count_summary
from specmd_jax.study.setup import make_setup

PROMPT_TOKENS = 32
TOKENS = 48
TURNS = 5  # of all ways, one after the other: what else the machine does then hits all alike
MOST_TEXTS = 200  # to ask for every expert
EVERYTHING, OFFLOADED = "100%", ("5%", "25%")
DECISIONS = (("lru", "none"), ("least-stale", "next-gate"))  # eviction and prefetch


class Row(NamedTuple):
    """One way of running the model."""

    way: str
    capacity: str
    ttft_s: float
    tpot_s: float
    hit_rate: float | None
    label: str = "MEASURED"


class Found(NamedTuple):
    """What a bench found; the ratios compare medians of the same turns."""

    rows: list[Row]
    all_resident_ratio: float  # TPOT with every expert in a slot, to that of the jitted model
    overhead_per_layer_s: float  # of going layer by layer, with every expert in a slot


def bench_runtime(
    checkpoint: Checkpoint,
    turns: int = TURNS,
    tokens: int = TOKENS,
    tell: Callable[[str], None] = lambda text: None,
) -> Found:
    """Times the model whole, with every expert in a slot, and with few of them.

    Args:
      checkpoint: of a model that fits the device.
      turns: measurements of each way.
      tokens: decoded in each.
      tell: is told of each turn.
    """
    offloading = Offloading(checkpoint)
    prompt = [[(7 * place) % checkpoint.config.spec.vocab_size for place in range(PROMPT_TOKENS)]]
    ways = _ways(offloading)
    whole = ResidentModel(offloading.decoder, checkpoint.all_experts())
    generate(whole, checkpoint.config, prompt, 2)
    for (_, capacity), model in ways.items():
        warm_up(model, prompt, tokens)
        if capacity == EVERYTHING:
            _fill(model, tokens)
    timed: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for turn in range(turns):
        timed.setdefault(("plain jit", EVERYTHING), []).append(_time(whole, prompt, tokens))
        for (way, capacity), model in ways.items():
            run = _time_run(model, prompt, tokens, cold=capacity != EVERYTHING)
            timed.setdefault((way, capacity), []).append(run)
        tell(f"turn {turn + 1} of {turns}")
    for model in ways.values():
        model.close()
    rows = [Row(*name, **_medians(runs)) for name, runs in timed.items()]
    tpot = {(row.way, row.capacity): row.tpot_s for row in rows}
    plain = tpot["plain jit", EVERYTHING]
    layers = checkpoint.config.spec.num_moe_layers
    apart = (tpot["layer by layer", EVERYTHING] - plain) / layers
    return Found(rows, tpot["in slots", EVERYTHING] / plain, apart)


def _ways(offloading: Offloading) -> dict[tuple[str, str], OffloadedModel]:
    everything = make_setup(Choice(capacity=EVERYTHING))
    ways = {
        ("in slots", EVERYTHING): offloading.model(everything),
        ("layer by layer", EVERYTHING): offloading.model(
            everything, options=RunOptions(whole_passes=False)
        ),
    }
    for capacity in OFFLOADED:
        for eviction, prefetch in DECISIONS:
            choice = Choice(eviction=eviction, prefetch=prefetch, capacity=capacity)
            name = eviction if prefetch == "none" else f"{eviction} + {prefetch}"
            ways[name, capacity] = offloading.model(make_setup(choice))
    return ways


def _time(whole: ResidentModel, prompt: list[list[int]], tokens: int) -> dict[str, Any]:
    *_, made = follow(whole, prompt, tokens)
    return {"ttft_s": made.ttft_s, "tpot_s": _typical(made.at_s), "hit_rate": None}


def _fill(model: OffloadedModel, tokens: int) -> None:
    """Has random texts bring every expert to the device."""
    vocabulary = model.config.spec.vocab_size
    for seed in range(MOST_TEXTS):
        text = np.random.default_rng(seed).integers(0, vocabulary, PROMPT_TOKENS)
        next(follow(model, [text.tolist()], tokens))
        if model.holds_all:
            return
    raise RuntimeError(f"{MOST_TEXTS} random texts did not ask for every expert")


def _time_run(
    model: OffloadedModel, prompt: list[list[int]], tokens: int, cold: bool
) -> dict[str, Any]:
    """Times a run from a cold cache, or from what is there."""
    if cold:
        model.reset()
    before = count_summary(model.answer)
    *_, made = follow(model, prompt, tokens)
    after = count_summary(model.answer)
    hits, accesses = (after[name] - before[name] for name in ("hits", "accesses"))
    return {
        "ttft_s": made.ttft_s,
        "tpot_s": _typical(made.at_s),
        "hit_rate": hits / accesses if accesses else None,
    }


def _typical(at_s: list[float]) -> float:
    """Returns the median time between tokens: the first ones fill the cache, or wait for code."""
    return float(np.median(np.diff(at_s)))


def _medians(runs: list[dict[str, Any]]) -> dict[str, Any]:
    columns = {name: [run[name] for run in runs] for name in runs[0]}
    return {
        name: None if values[0] is None else float(np.median(values))
        for name, values in columns.items()
    }
