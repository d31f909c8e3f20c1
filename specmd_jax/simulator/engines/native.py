"""Loops that neither numpy nor XLA runs well, compiled by numba and kept on disk between runs."""

import inspect
from collections.abc import Callable
from typing import Any

from numba import njit


def native(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compiles a function of arrays and numbers; what checks its types at run time is taken off."""
    return njit(inspect.unwrap(function), cache=True, nogil=True)
