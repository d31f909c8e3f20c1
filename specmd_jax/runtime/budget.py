"""What a run of a model under a strategy needs and is given: slots, and what cannot be run live."""

from typing import NamedTuple

import numpy as np

from specmd_jax.core.errors import InputError
from specmd_jax.hardware.capacity import BASE_PRECISION, Capacity, Copies, copies_of, parse_capacity
from specmd_jax.model_zoo import ModelSpec
from specmd_jax.models import DecoderConfig
from specmd_jax.policies.base import NEXT_USE, UPCOMING
from specmd_jax.policies.strategy import check_strategy
from specmd_jax.runtime.decide.applied_choice import check_bendable
from specmd_jax.runtime.offload.store import AS_STORED, ExpertStore
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
    copies = _copies(store, config.spec)
    capacity = parse_capacity(setup.capacity, copies, config.spec.shape, setup.strategy.scope)
    if capacity.slots < 1:
        raise InputError(
            f"capacity {setup.capacity!r} holds no expert of {store.packings[0].nbytes} bytes: "
            "give room for at least one"
        )
    whole = config.spec.num_experts * int(copies.units[:, 0].sum())
    return Budget(copies, capacity, min(int(capacity.units.sum()), whole))


def check_runnable(setup: Setup, config: DecoderConfig) -> None:
    """Raises InputError if a run cannot do what `setup` asks for, whatever its capacity."""
    strategy = setup.strategy
    check_strategy(strategy, config.spec.shape)
    if strategy.reads & {NEXT_USE, UPCOMING}:
        raise InputError(
            "the strategy looks into the future, which a run does not know: replay a recorded "
            "trace with specmd simulate"
        )
    if strategy.routing.choose is not None:
        check_bendable(config)
    if setup.start != "cold":
        raise InputError(
            f"start {setup.start} places experts by a recorded trace: a run starts cold"
        )


def _copies(store: ExpertStore, spec: ModelSpec) -> Copies:
    """Returns the sizes as a replay has them, which the store's must be."""
    if store.precisions == AS_STORED:
        return copies_of(spec.shape, (BASE_PRECISION,), None, store.copy_bytes[:, 0])
    copies = copies_of(spec.shape, store.precisions, spec, with_scales=True)
    assert copies.nbytes is not None and np.array_equal(copies.nbytes, store.copy_bytes)
    return copies
