"""What a run of a model under a strategy needs and is given: slots, and what cannot be run live."""

from dataclasses import replace
from typing import NamedTuple

import numpy as np

from specmd_jax.core.errors import InputError
from specmd_jax.hardware.capacity import Capacity, Copies
from specmd_jax.models import DecoderConfig
from specmd_jax.runtime.decide.applied_choice import check_bendable
from specmd_jax.runtime.offload.store import AS_STORED, ExpertStore
from specmd_jax.study.resolve import check_live, resolve
from specmd_jax.study.setup import Setup


class Budget(NamedTuple):
    """The device memory that experts may take."""

    copies: Copies
    capacity: Capacity
    num_pages: int  # units of memory, each of which is one page


def make_budget(setup: Setup, store: ExpertStore, config: DecoderConfig) -> Budget:
    """Returns what `setup` gives the experts of a model.

    Args:
      setup: strategy and capacity.
      store: of the experts. A percentage is of its bytes; of those in bf16, if it quantises.
      config: of the decoder.

    Raises:
      InputError: the capacity is none, or the strategy cannot be run.
    """
    check_runnable(setup, config)
    if setup.precisions != store.precisions:
        raise InputError(
            f"the strategy keeps copies in {', '.join(setup.precisions)}, and the store has "
            f"{', '.join(store.precisions)}: store them in the strategy's precisions"
        )
    stored = store.copy_bytes[:, 0] if store.precisions == AS_STORED else None
    _, copies, capacity, _ = resolve(
        replace(setup, with_scales=True), config.spec, expert_bytes=stored
    )
    assert copies.nbytes is not None and np.array_equal(copies.nbytes, store.copy_bytes)
    whole = config.spec.num_experts * int(copies.units[:, 0].sum())
    return Budget(copies, capacity, min(int(capacity.units.sum()), whole))


def check_runnable(setup: Setup, config: DecoderConfig) -> None:
    """Raises InputError if a run cannot do what `setup` asks for, whatever its capacity."""
    check_live(setup, config.spec.shape)
    if setup.strategy.routing.choose is not None:
        check_bendable(config)
