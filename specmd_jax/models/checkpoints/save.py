"""Writes a decoder of OLMoE's architecture as a Hugging Face checkpoint."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Shaped

from specmd_jax.core.errors import InputError
from specmd_jax.core.files import replace_file, unwritable
from specmd_jax.core.tensors import write_tensors
from specmd_jax.models.checkpoints.families import from_hf
from specmd_jax.models.checkpoints.tensor_names import expert_names, tensor_name
from specmd_jax.models.config import DecoderConfig
from specmd_jax.models.decoder import Decoder
from specmd_jax.models.experts.weights import ExpertWeights


def save_olmoe(
    folder: str | Path,
    decoder: Decoder,
    experts: tuple[ExpertWeights, ...],
    *,
    dtype: Any = jnp.float32,
    max_position_embeddings: int = 4096,
    eos_token_id: int | None = None,
) -> None:
    """Writes config.json and model.safetensors, as `transformers` reads them.

    Each file is written to a temporary name and then renamed.

    Args:
      folder: made if it is not there.
      decoder: of OLMoE's architecture.
      experts: of each MoE layer, [experts, ...].
      dtype: of the stored weights.
      max_position_embeddings: longest context, for the config.
      eos_token_id: of the tokenizer, for the config; None if it has none.

    Raises:
      InputError: the decoder is of another architecture, or the folder cannot be written.
    """
    folder, config = Path(folder), decoder.config
    written = _hf_config(config) | {
        "torch_dtype": jnp.dtype(dtype).name,
        "max_position_embeddings": max_position_embeddings,
        "eos_token_id": eos_token_id,
        "bos_token_id": None,
        "pad_token_id": None,
    }
    described = json.dumps(written, indent=2) + "\n"
    tensors = _decoder_tensors(decoder, dtype) | _expert_tensors(config, experts, dtype)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise unwritable(folder, error) from error
    with replace_file(folder / "config.json") as half:
        half.write_text(described, encoding="utf-8")
    write_tensors(tensors, folder / "model.safetensors", {"format": "pt"})


def _hf_config(config: DecoderConfig) -> dict[str, Any]:
    spec, mixer = config.spec, config.spec.mixers[0]
    written = {
        "architectures": ["OlmoeForCausalLM"],
        "model_type": "olmoe",
        "hidden_act": "silu",
        "hidden_size": spec.hidden_size,
        "intermediate_size": spec.moe_intermediate_size,
        "norm_topk_prob": config.router.normalize,
        "num_attention_heads": getattr(mixer, "num_heads", 0),
        "num_experts": spec.num_experts,
        "num_experts_per_tok": spec.top_k,
        "num_hidden_layers": spec.num_hidden_layers,
        "num_key_value_heads": getattr(mixer, "num_key_value_heads", 0),
        "rms_norm_eps": config.norm_eps,
        "rope_theta": config.rope.theta,
        "clip_qkv": config.attention.clip,
        "tie_word_embeddings": spec.tie_embeddings,
        "vocab_size": spec.vocab_size,
        "_name_or_path": spec.hf_id,
    }
    read_back = from_hf(written)
    sources = replace(read_back, spec=replace(read_back.spec, name=spec.name, source=spec.source))
    if sources != config:
        raise InputError(
            f"{spec.name} is not of OLMoE's architecture: only such decoders can be written"
        )
    return written


def _decoder_tensors(decoder: Decoder, dtype: Any) -> dict[str, Shaped[np.ndarray, "..."]]:
    _, state = nnx.split(decoder)
    tensors = {}
    for path, leaf in nnx.to_flat_state(state):
        values = np.asarray(leaf[...]).astype(dtype)
        stored = values.T if path[-1] == "kernel" else values
        tensors[tensor_name(path, decoder.config)] = np.ascontiguousarray(stored)
    return tensors


def _expert_tensors(
    config: DecoderConfig, layers: tuple[ExpertWeights, ...], dtype: Any
) -> dict[str, Shaped[np.ndarray, "..."]]:
    tensors, width = {}, config.spec.moe_intermediate_size
    for decoder_layer, experts in zip(config.moe_layers, layers, strict=True):
        names = expert_names(config, decoder_layer)[0]
        gate_up, down = (np.asarray(array).astype(dtype) for array in experts[:2])
        for expert in range(config.spec.num_experts):
            matrices = gate_up[expert, :, :width], gate_up[expert, :, width:], down[expert]
            for template, matrix in zip(names, matrices, strict=True):
                tensors[template.format(expert=expert)] = np.ascontiguousarray(matrix.T)
    return tensors
