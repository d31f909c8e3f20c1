"""Fits a synthetic trace to a real one, and says how well it fits."""

from dataclasses import replace
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from specmd_jax.core.errors import InputError
from specmd_jax.traces import analysis
from specmd_jax.traces.synthetic.generator import SyntheticSpec, generate
from specmd_jax.traces.synthetic.score_model import (
    FRACTIONS,
    RATES,
    Powers,
    ScoreTable,
    draw_table,
    fit_decay,
    shares,
)
from specmd_jax.traces.trace import PREFILL, Trace

LAGS = (1, 2, 4, 8, 16, 32, 64, 128)  # tokens
FLATS = (0.0, 0.03, 0.1, 0.3, 1.0)  # of the number of experts
ROUNDS = 4  # of generating and correcting
PAIRS = 64  # token pairs that a lag needs to count
TOPICS = 12  # in a trace, at least: with fewer, popularity is left to the dice
ENOUGH = 8192  # tokens of a trace that need no second draw to be measured well
SAMPLE = 256  # tokens on which the recall of a predictor is tried


class Locality(NamedTuple):
    """What is fitted and compared, layer by layer; R lags, 1 being the first."""

    entropy: Float[np.ndarray, " L"]  # bits
    overlap: Float[np.ndarray, "R L"]
    shuffled: Float[np.ndarray, " L"]  # overlap of any two tokens of a request
    shares: Float[np.ndarray, "fractions L"]  # of the 10, 20 and 40 % most popular experts


class Calibration(NamedTuple):
    """A fitted spec, what it was fitted to, and what traces drawn from it with new dice measure.

    Entropy and the overlap at lag 1 are matched in every layer as far as the model can; at the
    other lags, and in the shares, only what its few constants allow.
    """

    spec: SyntheticSpec
    lags: tuple[int, ...]
    wanted: Locality
    got: Locality

    @property
    def errors(self) -> dict[str, float]:
        """Means over layers, generated less real; `entropy` is relative, the rest are shares."""
        off = Locality(*(g - w for g, w in zip(self.got, self.wanted, strict=True)))
        by_lag = zip(self.lags, off.overlap.mean(1), strict=True)
        by_fraction = zip(FRACTIONS, off.shares.mean(1), strict=True)
        return {
            "entropy": float(off.entropy.mean() / self.wanted.entropy.mean()),
            **{f"overlap_lag_{lag}": float(error) for lag, error in by_lag},
            "overlap_shuffled": float(off.shuffled.mean()),
            **{f"top_{fraction:.0%}": float(error) for fraction, error in by_fraction},
        }


def calibrate(trace: Trace, seed: int = 0) -> Calibration:
    """Fit skew, topics and memory so that generated traces have the locality of a real one.

    Entropy gives the skew and the decay of overlap over the tokens the rest; a few rounds of
    generating and correcting remove the bias of finite traces. Coupling between layers, padding
    and predictions are not fitted.

    Raises:
      InputError: no request is long enough to measure the overlap of successive tokens.
    """
    if trace.num_experts < 2:
        raise InputError("a layer of one expert has no routing to fit: use a trace of a router")
    spec, lags = _blank(trace), _usable_lags(trace)
    target = wanted = _measure(trace, lags)
    table = _closest_table(trace, wanted)
    tried = []
    for _ in range(ROUNDS):
        spec = _fit(spec, target, table, lags)
        tried.append(Calibration(spec, lags, wanted, _drawn(spec, lags, seed)))
        # Aim as far beyond the goal as this round fell short of it.
        moved = zip(target, wanted, tried[-1].got, strict=True)
        target = Locality(*(aim + goal - hit for aim, goal, hit in moved))
    best = min(tried, key=_miss)
    return best._replace(got=_drawn(best.spec, lags, seed + 1))


def noise_for_recall(spec: SyntheticSpec, recall: float, seed: int = 0) -> float:
    """Find the predictor noise at which the layer ahead is foreseen with a given recall.

    Raises:
      InputError: the recall is not above that of a blind guess.
    """
    trial = replace(spec, requests=1, prompt_tokens=0, tokens=SAMPLE, lookahead=1)
    low, high = 0.0, 100.0
    worst = _recall(trial, high, seed)
    if not worst < recall <= 1:
        raise InputError(f"recall {recall} cannot be had: pure noise gives {worst:.3f} here, and "
                         "1 is perfect")  # fmt: skip
    for _ in range(20):
        middle = (low + high) / 2
        low, high = (middle, high) if _recall(trial, middle, seed) > recall else (low, middle)
    return low


def _recall(trial: SyntheticSpec, noise: float, seed: int) -> float:
    trace = generate(replace(trial, predictor_noise=noise), seed)
    return float(analysis.foreseen_recall(trace)[0])


def _miss(tried: Calibration) -> float:
    return abs(tried.errors["entropy"]) + abs(tried.errors["overlap_lag_1"])


def _usable_lags(trace: Trace) -> tuple[int, ...]:
    """The lags at which the trace has enough pairs, and requests of mean length have them too."""
    length = trace.num_tokens / len(np.unique(trace.request))
    lags = tuple(
        lag
        for lag in LAGS
        if 2 * lag <= length and analysis.successive(trace.request, lag).shape[1] >= PAIRS
    )
    if not lags:
        raise InputError(f"calibration needs {PAIRS} pairs of successive tokens, this trace of "
                         f"{trace.num_tokens} has fewer: record longer requests")  # fmt: skip
    return lags


def _blank(trace: Trace) -> SyntheticSpec:
    """A spec of the trace's extent: as many requests, all of the mean length."""
    requests = len(np.unique(trace.request))
    prompt = round(int((trace.phase == PREFILL).sum()) / requests)
    return SyntheticSpec(
        trace.shape,
        requests=requests,
        tokens=max(1, round(trace.num_tokens / requests) - prompt),
        prompt_tokens=prompt,
        record_weights=trace.weights is not None,
    )


def _measure(trace: Trace, lags: tuple[int, ...]) -> Locality:
    counts = analysis.expert_counts(trace)
    return Locality(
        analysis.popularity_entropy(counts),
        np.stack([analysis.overlap(trace, lag) for lag in lags]),
        analysis.topic_chance_overlap(trace),
        shares(counts),
    )


def _drawn(spec: SyntheticSpec, lags: tuple[int, ...], seed: int) -> Locality:
    """What traces drawn from a spec measure, in the mean over as many as make up a long one."""
    length = spec.requests * (spec.prompt_tokens + spec.tokens)
    seeds = np.random.SeedSequence(seed).generate_state(min(max(1, ENOUGH // length), 8))
    drawn = [_measure(generate(spec, int(one)), lags) for one in seeds]
    return Locality(*(np.mean(values, axis=0) for values in zip(*drawn, strict=True)))


def _closest_table(trace: Trace, wanted: Locality) -> ScoreTable:
    """Of the popularity laws that meet the entropy, the one that comes closest in the shares."""

    def misfit(table: ScoreTable) -> float:
        off = table.shares_at(table.skew(wanted.entropy)) - wanted.shares
        return float((off**2).sum())

    return min((draw_table(trace.shape, flat * trace.num_experts) for flat in FLATS), key=misfit)


def _fit(
    spec: SyntheticSpec, target: Locality, table: ScoreTable, lags: tuple[int, ...]
) -> SyntheticSpec:
    skew = table.skew(target.entropy)
    overlaps = np.vstack([target.overlap, target.shuffled]).T
    by_layer = zip(overlaps, skew.tolist(), strict=True)
    correlation = np.stack([table.correlation(*layer) for layer in by_layer], axis=1)
    length = spec.prompt_tokens + spec.tokens
    many = spec.requests * (1 + RATES * length) >= TOPICS
    rates = RATES[many] if many.any() else RATES[-1:]
    rate, share, rho = fit_decay(correlation, Powers(lags, length), rates)
    return replace(
        spec,
        skew=tuple(skew.tolist()),
        flat=table.flat,
        topic_rate=rate,
        topic_share=tuple(share.tolist()),
        rho=tuple(rho.tolist()),
    )
