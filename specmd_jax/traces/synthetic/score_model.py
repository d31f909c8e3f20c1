"""The score model of `synthetic`, inverted: from measured popularity and overlap to its knobs.

Two tokens' top-k sets overlap the more, the more their scores correlate; for a given popularity
that is one rising curve, tabulated here. Over n tokens the correlation decays as
c(n) = s (1 - rate)^n + (1 - s) rho^n, whose three constants are found by least squares.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float

from specmd_jax.core.types import ModelShape
from specmd_jax.traces import analysis
from specmd_jax.traces.synthetic.generator import NOISE

SKEWS = np.linspace(0, 3, 13)
CORRELATIONS = np.linspace(0, 1, 15)
RHOS = np.linspace(0, 0.98, 50)
RATES = np.concatenate([[0], np.geomspace(1e-4, 0.05, 25)])
FRACTIONS = (0.1, 0.2, 0.4)  # of the experts, the most popular ones
DRAWS = 1 << 16  # scores drawn for each cell of a table


class ScoreTable(NamedTuple):
    """What one layer measures, by skew (S values), whatever its topics and memory are."""

    flat: float
    skews: Float[np.ndarray, " S"]
    entropy: Float[np.ndarray, " S"]  # bits, falling
    shares: Float[np.ndarray, "S fractions"]
    overlap: Float[np.ndarray, "S correlations"]  # rising

    def skew(self, entropy: Float[np.ndarray, " L"]) -> Float[np.ndarray, " L"]:
        """Find the skew that gives a popularity entropy, in bits."""
        return np.interp(entropy, self.entropy[::-1], self.skews[::-1])

    def shares_at(self, skew: Float[np.ndarray, " L"]) -> Float[np.ndarray, "fractions L"]:
        """Give the shares of the choices on the most popular experts."""
        return np.stack([np.interp(skew, self.skews, column) for column in self.shares.T])

    def correlation(self, overlap: Float[np.ndarray, " R"], skew: float) -> Float[np.ndarray, " R"]:
        """Find the correlation that gives an overlap; 0 where the overlap is below chance."""
        row = [np.interp(skew, self.skews, column) for column in self.overlap.T]
        return np.interp(overlap, row, CORRELATIONS)


def draw_table(shape: ModelShape, flat: float) -> ScoreTable:
    """Estimate a table by Monte Carlo, with the same draws in every cell, so that it is smooth."""
    _, experts, top_k = shape
    rng = np.random.Generator(np.random.PCG64(0))
    first, second = rng.standard_normal((2, max(DRAWS // experts, 256), experts), np.float32)
    fall = -np.log(flat + np.arange(1, experts + 1))
    # A law without its head spans fewer decades: a higher exponent gives it the same contrast.
    skews = SKEWS * np.log(experts) / (fall[0] - fall[-1])
    counts, overlap = [], []
    for skew in skews:
        bias = skew / NOISE * fall
        chosen = _chosen(bias + first, top_k)
        counts.append(chosen.sum(0))
        mixed = (c * first + np.sqrt(1 - c**2) * second for c in CORRELATIONS)
        overlap.append([(chosen & _chosen(bias + z, top_k)).mean() for z in mixed])
    counts, overlap = np.array(counts), np.array(overlap) * experts / top_k
    return ScoreTable(flat, skews, analysis.popularity_entropy(counts), shares(counts).T, overlap)


def shares(counts: np.ndarray) -> Float[np.ndarray, "fractions rows"]:
    """Give, for each row of counts, the shares of its most popular experts."""
    return np.stack([analysis.top_share(counts, fraction) for fraction in FRACTIONS])


class Powers(NamedTuple):
    """The distances at which correlation is known: R rows, a lag each, and one for them all."""

    lags: tuple[int, ...]
    length: int  # tokens of a request

    def of(self, base: Float[np.ndarray, " B"]) -> Float[np.ndarray, "B R"]:
        """Give base^lag, and last its mean over all pairs of tokens of a request."""
        gap = np.arange(1, max(self.length, 2))
        pairs = gap[::-1] / gap.sum()  # share of the pairs that are so far apart
        far = (base[:, None] ** gap) @ pairs
        return np.concatenate([base[:, None] ** np.array(self.lags), far[:, None]], axis=1)


def fit_decay(
    correlation: Float[np.ndarray, "R L"], powers: Powers, rates: Float[np.ndarray, " B"]
) -> tuple[float, Float[np.ndarray, " L"], Float[np.ndarray, " L"]]:
    """Fit one topic rate for all layers, and a topic share and a rho for each.

    Least squares over a grid of rate and rho, in which the share has a closed form; then rho is
    set so that lag 1, which decides what a small cache hits, is met exactly where it can be.
    """
    fast = powers.of(RHOS)[:, :, None]
    fits = [_best_share(correlation, slow[:, None], fast) for slow in powers.of(1 - rates)]
    best = int(np.argmin([loss for loss, _ in fits]))
    rate, (_, share) = float(rates[best]), fits[best]
    share = np.minimum(share, correlation[0] / (1 - rate))
    rest = correlation[0] - share * (1 - rate)
    rho = np.divide(rest, 1 - share, out=np.zeros_like(rest), where=share < 1)
    return rate, share, np.clip(rho, 0, RHOS[-1])


def _best_share(
    correlation: Float[np.ndarray, "R L"],
    slow: Float[np.ndarray, "R 1"],
    fast: Float[np.ndarray, "B R 1"],
) -> tuple[float, np.ndarray]:
    """The squared error left at one rate, summed over the layers, and the shares that leave it."""
    gap, rise = slow - fast, correlation - fast
    share = np.clip((gap * rise).sum(1) / np.maximum((gap**2).sum(1), 1e-12), 0, 1)
    loss = ((rise - share[:, None] * gap) ** 2).sum(1)
    best = loss.argmin(0)
    layer = np.arange(len(best))
    return float(loss[best, layer].sum()), share[best, layer]


def _chosen(scores: Float[np.ndarray, "S N"], top_k: int) -> Bool[np.ndarray, "S N"]:
    return scores >= -np.partition(-scores, top_k - 1, axis=-1)[:, top_k - 1, None]
