"""What is fuzzed: for each reader a valid file, how it is mutated, and what a user would call."""

import json
import shutil
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from random import Random
from typing import Any, NamedTuple

import numpy as np
from safetensors.numpy import save_file

from specmd_jax.hardware.profiles import get_hardware, read_profile, write_profile
from specmd_jax.model_zoo import from_config
from specmd_jax.models.checkpoints.families import from_hf
from specmd_jax.models.checkpoints.tensor_files import INDEX, TensorFiles
from specmd_jax.policies.published import STRATEGIES
from specmd_jax.policies.strategy_file import read_strategy, write_strategy
from specmd_jax.runtime.runs.prompts import read_prompts
from specmd_jax.study.journal import Journal
from specmd_jax.traces import IMPORTERS, ImportOptions, import_trace
from tests.fuzz.mutations import (
    Mutation,
    mutated_archive,
    mutated_array,
    mutated_bytes,
    mutated_cells,
    mutated_metadata,
    mutated_pickle,
    mutated_safetensors,
    mutated_tree,
)
from tests.traces.samples import SAMPLES


class Target(NamedTuple):
    """One reader."""

    file: Path  # which is mutated
    data: bytes  # what was in it
    mutations: tuple[Mutation, ...]
    read: Callable[[int], object]  # by the number of the case


def make_targets(folder: Path) -> dict[str, Target]:
    """Writes a valid file for every reader, each in a folder of its own below `folder`."""
    targets: dict[str, Target] = {}
    for name in SAMPLES:
        targets[f"trace: {name}"] = _trace(name, _inside(folder, name))
    targets["trace: meta.json of npz"] = _meta(_inside(folder, "meta"))
    for index, config in enumerate(_configs()):
        targets[f"config: {config['model_type']} {index}"] = _config(
            config, _inside(folder, f"config{index}")
        )
    targets |= {
        "checkpoint: header": _checkpoint(_inside(folder, "header"), "model-1.safetensors"),
        "checkpoint: index": _checkpoint(_inside(folder, "index"), INDEX),
        "hardware": _hardware(_inside(folder, "hardware") / "machine.json"),
        "strategy": _strategy(_inside(folder, "strategy") / "strategy.json"),
        "journal": _journal(_inside(folder, "journal") / "sweep.jsonl"),
        "prompts": _prompts(_inside(folder, "prompts") / "prompts.jsonl"),
    }
    return targets


def _inside(folder: Path, name: str) -> Path:
    target = folder / name.replace(" ", "-")
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir(parents=True)
    return target


def _target(file: Path, read: Callable[[int], object], *mutations: Mutation) -> Target:
    return Target(file, file.read_bytes(), (*mutations, mutated_bytes), read)


def _trace(name: str, folder: Path) -> Target:
    path = SAMPLES[name](folder)
    file = path if path.is_file() else sorted(path.iterdir())[0]
    format_name = max((known for known in IMPORTERS if name.startswith(known)), key=len)
    options = (
        ImportOptions(),
        ImportOptions(format=format_name, num_experts=8, top_k=2),
        ImportOptions(top_k=2, axes="tokens-first", ids="per-layer"),
        ImportOptions(format=format_name, layers="0", join="requests"),
    )
    return _target(file, lambda case: import_trace(path, options[case % 4]), *_of_trace(file, name))


def _of_trace(file: Path, name: str) -> tuple[Mutation, ...]:
    match file.suffix:
        case ".npz":
            return (mutated_archive(lambda member: mutated_array),)
        case ".npy":
            return (mutated_array,)
        case ".pt":
            inside = {"pkl": mutated_pickle}
            return (
                mutated_archive(lambda member: inside.get(member[-3:], mutated_bytes)),
                mutated_archive(lambda member: mutated_pickle),
            )
        case ".jsonl" | ".json":
            return (mutated_tree(["experts", "layer", "token", "step", "meta", "logits"]),) * 3
        case ".parquet":
            return ()
    return (mutated_safetensors, mutated_metadata) if name == "specmd" else (mutated_cells,) * 2


def _meta(folder: Path) -> Target:
    path = SAMPLES["npz"](folder)
    keys = ["experts", "model", "licence", "source", "recorded"]
    return _target(folder / "meta.json", lambda case: import_trace(path), mutated_tree(keys))


def _configs() -> list[dict[str, Any]]:
    from tests.model_zoo.test_any_config import CONFIGS

    return CONFIGS


def _config(config: dict[str, Any], folder: Path) -> Target:
    from tests.model_zoo.test_any_config import MORE_KEYS, check_sizes

    file = folder / "config.json"
    file.write_text(json.dumps(config))

    def read(case: int) -> None:
        if case % 2:
            from_hf(folder)
        else:
            check_sizes(from_config(file))

    return _target(file, read, *(mutated_tree(MORE_KEYS),) * 4)


def _checkpoint(folder: Path, file: str) -> Target:
    parts = {
        "model-1.safetensors": {"a": np.ones((4, 2), np.float32), "b": np.ones(3, np.float16)},
        "model-2.safetensors": {"c": np.ones((2, 2, 2), np.float32)},
    }
    for name, tensors in parts.items():
        save_file(tensors, folder / name, metadata={"format": "pt"})
    places = {tensor: name for name, tensors in parts.items() for tensor in tensors}
    (folder / INDEX).write_text(json.dumps({"metadata": {}, "weight_map": places}))
    shutil.copytree(folder, folder / "..x")  # what a name that leads out would find

    def read(case: int) -> None:
        tensors = TensorFiles(folder)
        for name in tensors:
            tensors[name].sum()

    if file == INDEX:
        return _target(folder / file, read, mutated_tree(["weight_map", "a", "../a"]))
    return _target(folder / file, read, mutated_safetensors, mutated_safetensors)


def _hardware(file: Path) -> Target:
    machine = get_hardware("rtx-4090")
    write_profile(machine, file, {"link": 1})
    return _target(file, lambda case: read_profile(file), *(mutated_tree([*asdict(machine)]),) * 3)


def _strategy(file: Path) -> Target:
    preset = next(iter(STRATEGIES.values()))
    write_strategy(file, preset.strategy, preset.params, ("bf16",), "cold", {"trace": "x"})
    keys = [*json.loads(file.read_text()), "eviction.decay"]
    return _target(file, lambda case: read_strategy(file), *(mutated_tree(keys),) * 3)


def _journal(file: Path) -> Target:
    journal = Journal(file)
    journal.append(
        {f"key{row}": {"hits": row, "hit_rate": 0.5, "policy": "lru"} for row in range(4)}
    )
    return _target(file, lambda case: Journal(file).rows(), *(mutated_tree(["key", "row"]),) * 2)


def _prompts(file: Path) -> Target:
    file.write_text("".join(json.dumps({"prompt": f"number {i}"}) + "\n" for i in range(4)))
    return _target(file, lambda case: read_prompts(file), mutated_tree(["prompt", "text"]))


def mutated(target: Target, rng: Random) -> bytes:
    """The target's file with one to three mutations, the format's own or of bytes."""
    data = target.data
    for _ in range(rng.choice((1, 1, 2, 3))):
        try:
            data = rng.choice(target.mutations)(data, rng)
        except Exception:  # a mutation of the format, after one that broke it
            data = mutated_bytes(data, rng)
    return data
