"""A checkpoint opened for offloading: the decoder on the device, the experts on the host."""

from dataclasses import replace
from typing import Any

import jax.numpy as jnp

from specmd_jax.models import Checkpoint, Decoder
from specmd_jax.runtime.budget import check_runnable
from specmd_jax.runtime.engine import OffloadedModel
from specmd_jax.runtime.offload.store import ExpertStore, store_checkpoint
from specmd_jax.study.setup import Setup


class Offloading:
    """Makes offloaded models of one checkpoint; what they need alike is loaded once."""

    def __init__(self, checkpoint: Checkpoint, dtype: Any = jnp.float32):
        """Opens nothing yet.

        Args:
          checkpoint: of the model.
          dtype: in which it computes, and in which bf16 copies are kept.
        """
        self.checkpoint, self.dtype = checkpoint, jnp.dtype(dtype)
        self._decoder: Decoder | None = None
        self._stores: dict[tuple[str, ...], ExpertStore] = {}

    @property
    def decoder(self) -> Decoder:
        """All of the model but its experts."""
        if self._decoder is None:
            self._decoder = self.checkpoint.decoder(self.dtype)
        return self._decoder

    def store(self, precisions: tuple[str, ...]) -> ExpertStore:
        """Returns the experts in some precisions."""
        if precisions not in self._stores:
            self._stores[precisions] = store_checkpoint(self.checkpoint, self.dtype, precisions)
        return self._stores[precisions]

    def model(self, setup: Setup, **options: Any) -> OffloadedModel:
        """Returns the model under a strategy.

        Args:
          setup: strategy and capacity.
          **options: see `OffloadedModel`.

        Raises:
          InputError: the strategy cannot be run, or a tensor is missing.
        """
        check_runnable(setup, self.checkpoint.config)
        setup = replace(setup, with_scales=True)
        return OffloadedModel(self.decoder, self.store(setup.precisions), setup, **options)
