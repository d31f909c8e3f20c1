"""Whether tuning was any good: a dense grid over the same knobs, on the same requests."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from specmd_jax.study.tune.objective import Objective

POINTS = {1: 401, 2: 51, 3: 15, 4: 9, 5: 6}  # along each knob, by their number; then 4


class GridBest(NamedTuple):
    """The best of a dense grid."""

    place: Float[np.ndarray, " D"]
    value: float
    evaluations: int
    places: Float[np.ndarray, "G D"]
    values: Float[np.ndarray, " G"]


def grid_places(size: int, points: int | None = None) -> Float[np.ndarray, "G D"]:
    """Returns the places of a grid over the unit cube, ends included."""
    along = np.linspace(0, 1, points or POINTS.get(size, 4))
    return np.stack(np.meshgrid(*[along] * size, indexing="ij"), axis=-1).reshape(-1, size)


def check_grid(
    objective: Objective,
    points: int | None = None,
    on_progress: Callable[[float], None] = lambda share: None,
) -> GridBest:
    """Returns the best place of a dense grid; these simulations are counted apart."""
    places = grid_places(len(objective.knobs), points)
    before = objective.evaluations
    values = objective(places, on_progress)
    objective.evaluations = before
    best = int(np.argmin(values))
    return GridBest(places[best], float(values[best]), len(places), places, values)
