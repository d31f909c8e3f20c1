"""All eviction policies of a table as one: a single compile, and a number says which decides."""

from functools import lru_cache
from typing import Any

import numpy as np

from specmd_jax.policies.base import Eviction
from specmd_jax.policies.eviction import EVICTIONS
from tests.helpers.parity import any_eviction


def evictions(admission: str) -> tuple[str, ...]:
    """Returns the policies that work under an admission: a new one is among them by itself."""
    return tuple(
        name for name, policy in EVICTIONS.items() if policy.admission in (None, admission)
    )


@lru_cache
def together(names: tuple[str, ...]) -> Eviction:
    """Returns the named policies as one that reads no more than they do."""
    needs = sorted({need for name in names for need in EVICTIONS[name].reads})
    return any_eviction(list(names))._replace(reads=tuple(needs))


def choose(names: tuple[str, ...], name: str, **changes: Any) -> tuple[np.int32, tuple]:
    """Returns the params with which `together(names)` is the policy `name`.

    Args:
      changes: parameters of that policy, by field; the rest are its defaults.
    """
    params = [EVICTIONS[one].params for one in names]
    which = names.index(name)
    if changes:
        params[which] = params[which]._replace(**changes)
    return np.int32(which), tuple(params)
