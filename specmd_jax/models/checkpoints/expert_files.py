"""Reads the experts of a layer from a checkpoint, however its family lays them out.

They go from the mapped files into one buffer a layer, so that no more than one expert is in
memory twice.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
from jaxtyping import Shaped

from specmd_jax.models.checkpoints.tensor_files import TensorFiles
from specmd_jax.models.checkpoints.tensor_names import (
    ExpertNames,
    FusedExperts,
    InterleavedExperts,
    SeparateExperts,
    expert_names,
)
from specmd_jax.models.config import DecoderConfig
from specmd_jax.models.experts.weights import ExpertWeights

_ALIGNMENT = 64  # bytes: the CPU backend then takes the buffer over without a copy


def read_experts(
    tensors: TensorFiles, config: DecoderConfig, layer: int, dtype: Any = None
) -> ExpertWeights:
    """Returns the experts of one decoder layer as frozen host arrays, [experts, ...].

    Args:
      tensors: of the checkpoint.
      config: of the decoder.
      layer: decoder layer, dense ones counted.
      dtype: of the arrays; None leaves them as they are stored.

    Raises:
      InputError: a tensor is missing or has another shape than config.json asks for.
    """
    names = _stored(tensors, expert_names(config, layer))
    if dtype is None:
        dtype = tensors[names.down.format(expert=0)].dtype
    experts = _READERS[type(names)](tensors, names, config, dtype)
    for array in experts:
        if isinstance(array, np.ndarray):
            array.flags.writeable = False
    return experts


def _stored(tensors: TensorFiles, ways: tuple[ExpertNames, ...]) -> ExpertNames:
    """Returns the way whose tensors are there; else the first, whose lack is then reported."""
    for names in ways:
        if any(name.format(expert=0) in tensors for name in names):
            return names
    return ways[0]


def _separate(
    tensors: TensorFiles, names: SeparateExperts, config: DecoderConfig, dtype: Any
) -> ExpertWeights:
    many, size, width = _sizes(config)
    experts = _buffers(config, dtype)
    for expert in range(many):
        gate, up, down = (
            tensors.shaped(name.format(expert=expert), shape)
            for name, shape in zip(names, [(width, size)] * 2 + [(size, width)], strict=True)
        )
        experts.gate_up[expert, :, :width] = gate.T
        experts.gate_up[expert, :, width:] = up.T
        experts.down[expert] = down.T
    return experts


def _fused(
    tensors: TensorFiles, names: FusedExperts, config: DecoderConfig, dtype: Any
) -> ExpertWeights:
    many, size, width = _sizes(config)
    experts = _buffers(config, dtype)
    for expert, gate_up in enumerate(tensors.parts(names.gate_up, (many, 2 * width, size))):
        experts.gate_up[expert] = gate_up.T
    for expert, down in enumerate(tensors.parts(names.down, (many, size, width))):
        experts.down[expert] = down.T
    return experts


def _interleaved(
    tensors: TensorFiles, names: InterleavedExperts, config: DecoderConfig, dtype: Any
) -> ExpertWeights:
    many, size, width = _sizes(config)
    experts = _buffers(config, dtype)
    for expert, gate_up in enumerate(tensors.parts(names.gate_up, (many, size, 2 * width))):
        experts.gate_up[expert, :, :width] = gate_up[:, ::2]
        experts.gate_up[expert, :, width:] = gate_up[:, 1::2]
    for expert, down in enumerate(tensors.parts(names.down, (many, width, size))):
        experts.down[expert] = down
    bias = tensors.shaped(names.gate_up + "_bias", (many, 2 * width))
    down_bias = tensors.shaped(names.down + "_bias", (many, size))
    return experts._replace(
        gate_up_bias=np.concatenate([bias[:, ::2], bias[:, 1::2]], axis=1).astype(dtype),
        down_bias=down_bias.astype(dtype),
    )


_READERS: dict[type, Callable[..., ExpertWeights]] = {
    SeparateExperts: _separate,
    FusedExperts: _fused,
    InterleavedExperts: _interleaved,
}


def _sizes(config: DecoderConfig) -> tuple[int, int, int]:
    spec = config.spec
    return spec.num_experts, spec.hidden_size, spec.moe_intermediate_size


def _buffers(config: DecoderConfig, dtype: Any) -> ExpertWeights:
    many, size, width = _sizes(config)
    return ExpertWeights(
        _aligned((many, size, 2 * width), dtype), _aligned((many, width, size), dtype)
    )


def _aligned(shape: tuple[int, ...], dtype: Any) -> Shaped[np.ndarray, "..."]:
    nbytes = int(np.prod(shape)) * np.dtype(dtype).itemsize
    memory = np.empty(nbytes + _ALIGNMENT, np.uint8)
    skip = -memory.ctypes.data % _ALIGNMENT
    return memory[skip : skip + nbytes].view(dtype).reshape(shape)
