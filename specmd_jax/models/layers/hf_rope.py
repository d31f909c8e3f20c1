"""Reads rotary embeddings from a config.json: plain, YaRN and LongRoPE."""

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from jaxtyping import Float

from specmd_jax.core.errors import InputError
from specmd_jax.models.config import Rope

_DEFAULT_THETA = {"gpt_oss": 150_000.0, "mixtral": 1e6, "phimoe": 1e6}


def read_rope(config: Mapping[str, Any], dim: int) -> Rope:
    """Returns the rotary embedding of heads of which `dim` dimensions turn.

    Both spellings are read: `rope_parameters`, and `rope_theta` beside `rope_scaling`.

    Raises:
      InputError: a kind of context extension that is not supported, or a parameter is missing.
    """
    parameters = _parameters(config)
    theta = parameters.get("rope_theta") or _DEFAULT_THETA.get(config["model_type"], 1e4)
    plain = Rope.plain(float(theta), dim)
    kind = _kind(parameters)
    if kind not in _KINDS:
        raise InputError(f"rope type {kind!r} is not supported: {', '.join(_KINDS)} are")
    try:
        frequencies, magnitude = _KINDS[kind](plain, parameters)
    except KeyError as error:
        raise InputError(f"rope type {kind!r} needs {error.args[0]}: mend config.json") from error
    frequencies = tuple(float(frequency) for frequency in frequencies)
    return replace(plain, frequencies=frequencies, magnitude=magnitude)


def softmax_correction(config: Mapping[str, Any]) -> float:
    """Returns what DeepSeek multiplies attention scores by under YaRN: its mscale, squared."""
    parameters = _parameters(config)
    if _kind(parameters) == "default":
        return 1.0
    return _mscale(_factor(parameters), float(parameters.get("mscale_all_dim") or 0)) ** 2


def _parameters(config: Mapping[str, Any]) -> dict[str, Any]:
    parameters = {"rope_theta": config.get("rope_theta")}
    parameters["max_position_embeddings"] = config.get("max_position_embeddings")
    for key in ("rope_scaling", "rope_parameters"):
        parameters |= config.get(key) or {}
    if config.get("original_max_position_embeddings"):
        parameters["original_max_position_embeddings"] = config["original_max_position_embeddings"]
    parameters.setdefault("original_max_position_embeddings", parameters["max_position_embeddings"])
    return parameters


def _kind(parameters: Mapping[str, Any]) -> str:
    return str(parameters.get("rope_type") or parameters.get("type") or "default")


def _factor(parameters: Mapping[str, Any]) -> float:
    if parameters.get("factor"):
        return float(parameters["factor"])
    longer, original = (
        _needed(parameters, key)
        for key in ("max_position_embeddings", "original_max_position_embeddings")
    )
    return longer / original


def _needed(parameters: Mapping[str, Any], key: str) -> Any:
    if parameters.get(key) is None:
        raise KeyError(key)  # which `read_rope` names
    return parameters[key]


def _mscale(factor: float, weight: float) -> float:
    return 1.0 if factor <= 1 else 0.1 * weight * math.log(factor) + 1.0


def _plain(rope: Rope, parameters: Mapping[str, Any]) -> tuple[Float[np.ndarray, " P"], float]:
    return np.asarray(rope.frequencies), 1.0


def _yarn(rope: Rope, parameters: Mapping[str, Any]) -> tuple[Float[np.ndarray, " P"], float]:
    """Slow pairs are stretched by the factor, fast ones kept; source: arXiv 2309.00071, §3.2."""
    plain = np.asarray(rope.frequencies)
    factor, dim = _factor(parameters), 2 * len(plain)
    original = _needed(parameters, "original_max_position_embeddings")

    def pair_of(rotations: float) -> float:
        return dim * math.log(original / (rotations * 2 * math.pi)) / (2 * math.log(rope.theta))

    low = pair_of(float(parameters.get("beta_fast") or 32))
    high = pair_of(float(parameters.get("beta_slow") or 1))
    if parameters.get("truncate", True):
        low, high = math.floor(low), math.ceil(high)
    low, high = max(low, 0), min(high, dim - 1)
    width = (high - low) or 1e-3
    stretched = np.clip((np.arange(len(plain)) - low) / width, 0, 1)
    frequencies = plain / factor * stretched + plain * (1 - stretched)
    return frequencies, _yarn_magnitude(factor, parameters)


def _yarn_magnitude(factor: float, parameters: Mapping[str, Any]) -> float:
    if parameters.get("attention_factor") is not None:
        return float(parameters["attention_factor"])
    mscale, all_dim = parameters.get("mscale"), parameters.get("mscale_all_dim")
    if mscale and all_dim:
        return _mscale(factor, float(mscale)) / _mscale(factor, float(all_dim))
    return _mscale(factor, 1.0)


def _longrope(rope: Rope, parameters: Mapping[str, Any]) -> tuple[Float[np.ndarray, " P"], float]:
    """A factor of its own for every pair; source: LongRoPE (arXiv 2402.13753).

    The short factors are taken: the model computes as it was first trained, which holds up to
    the original context.
    """
    plain = np.asarray(rope.frequencies)
    short = np.asarray(_needed(parameters, "short_factor"), float)
    if short.shape != plain.shape:
        raise InputError(f"short_factor has {len(short)} entries for {len(plain)} rotary pairs")
    return plain / short, float(_needed(parameters, "short_mscale"))


_KINDS = {"default": _plain, "yarn": _yarn, "longrope": _longrope}
