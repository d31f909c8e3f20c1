"""Synthetic routing with the locality of real traces: skew, topic and memory, each with a knob.

The router score of expert e in layer l at token t is

  score = -skew_l log(flat + rank of e in l) + NOISE (sqrt(s) topic + sqrt(1 - s) memory)

with s the topic_share, and the top k are chosen. Ranks are a random permutation per layer. `topic`
is drawn anew with each request, and within it at every change of topic; `memory` is an AR(1)
process over the tokens with coefficient rho. Both have unit variance, so popularity depends on
the skew alone, and scores n tokens apart correlate as

  c(n) = s (1 - topic_rate)^n + (1 - s) rho^n

which is what `calibration` inverts. Uniform i.i.d. routing would not do: on it every policy hits
the same.
"""

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from jaxtyping import Float, Int

from specmd_jax.core.errors import InputError
from specmd_jax.core.types import ModelShape
from specmd_jax.traces.trace import DECODE, MAX_EXPERTS, PREFILL, Provenance, Trace

NOISE = np.pi / np.sqrt(6)  # spread of Gumbel noise, with which top-1 popularity is rank^-skew

PerLayer = float | tuple[float, ...]  # one value for all layers, or one each


@dataclass(frozen=True)
class SyntheticSpec:
    """What a synthetic trace is drawn from.

    Raises:
      InputError: a field is out of its range (the message names it).
    """

    shape: ModelShape
    requests: int = 1
    tokens: int = 1024  # of each request, one decode pass each
    prompt_tokens: int = 0  # before them, all in one prefill pass
    skew: PerLayer = 0.6  # Zipf exponent of popularity; 0: all experts alike
    flat: float = 0.0  # ranks that are cut off the head of the law (Zipf-Mandelbrot), so no star
    rho: PerLayer = 0.4  # memory of the router from token to token, in [0, 1)
    topic_share: PerLayer = 0.2  # of the variance of scores that a topic holds fixed, in [0, 1]
    topic_rate: float = 0.0  # chance per token of a change of topic within a request
    coupling: float = 0.0  # correlation of scores with those of the layer before, in [0, 1)
    lookahead: int = 0  # layers ahead for which predictions are recorded
    predictor_noise: float = 1.0  # of a score foreseen one layer ahead; grows as sqrt(distance)
    record_weights: bool = True
    record_logits: bool = False

    def __post_init__(self) -> None:
        _check(self)


def generate(spec: SyntheticSpec, seed: int = 0) -> Trace:
    """Draw a trace; the same spec and seed give the same trace.

    What is recorded beside the experts (weights, logits, predictions) does not change the routing.
    """
    stream = np.random.PCG64(seed)
    rng, foresight = np.random.Generator(stream), np.random.Generator(stream.jumped())
    bias = _popularity(spec, rng)
    parts = [_request(spec, bias, rng, foresight) for _ in range(spec.requests)]
    length = spec.prompt_tokens + spec.tokens
    prompt = np.arange(length) < spec.prompt_tokens
    first = ~prompt  # of its pass
    first[0] = True
    scores = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    return Trace(
        num_experts=spec.shape.num_experts,
        step=np.cumsum(np.tile(first, spec.requests), dtype=np.int32) - 1,
        request=np.repeat(np.arange(spec.requests, dtype=np.int32), length),
        phase=np.tile(np.where(prompt, PREFILL, DECODE), spec.requests).astype(np.uint8),
        provenance=Provenance(producer="specmd-jax synthetic", recorded=f"seed {seed}, {spec}"),
        **scores,
    )


def _request(
    spec: SyntheticSpec,
    bias: Float[np.ndarray, "L N"],
    rng: np.random.Generator,
    foresight: np.random.Generator,
) -> dict[str, np.ndarray]:
    """Draw one request: the array fields of its part of the trace."""
    logits = bias + np.float32(NOISE) * _scores(spec, rng)
    experts = _top(logits, spec.shape.top_k)
    drawn: dict[str, np.ndarray] = {"experts": experts.astype(np.int16)}
    if spec.record_weights:
        drawn["weights"] = np.take_along_axis(_softmax(logits), experts, axis=-1)
    if spec.record_logits:
        drawn["logits"] = logits
    if spec.lookahead:
        drawn["predicted"] = _foresee(spec, logits, foresight)
    return drawn


def _popularity(spec: SyntheticSpec, rng: np.random.Generator) -> Float[np.ndarray, "L N"]:
    """Bias of each expert: a Zipf law whose ranks are shuffled in each layer."""
    layers, experts, _ = spec.shape
    rank = rng.permuted(np.tile(np.arange(1, experts + 1), (layers, 1)), axis=1)
    return (-_by_layer(spec.skew, layers) * np.log(spec.flat + rank)).astype(np.float32)


def _scores(spec: SyntheticSpec, rng: np.random.Generator) -> Float[np.ndarray, "T L N"]:
    """Scores of unit variance for the tokens of one request, without popularity."""
    layers, experts, _ = spec.shape
    tokens = spec.prompt_tokens + spec.tokens
    changes = rng.random(tokens) < spec.topic_rate
    changes[0] = False
    topic = changes.cumsum()
    share = _by_layer(spec.topic_share, layers)
    topics = rng.standard_normal((topic[-1] + 1, layers, experts), np.float32)
    memory = _remember(rng.standard_normal((tokens, layers, experts), np.float32), spec.rho)
    scores = np.sqrt(share) * topics[topic] + np.sqrt(1 - share) * memory
    return _couple(scores, spec.coupling, rng)


def _remember(noise: Float[np.ndarray, "T L N"], rho: PerLayer) -> Float[np.ndarray, "T L N"]:
    """Turn white noise into an AR(1) process over the tokens, in place, stationary from token 0."""
    kept = _by_layer(rho, noise.shape[1])
    noise[1:] *= np.sqrt(1 - kept**2)
    for before, now in pairwise(noise):
        now += kept * before
    return noise


def _couple(
    scores: Float[np.ndarray, "T L N"], coupling: float, rng: np.random.Generator
) -> Float[np.ndarray, "T L N"]:
    """Let each layer echo the one before: expert i favours a random but fixed partner."""
    if coupling:
        fresh = np.float32(np.sqrt(1 - coupling**2))
        for layer in range(1, scores.shape[1]):
            partner = rng.permutation(scores.shape[2])
            echo = np.float32(coupling) * scores[:, layer - 1, partner]
            scores[:, layer] = echo + fresh * scores[:, layer]
    return scores


def _foresee(
    spec: SyntheticSpec, logits: Float[np.ndarray, "T L N"], rng: np.random.Generator
) -> Float[np.ndarray, "T L D N"]:
    """Router probabilities of the layers ahead, seen through noise; zeros past the last layer."""
    tokens, layers, experts = logits.shape
    predicted = np.zeros((tokens, layers, spec.lookahead, experts), np.float32)
    for ahead in range(min(spec.lookahead, layers - 1)):
        target = logits[:, ahead + 1 :]
        spread = np.float32(spec.predictor_noise * np.sqrt(ahead + 1))
        blurred = target + spread * rng.standard_normal(target.shape, np.float32)
        predicted[:, : layers - ahead - 1, ahead] = _softmax(blurred)
    return predicted


def _top(logits: Float[np.ndarray, "T L N"], top_k: int) -> Int[np.ndarray, "T L K"]:
    """The k highest, best first."""
    chosen = np.argpartition(-logits, top_k - 1, axis=-1)[..., :top_k]
    order = np.argsort(-np.take_along_axis(logits, chosen, axis=-1), axis=-1)
    return np.take_along_axis(chosen, order, axis=-1)


def _softmax(logits: Float[np.ndarray, "*rows N"]) -> Float[np.ndarray, "*rows N"]:
    weight = np.exp(logits - logits.max(-1, keepdims=True))
    return weight / weight.sum(-1, keepdims=True)


def _by_layer(value: PerLayer, layers: int) -> Float[np.ndarray, "L 1"]:
    return np.broadcast_to(np.asarray(value, np.float32), (layers,))[:, None]


def _check(spec: SyntheticSpec) -> None:
    layers, experts, top_k = spec.shape
    if layers < 1 or not 1 <= top_k <= experts <= MAX_EXPERTS:
        raise InputError(f"no router has the shape {tuple(spec.shape)}: give layers >= 1 and "
                         f"1 <= top-k <= experts <= {MAX_EXPERTS}")  # fmt: skip
    for name, least in (("requests", 1), ("tokens", 1), ("prompt_tokens", 0), ("lookahead", 0)):
        if getattr(spec, name) < least:
            raise InputError(f"{name} is {getattr(spec, name)}: give {least} or more")
    below_one = float(np.nextafter(np.float32(1), 0))
    for name, most in (
        ("skew", 1000.0),
        ("flat", 1e6),
        ("rho", below_one),
        ("topic_share", 1.0),
        ("topic_rate", 1.0),
        ("coupling", below_one),
        ("predictor_noise", 100.0),
    ):
        _check_range(name, getattr(spec, name), most, layers)


def _check_range(name: str, value: PerLayer, most: float, layers: int) -> None:
    values = np.asarray(value, float)
    if values.shape not in ((), (layers,)):
        raise InputError(f"{name} has {values.size} values for {layers} layers: give one, or one "
                         "a layer")  # fmt: skip
    if not ((values >= 0) & (values <= most)).all():
        raise InputError(f"{name} must lie in 0..{most:.6g}, got {value}")
