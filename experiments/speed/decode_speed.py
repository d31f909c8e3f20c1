"""Decode speed of a resident model beside one forward pass written by hand for the same weights.

  python -m experiments.speed.decode_speed --model specmd-tiny

The hand-written pass (`hand_decode.py`) knows only OLMoE's architecture, one sequence and one
token: it is the least that a decode step can be. The same model is timed once more with a recorder
that keeps ids and weights. All are timed in turns, so that a busy machine slows all. Prints one
JSON object and writes results/decode_speed.md.
"""

import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import tyro

from experiments.shared.recordings import RESULTS, markdown_table, measured_on, write_page
from experiments.speed.hand_decode import Caches, by_hand, weights_of
from specmd_jax.models import Checkpoint, ResidentModel, empty_cache, open_model
from specmd_jax.runtime.record.model import RecordingModel
from specmd_jax.runtime.record.recorder import Recorder


@dataclass(frozen=True)
class Options:
    """What is timed."""

    model: str = "specmd-tiny"
    context: int = 256  # tokens that the caches can hold
    tokens: int = 60  # decode steps of each turn
    turns: int = 15
    output: Path = RESULTS


def hand_run(checkpoint: Checkpoint, options: Options) -> Callable[[], list[int]]:
    """Returns a greedy decode from token 0 by the hand-written pass."""
    config, weights = checkpoint.config, weights_of(checkpoint)
    mixer: Any = config.spec.mixers[0]
    shape = (options.context, mixer.num_heads, mixer.head_dim)
    layers = range(config.spec.num_hidden_layers)

    def run() -> list[int]:
        keys, values = (tuple(jnp.zeros(shape) for _ in layers) for _ in range(2))
        caches = Caches(keys, values, jnp.int32(0))
        token, made = jnp.int32(0), []
        for _ in range(options.tokens):
            logits, caches = by_hand(config, weights, token, caches)
            token = jnp.argmax(logits)
            made.append(int(token))
        return made

    return run


def model_run(checkpoint: Checkpoint, options: Options) -> Callable[[], list[int]]:
    """Returns the same decode by the package's resident model."""
    return _greedy(ResidentModel(checkpoint.decoder(), checkpoint.all_experts()), options)


def recorded_run(checkpoint: Checkpoint, options: Options) -> Callable[[], list[int]]:
    """Returns the same decode, recorded."""
    recorder = Recorder()
    model = RecordingModel(checkpoint.decoder(), checkpoint.all_experts(), recorder)
    decode = _greedy(model, options)

    def run() -> list[int]:
        recorder.begin([1])
        made = decode()
        recorder.finish()
        return made

    return run


def _greedy(model: ResidentModel | RecordingModel, options: Options) -> Callable[[], list[int]]:
    config = model.config

    def run() -> list[int]:
        cache = empty_cache(config, 1, options.context, jnp.zeros(1, jnp.int32), jnp.float32)
        token, made = jnp.zeros((1, 1), jnp.int32), []
        for _ in range(options.tokens):
            after = model(token, cache)
            assert after.cache is not None
            cache, token = after.cache, jnp.argmax(after.logits, axis=-1)
            made.append(int(token[0, 0]))
        return made

    return run


def main(options: Options) -> None:
    """Prints one JSON object, and writes the page."""
    checkpoint = open_model(options.model)
    runs = {
        "by_hand": hand_run(checkpoint, options),
        "model": model_run(checkpoint, options),
        "recorded": recorded_run(checkpoint, options),
    }
    made = [run() for run in runs.values()]
    assert all(one == made[0] for one in made), "they do not compute the same"
    seconds = time_in_turns(runs, options)
    found = summary(seconds) | measured_on() | {"label": "MEASURED"}
    print(json.dumps(found, indent=2))
    write_page(page(options, seconds, found), options.output / "decode_speed.md")


def time_in_turns(
    runs: dict[str, Callable[[], list[int]]], options: Options
) -> dict[str, list[float]]:
    """Returns the seconds a token of each run in each turn."""
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(options.turns):
        for name, run in runs.items():
            start = time.perf_counter()
            run()
            seconds[name].append((time.perf_counter() - start) / options.tokens)
    return seconds


def summary(seconds: dict[str, list[float]]) -> dict[str, Any]:
    """Returns milliseconds a token, and the ratios of neighbours in time."""
    found = {f"{name}_ms": 1e3 * float(np.min(times)) for name, times in seconds.items()}
    for name, base in (("model", "by_hand"), ("recorded", "model")):
        ratios = np.divide(seconds[name], seconds[base])
        found[f"{name}_to_{base}"] = float(np.median(ratios))
        found[f"{name}_to_{base}_best"] = float(np.min(seconds[name]) / np.min(seconds[base]))
    return found


def page(options: Options, seconds: dict[str, list[float]], found: dict[str, Any]) -> list[str]:
    """Returns the lines of decode_speed.md."""
    told = {
        "by_hand": "one hand-jitted forward, this architecture only",
        "model": "the package's resident model",
        "recorded": "the same, recording ids and gate weights",
    }
    body = [
        [words, f"{found[f'{name}_ms']:.3f}", f"{1e3 * float(np.median(seconds[name])):.3f}"]
        for name, words in told.items()
    ]
    return [
        "# Decode speed of the resident model",
        "",
        f"MEASURED {found['date']}, `{options.model}`, one sequence, greedy, {options.tokens} "
        f"tokens in each of {options.turns} turns; machine: {found['machine']}; commit "
        f"{found['commit']}. By `python -m experiments.speed.decode_speed`. The runs take turns, "
        "so that what else the machine does slows all; all three write the same tokens.",
        "",
        *markdown_table(["", "ms a token, best turn", "median turn"], body),
        "",
        f"* The model takes {found['model_to_by_hand']:.2f} times the hand-written pass in the "
        f"median turn, {found['model_to_by_hand_best']:.2f} best against best (bar: 1.3).",
        f"* Recording adds {found['recorded_to_model'] - 1:+.1%} in the median turn, "
        f"{found['recorded_to_model_best'] - 1:+.1%} best against best (bar: 10 %).",
    ]


if __name__ == "__main__":
    main(tyro.cli(Options))
