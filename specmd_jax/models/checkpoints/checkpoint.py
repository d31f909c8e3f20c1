"""A Hugging Face checkpoint: the decoder goes to the device, the experts to the host."""

import os
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array

from specmd_jax.core.errors import InputError
from specmd_jax.models.checkpoints.expert_files import read_experts
from specmd_jax.models.checkpoints.families import from_hf
from specmd_jax.models.checkpoints.tensor_files import TensorFiles
from specmd_jax.models.checkpoints.tensor_names import tensor_name
from specmd_jax.models.config import DecoderConfig
from specmd_jax.models.decoder import Decoder
from specmd_jax.models.experts.weights import ExpertWeights


class Checkpoint:
    """A folder with config.json and safetensors files, opened; weights are read when asked for.

    Attributes:
      folder: where it lies.
      config: what its config.json says.

    Raises:
      InputError: something of it is missing, damaged or not supported.
    """

    def __init__(self, folder: str | Path):
        self.folder = Path(folder)
        if not os.path.isdir(folder):  # pathlib raises where a name is too long
            raise InputError(f"{folder} is not a folder: give one with config.json and weights")
        self.config: DecoderConfig = from_hf(self.folder)
        self._tensors = TensorFiles(self.folder)

    def decoder(self, dtype: Any = jnp.float32) -> Decoder:
        """Returns the decoder with its weights, all but the routed experts.

        Args:
          dtype: of the weights.

        Raises:
          InputError: a tensor is missing or has another shape than config.json asks for.
        """
        abstract = nnx.eval_shape(lambda: Decoder(self.config, nnx.Rngs(0), dtype))
        graph, state = nnx.split(abstract)
        weights = [
            (path, leaf.replace(self._weight(path, leaf)))
            for path, leaf in nnx.to_flat_state(state)
        ]
        return nnx.merge(graph, nnx.from_flat_state(weights))

    def experts(self, layer: int, dtype: Any = None) -> ExpertWeights:
        """Returns the experts of one MoE layer as frozen host arrays, [experts, ...].

        Args:
          layer: MoE layer, counted from 0 without the dense layers.
          dtype: of the arrays; None leaves them as they are stored.

        Raises:
          InputError: a tensor is missing or has another shape than config.json asks for.
        """
        return read_experts(self._tensors, self.config, self.config.moe_layers[layer], dtype)

    def all_experts(self, dtype: Any = jnp.float32) -> tuple[ExpertWeights, ...]:
        """Returns the experts of all MoE layers on the device, see `experts`."""
        layers = range(len(self.config.moe_layers))
        return tuple(jax.device_put(self.experts(layer, dtype)) for layer in layers)

    def _weight(self, path: tuple[Any, ...], leaf: Any) -> Array:
        matrix = path[-1] == "kernel"  # stored [out, in]
        shape = leaf.shape[::-1] if matrix else leaf.shape
        stored = self._tensors.shaped(tensor_name(path, self.config), shape)
        # Copied: a JAX array that shared the mapping would change with the file.
        return jnp.array(np.ascontiguousarray(stored.T if matrix else stored), leaf.dtype)
