"""`transformers` as the reference, and the checkpoints that both it and the decoder read."""

import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import safe_open
from safetensors.numpy import save_file

from tests.models.architectures import weights

PROMPTS = [
    [7, 41, 3, 19, 30, 11],
    [5, 44],
    [33, 8, 20],
]
GENERATED = 64  # tokens


def write_checkpoint(
    folder: Path, config: dict[str, Any], shapes: dict[str, tuple[int, ...]], seed: int = 0
) -> None:
    """Writes a checkpoint with drawn weights, see `architectures.weights`."""
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    tensors = {name: weights(name, tuple(shape), seed) for name, shape in shapes.items()}
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


def expanded(templates: dict[str, list[int]], config: dict[str, Any]) -> dict[str, tuple[int, ...]]:
    """Returns names and shapes with every expert spelled out, from those of expert 0 alone."""
    counts = ("num_experts", "num_local_experts", "n_routed_experts")
    many = next(config[key] for key in counts if key in config)
    return {
        name.replace("experts.0.", f"experts.{expert}."): tuple(shape)
        for name, shape in templates.items()
        for expert in range(many if "experts.0." in name else 1)
    }


def tensor_shapes(config: dict[str, Any]) -> dict[str, tuple[int, ...]]:
    """Returns the names and shapes that `transformers` gives a model's tensors when it saves it."""
    from transformers import AutoConfig, AutoModelForCausalLM  # pyright: ignore[reportMissingImports]

    known = {key: value for key, value in config.items() if key != "model_type"}
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(config["model_type"], **known))
    with tempfile.TemporaryDirectory() as folder:
        model.save_pretrained(folder)
        with safe_open(Path(folder) / "model.safetensors", framework="numpy") as file:
            return {name: tuple(file.get_slice(name).get_shape()) for name in sorted(file.keys())}


def reference(
    folder: Path, prompts: list[list[int]], new_tokens: int
) -> tuple[list[np.ndarray], list[list[int]], float]:
    """Returns what `transformers` makes of prompts, each alone, in float32.

    Returns:
      Logits of each prompt, the tokens that greedy generation appends to each, and the least
      distance between the best two logits on the way: what tells a tie from a mistake.
    """
    import torch  # pyright: ignore[reportMissingImports]
    from transformers import AutoModelForCausalLM  # pyright: ignore[reportMissingImports]

    model = AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.float32, attn_implementation="eager", experts_implementation="eager"
    ).eval()
    logits, generated, margin = [], [], np.inf
    with torch.no_grad():
        for prompt in prompts:
            logits.append(model(torch.tensor([prompt])).logits[0].numpy())
            tokens, past = torch.tensor([prompt]), None
            made = []
            for _ in range(new_tokens):
                out = model(tokens, past_key_values=past, use_cache=True)
                best, ids = torch.topk(out.logits[0, -1], 2)
                margin = min(margin, float(best[0] - best[1]))
                made.append(int(ids[0]))
                tokens, past = ids[:1][None], out.past_key_values
            generated.append(made)
    return logits, generated, margin
