"""Tuning: the continuous parameters of a strategy against its simulated time.

`knobs` says what can be turned and how far, `objective` what is gained, `surrogate` where a
gradient comes from, `search` how they are turned, `check` whether that was any good.
"""

from specmd_jax.study.tune.grid_check import GridBest, check_grid
from specmd_jax.study.tune.knobs import Knob, knobs_of
from specmd_jax.study.tune.objective import Goal, Objective, split_requests
from specmd_jax.study.tune.search import Effort, Found, search
from specmd_jax.study.tune.tuning import anchors_of, tune

__all__ = [
    "Effort",
    "Found",
    "Goal",
    "GridBest",
    "Knob",
    "Objective",
    "anchors_of",
    "check_grid",
    "knobs_of",
    "search",
    "split_requests",
    "tune",
]
