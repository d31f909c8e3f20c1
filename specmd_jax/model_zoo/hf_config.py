"""Reads a `ModelSpec` from a Hugging Face config.json alone: no weights, no download.

Of a multimodal model the language part is read; layers that predict further tokens (MTP) are not
counted. What is priced roughly, or not understood, is said in the spec's notes.
"""

from collections.abc import Mapping
from pathlib import Path, PurePath
from typing import Any

from specmd_jax.core.errors import InputError
from specmd_jax.core.json_files import read_object
from specmd_jax.core.printable import printable
from specmd_jax.model_zoo.config_layers import (
    LINEAR,
    NUM_EXPERTS,
    STATE,
    bare_layers,
    layer_kinds,
    moe_layers,
)
from specmd_jax.model_zoo.config_mixers import read_mixers
from specmd_jax.model_zoo.config_schema import not_understood
from specmd_jax.model_zoo.config_sizes import HIDDEN_SIZE, ConfigSizes
from specmd_jax.model_zoo.spec import ModelSpec
from specmd_jax.model_zoo.stored import stored_precisions

_TOP_K = (
    "num_experts_per_tok",
    "num_experts_per_token",
    "experts_per_token",
    "top_k_experts",
    "moe_top_k",
    "moe_topk",
    "moe_k",
)
_EXPERT_SIZE = (
    "moe_intermediate_size",
    "expert_ffn_hidden_size",
    "ffn_hidden_size",
    "intermediate_size",
)
_DENSE_SIZE = ("intermediate_size_mlp", "dense_intermediate_size", "intermediate_size")
_SHARED_COUNT = (
    "n_shared_experts",
    "num_shared_experts",
    "num_shared_expert",
    "moe_num_shared_experts",
)
_SHARED_SIZE = ("shared_expert_intermediate_size", "shared_intermediate_size", "share_expert_dim")
_NOT_GATED = ("relu", "relu2")  # activations of experts with two matrices
_NAMED = 6  # keys that a note names


def from_config(config: Mapping[str, Any] | str | Path) -> ModelSpec:
    """Reads the sizes of a model from its config.json: a path, its folder, or the parsed dict.

    Raises:
      InputError: not a readable config, a dense model, a missing key, a value out of its bounds,
        or layers whose experts differ.
    """
    raw, origin = _load(config)
    if raw.get("d_ff") is not None:
        raise InputError(f"{origin} has d_ff, an encoder-decoder: such models are not supported")
    sizes = ConfigSizes(raw, origin)
    kinds, unknown = layer_kinds(sizes)
    if max(sizes.by_layer(*NUM_EXPERTS, default=0)) <= 1:
        raise InputError(f"{origin} is a dense model (no {' or '.join(NUM_EXPERTS)} above 1)")
    routed = moe_layers(sizes, kinds)
    if not routed:
        raise InputError(f"{origin}: no layer has experts, by the keys that say which do: mend it")
    bare = bare_layers(kinds)
    others = {*routed, *bare}
    dense = tuple(layer for layer in range(sizes.num_layers) if layer not in others)
    stored = stored_precisions(dict(raw) | sizes.keys, origin)
    hf_id = str(raw.get("_name_or_path") or origin)
    named = PurePath(hf_id)
    name = named.parent.name if named.name == "config.json" else named.name
    return ModelSpec(
        name=name or hf_id,
        hf_id=hf_id,
        num_hidden_layers=sizes.num_layers,
        num_experts=sizes.alike(routed, *NUM_EXPERTS),
        top_k=sizes.alike(routed, *_TOP_K),
        hidden_size=sizes.need(*HIDDEN_SIZE),
        moe_intermediate_size=sizes.alike(routed, *_EXPERT_SIZE),
        vocab_size=sizes.need("vocab_size"),
        mixers=read_mixers(sizes, kinds),
        dense_layers=dense,
        dense_intermediate_size=sizes.alike(dense, *_DENSE_SIZE) if dense else 0,
        bare_layers=tuple(bare),
        shared_intermediate_size=_shared_intermediate_size(sizes, routed),
        tie_embeddings=_tied(raw, sizes),
        gated=sizes.get("hidden_act", "mlp_hidden_act") not in _NOT_GATED,
        expert_bias=sizes.model_type == "gpt_oss",
        source=origin,
        expert_precision=stored.experts,
        non_expert_precision=stored.others,
        notes=tuple(_notes(sizes, kinds, unknown, stored.note)),
    )


def _load(config: Mapping[str, Any] | str | Path) -> tuple[Mapping[str, Any], str]:
    if isinstance(config, Mapping):
        return config, str(config.get("_name_or_path") or "config")
    path = config_file(config)
    return read_config(path), str(path)


def read_config(path: str | Path) -> dict[str, Any]:
    """Returns the parsed config.json: `path`, or the one in the folder `path`.

    Raises:
      InputError: the file cannot be read or holds no JSON object.
    """
    return read_object(config_file(path), "give a config.json")


def config_file(path: str | Path) -> Path:
    """Returns the config.json of a folder, or the file itself."""
    path = Path(path)
    return path / "config.json" if path.is_dir() else path


def _shared_intermediate_size(sizes: ConfigSizes, routed: list[int]) -> int:
    # Implied by the family: Llama 4's one shared expert, Gemma 4's dense block beside the experts.
    if sizes.model_type.startswith(("llama4", "gemma4")):
        return sizes.alike(routed, "intermediate_size")
    count = sizes.alike(routed, *_SHARED_COUNT, default=0) if sizes.get(*_SHARED_COUNT) else 0
    if each := sizes.get("moe_shared_expert_intermediate_size"):
        return each * max(1, count)
    return sizes.get(*_SHARED_SIZE) or count * sizes.alike(routed, *_EXPERT_SIZE)


def _tied(raw: Mapping[str, Any], sizes: ConfigSizes) -> bool:
    """Says whether the head is the embedding; configs omit what their class takes for granted."""
    ties_by_default = sizes.model_type.startswith("gemma")
    nested = sizes.get("tie_word_embeddings", default=ties_by_default)
    return bool(raw.get("tie_word_embeddings", nested))


def _notes(sizes: ConfigSizes, kinds: list[str], unknown: list[str], stored: str) -> list[str]:
    """Returns what is priced roughly, and what is not understood."""
    notes = [stored] if stored else []
    if states := kinds.count(STATE):
        notes.append(
            f"{states} of {len(kinds)} layers are state-space layers: their projections and "
            "states are counted as Mamba-2's, their scan by its FLOPs alone"
        )
    if LINEAR in kinds and sizes.get("linear_num_key_heads") is None:
        notes.append("linear attention is priced as Gated DeltaNet of as many and as wide heads")
    if sizes.get("index_n_heads") is not None:
        notes.append("the index that selects which keys are attended to is not counted")
    if unknown:
        names = ", ".join(printable(name[:40]) for name in unknown[:_NAMED])
        notes.append(f"layers of kind {names} are not known, and priced as full attention")
    if keys := not_understood(sizes.keys):
        more = f" and {len(keys) - _NAMED} more" if len(keys) > _NAMED else ""
        names = ", ".join(printable(key[:40]) for key in keys[:_NAMED])
        notes.append(f"config keys that may change sizes and are not read: {names}{more}")
    return notes
