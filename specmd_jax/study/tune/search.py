"""Turning the knobs: scatter, then Adam from the best starts, on a gradient that has been tried.

The gradient is that of the objective smoothed by a Gaussian, estimated from antithetic pairs
(evolution strategies; Salimans et al. 2017, arXiv 1703.03864): exact hard simulations, no
relaxation. A surrogate that tells which of the scattered places are better than those beside them
leads the way there first. Every simulation is a candidate, so the result is never worse than the
defaults on the requests tuned on; and where it is hardly better, the defaults stay.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import optax
from jaxtyping import Bool, Float

from specmd_jax.study.tune.objective import BATCH

Places = Float[np.ndarray, "B D"]
GradientFn = Callable[[Places], Places]
ValueFn = Callable[[Places], Float[np.ndarray, " B"]]
SURE = 0.82  # share of neighbours that a surrogate must put on the right side to be followed
TRIED = 12  # places at which a surrogate is tried, at most
NEIGHBOURS = 6  # of each
LED = 60  # percent of what is left after that, which a trusted surrogate may spend
NEAR = 0.06  # shares of a knob's range within which simulations speak for each other
WORTH = 0.005  # share of the objective below which a gain may be the dice's
FLAT = 1e-3  # differences below this share of the objective have no sign
CLEAR = 0.01  # and those above this one are no noise


class Effort(NamedTuple):
    """How much is tried."""

    evaluations: int = 128  # simulations, all told
    starts: int = 4  # that go on from the scatter
    pairs: int = 4  # antithetic, for a gradient
    sigma: float = 0.12  # of the smoothing, in shares of a knob's range
    rate: float = 0.12  # of Adam
    seed: int = 0


class Step(NamedTuple):
    """One round, for plots: where the starts stood and the best that was known."""

    centres: Places
    best: float


class Found(NamedTuple):
    """What the search came to."""

    place: Float[np.ndarray, " D"]
    value: float
    default: float  # the objective at the parameters that were given
    evaluations: int
    gradient: str  # "surrogate" or "evolution strategies"
    agreement: float | None  # of the surrogate with neighbours; None: there is no surrogate
    path: tuple[Step, ...]


class _Pool:
    """All that was simulated."""

    def __init__(self, objective: ValueFn):
        self._objective = objective
        self.places: list[np.ndarray] = []
        self.values: list[float] = []

    def __call__(self, places: Places) -> Float[np.ndarray, " B"]:
        values = self._objective(places)
        self.places += list(places)
        self.values += values.tolist()
        return values

    def choice(self) -> tuple[Float[np.ndarray, " D"], float]:
        """Returns, of the places that are as good as the best, the one its neighbours bear out.

        The lowest of many noisy values is a lucky one. Neighbours vote by a Gaussian of `NEAR`, and
        a place without any is taken for one at the edge of those as good.
        """
        places, values = np.stack(self.places), np.asarray(self.values)
        edge = (1 + WORTH) * values.min()
        good = np.flatnonzero(values <= edge)
        apart = ((places[good, None] - places[None]) ** 2).sum(axis=-1)
        weight = np.exp(-apart / (2 * NEAR**2))
        borne_out = (weight @ values + edge) / (weight.sum(axis=1) + 1)
        chosen = good[int(np.argmin(borne_out))]
        return places[chosen], float(values[chosen])

    def best(self, count: int) -> Places:
        order = np.argsort(self.values, kind="stable")[:count]
        return np.stack([self.places[i] for i in order])


def search(
    objective: ValueFn,
    anchors: Places,
    effort: Effort | None = None,
    surrogate: GradientFn | None = None,
    on_progress: Callable[[float], None] = lambda share: None,
) -> Found:
    """Returns the best setting found within `effort.evaluations` simulations.

    Args:
      anchors: places that must be beaten by `WORTH`, the first being the defaults; of those that
        are not, the last is taken.
      surrogate: another gradient; it is followed only if its signs can be trusted. Its replays
        count as simulations.
    """
    effort = Effort() if effort is None else effort
    pool, rng = _Pool(objective), np.random.default_rng(effort.seed)
    known, size = anchors.shape
    most = max(BATCH, effort.starts + known)
    count = min(most, max(effort.evaluations // 2, known + 1))
    scattered = np.concatenate([anchors, _scatter(size, count - known, effort.seed)])
    first = pool(scattered)[:known]
    spent = len(scattered)
    agreement = None
    tries = min(TRIED, effort.evaluations // 6, count - known)
    if surrogate is not None and tries > 0:
        agreement = _try(surrogate, pool, scattered[known : known + tries])
        spent += tries
    trusted = surrogate is not None and agreement is not None and agreement >= SURE
    path = [Step(pool.best(effort.starts), min(pool.values))]
    left = effort.evaluations - spent
    if trusted and surrogate is not None:
        rounds = (left * LED // 100) // (2 * effort.starts)
        path += _follow(surrogate, pool, rounds, effort, on_progress)
        left -= rounds * 2 * effort.starts
        # What it found is near: one start and a narrower look are enough from there.
        effort = effort._replace(starts=1, sigma=effort.sigma / 2)
    path += _explore(pool, left, effort, rng, on_progress)
    place, value = pool.choice()
    for anchor, worth in zip(anchors, first, strict=True):
        if value > (1 - WORTH) * worth:
            place, value = anchor, float(worth)
    path.append(Step(place[None], value))
    kind = "surrogate" if trusted else "evolution strategies"
    evaluations = max(spent, effort.evaluations)
    return Found(place, value, float(first[0]), evaluations, kind, agreement, tuple(path))


def _follow(
    surrogate: GradientFn,
    pool: _Pool,
    rounds: int,
    effort: Effort,
    on_progress: Callable[[float], None],
) -> list[Step]:
    """Goes where the surrogate points, simulating every place it comes by."""

    def slope(centres: Places, sigma: float) -> Places:
        del sigma
        pool(centres)
        return surrogate(centres)

    return _descend(pool, slope, rounds, effort, on_progress)


def _explore(
    pool: _Pool,
    left: int,
    effort: Effort,
    rng: np.random.Generator,
    on_progress: Callable[[float], None],
) -> list[Step]:
    """Goes by evolution strategies, and spends what is left over where the best is."""

    def slope(centres: Places, sigma: float) -> Places:
        return smoothed_gradient(pool, centres, effort.pairs, sigma, rng)

    a_round = 2 * effort.pairs * effort.starts
    rounds = max(left // a_round, 0)
    path = _descend(pool, slope, rounds, effort, on_progress)
    left -= rounds * a_round
    if left > 0:
        best = pool.best(1)
        pool(np.clip(best + rng.normal(0, effort.sigma / 4, (left, best.shape[1])), 0, 1))
    return path


def _descend(
    pool: _Pool,
    slope: Callable[[Places, float], Places],
    rounds: int,
    effort: Effort,
    on_progress: Callable[[float], None],
) -> list[Step]:
    """Follows a gradient with Adam from the best places so far, in smaller and smaller steps."""
    centres, path = pool.best(effort.starts), []
    adam = optax.adam(effort.rate, b1=0.5, b2=0.9)
    state = adam.init(centres)
    for number in range(rounds):
        share = number / rounds
        found = slope(centres, effort.sigma * (1 - 0.7 * share))
        found = found / np.maximum(np.abs(found).max(axis=1, keepdims=True), 1e-30)
        update, state = adam.update(found, state, centres)
        centres = np.clip(centres + (1 - 0.8 * share) * np.asarray(update), 0, 1)
        path.append(Step(centres.copy(), min(pool.values)))
        on_progress((number + 1) / rounds)
    return path


def _scatter(size: int, count: int, seed: int) -> Places:
    """Places that fill the cube evenly: Roberts' R sequence, multiples of a golden vector."""
    golden = 2.0
    for _ in range(32):  # the root of x^(size + 1) = x + 1
        golden = (1 + golden) ** (1 / (size + 1))
    steps = golden ** -np.arange(1.0, size + 1)
    return (0.5 + seed * 0.618 + np.arange(1, count + 1)[:, None] * steps) % 1


def smoothed_gradient(
    value: ValueFn,
    centres: Places,
    pairs: int,
    sigma: float,
    rng: np.random.Generator,
) -> Places:
    """Returns the gradient of the smoothed objective at each centre, from antithetic pairs.

    Args:
      value: the objective, of many places at once.
      centres: places in the unit cube.
      pairs: directions that are tried at each centre, to both sides.
      sigma: how far, in shares of a knob's range.
      rng: draws the directions.
    """
    starts, size = centres.shape
    noise = rng.normal(size=(starts, pairs, size))
    ahead = np.clip(centres[:, None] + sigma * noise, 0, 1)
    behind = np.clip(centres[:, None] - sigma * noise, 0, 1)
    both = np.concatenate([ahead, behind]).reshape(-1, size)
    up, down = value(both).reshape(2, starts, pairs)
    step = ahead - behind
    # Least squares over the steps really taken: at a bound they are shorter.
    gram = np.einsum("spi,spj->sij", step, step) + 1e-6 * np.eye(size)
    right = np.einsum("spi,sp->si", step, up - down)
    return np.linalg.solve(gram, right[..., None])[..., 0]


def _try(surrogate: GradientFn, pool: _Pool, centres: Places) -> float:
    """Returns how often the surrogate says which of two neighbours is better, where that is clear.

    The neighbours are simulated already, so this costs the surrogate's own replays alone.
    """
    places, values = np.stack(pool.places), np.asarray(pool.values)
    ways = places[None] - centres[:, None]
    far = np.einsum("spi,spi->sp", ways, ways)
    nearest = np.argsort(far, axis=1, kind="stable")[:, : NEIGHBOURS + 1]  # the first is itself
    told = np.einsum("spi,si->sp", ways, surrogate(centres))
    own = np.take_along_axis(values[None], nearest[:, :1], axis=1)
    risen = np.take_along_axis(values[None], nearest[:, 1:], axis=1) - own
    clear = np.abs(risen) > CLEAR * values.min()
    return agreement_of(np.take_along_axis(told, nearest[:, 1:], axis=1), risen, clear)


def agreement_of(
    told: Float[np.ndarray, "B M"],
    slope: Float[np.ndarray, "B M"],
    counted: Bool[np.ndarray, "B M"],
) -> float:
    """Returns the share of signs that agree, where there is one to agree with; 0 if nowhere."""
    if not counted.any():
        return 0.0
    return float((np.sign(told) == np.sign(slope))[counted].mean())
