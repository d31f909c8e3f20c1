"""What a routing trace is in memory: host arrays, one row a token, checked on construction."""

from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Float, Integer

from specmd_jax.core.errors import InputError
from specmd_jax.core.types import ModelShape

DECODE, PREFILL = 0, 1
MAX_EXPERTS = 4096  # of a layer; real models stop at 512
PAD = -1  # in `experts`: the token chose fewer than K experts there


@dataclass(frozen=True)
class Provenance:
    """Where a trace comes from. Empty strings say "not recorded"."""

    model: str = ""
    producer: str = ""  # the program that recorded it, e.g. "vllm"
    source: str = ""  # repository, paper or file
    licence: str = ""
    recorded: str = ""  # how: sampling, prompts, engine
    date: str = ""
    weights_hash: str = ""
    notes: tuple[str, ...] = ()  # what an importer assumed or repaired
    doubts: tuple[str, ...] = ()  # what may be misread, each with the flag that settles it
    layers: tuple[int, ...] = ()  # the model's own number of each MoE layer, where it is known


def assumed_experts(count: int) -> str:
    """The note of a trace whose number of experts nothing says."""
    return f"number of experts not recorded: taken as highest id + 1 = {count}"


@dataclass(frozen=True)
class Trace:
    """Which experts the router chose, token by token.

    A row is one token. Rows of one forward pass stand together and share their `step`; a decode
    pass of one request has one row, a prefill or a batch has many.

    Raises:
      InputError: a field breaks its contract (the message names it).
    """

    experts: Integer[np.ndarray, "T L K"]  # int16 ids, PAD where fewer than K were chosen
    num_experts: int
    step: Integer[np.ndarray, " T"]  # int32 forward pass, 0, 0, 1, ...: never falls, no gaps
    request: Integer[np.ndarray, " T"]  # int32 user sequence the token belongs to
    phase: Integer[np.ndarray, " T"]  # uint8 DECODE or PREFILL, the same within a pass
    weights: Float[np.ndarray, "T L K"] | None = None  # gate weight of each chosen expert
    logits: Float[np.ndarray, "T L N"] | None = None  # router logits of all experts
    predicted: Float[np.ndarray, "T L D N"] | None = None  # router probability foreseen at layer l
    # for layer l + 1 + d; zeros where nothing was foreseen
    expert_bytes: Integer[np.ndarray, " L"] | None = None  # int64, of one expert as recorded
    provenance: Provenance = field(default_factory=Provenance)

    def __post_init__(self) -> None:
        _check(self)

    @property
    def num_tokens(self) -> int:
        return self.experts.shape[0]

    @property
    def num_passes(self) -> int:
        return int(self.step[-1]) + 1

    @property
    def shape(self) -> ModelShape:
        _, layers, top_k = self.experts.shape
        return ModelShape(layers, self.num_experts, top_k)

    @property
    def experts_assumed(self) -> bool:
        """Whether the number of experts is only the highest id + 1, and may be greater."""
        return assumed_experts(self.num_experts) in self.provenance.notes

    @property
    def lookahead(self) -> int:
        """How many layers ahead predictions reach; 0 where none were recorded."""
        return 0 if self.predicted is None else self.predicted.shape[2]


def _check(trace: Trace) -> None:
    tokens, layers, top_k = trace.experts.shape
    if not (tokens and layers and top_k):
        raise InputError(
            f"a trace needs tokens, layers and experts; this has shape "
            f"{trace.experts.shape}: record at least one pass"
        )
    if not 1 <= trace.num_experts <= MAX_EXPERTS:
        raise InputError(
            f"number of experts {trace.num_experts} is outside 1..{MAX_EXPERTS}: "
            "give the routed experts of one layer"
        )
    _check_experts(trace)
    _check_rows(trace)
    _check_scores(trace)


def _check_experts(trace: Trace) -> None:
    ids = trace.experts
    low, high = int(ids.min()), int(ids.max())
    if low < PAD:
        raise InputError(f"expert id {low} is negative: ids run from 0, and {PAD} pads")
    if high >= trace.num_experts:
        raise InputError(
            f"expert id {high} in a model of {trace.num_experts} experts a layer: "
            "check the number of experts, or whether shared experts were counted"
        )
    ordered = np.sort(ids, axis=-1)
    twice = (ordered[..., 1:] == ordered[..., :-1]) & (ordered[..., 1:] != PAD)
    if twice.any():
        token, layer, _ = np.argwhere(twice)[0]
        raise InputError(
            f"token {token}, layer {layer} names an expert twice "
            f"({ids[token, layer].tolist()}): a router chooses each once"
        )


def _check_rows(trace: Trace) -> None:
    tokens = trace.num_tokens
    for name in ("step", "request", "phase"):
        rows = getattr(trace, name)
        if rows.shape != (tokens,):
            raise InputError(f"{name} has shape {rows.shape} for {tokens} tokens: give one a token")
    rise = np.diff(trace.step)
    if trace.step[0] != 0 or ((rise != 0) & (rise != 1)).any():
        raise InputError(
            "steps must start at 0 and rise by 0 or 1 from token to token: "
            "put the tokens of one forward pass next to each other"
        )
    if not np.isin(trace.phase, (DECODE, PREFILL)).all():
        raise InputError(
            f"phase must be {DECODE} (decode) or {PREFILL} (prefill), got {int(trace.phase.max())}"
        )
    if ((rise == 0) & (np.diff(trace.phase.astype(np.int8)) != 0)).any():
        raise InputError("a pass mixes prefill and decode tokens: split it into two passes")


def _check_scores(trace: Trace) -> None:
    tokens, layers, top_k = trace.experts.shape
    wanted = {
        "weights": (tokens, layers, top_k),
        "logits": (tokens, layers, trace.num_experts),
        "predicted": (tokens, layers, trace.lookahead, trace.num_experts),
        "expert_bytes": (layers,),
    }
    for name, shape in wanted.items():
        values = getattr(trace, name)
        if values is None:
            continue
        if values.shape != shape:
            raise InputError(f"{name} has shape {values.shape}, expected {shape}")
        if not np.isfinite(values).all():
            raise InputError(f"{name} holds NaN or infinity: mend the recorder, do not guess")
    if trace.expert_bytes is not None and (trace.expert_bytes <= 0).any():
        raise InputError(f"expert_bytes must be positive, got {int(trace.expert_bytes.min())}")
    for name in ("weights", "predicted"):
        values = getattr(trace, name)
        if values is not None and values.size and values.min() < 0:
            raise InputError(f"{name} must not be negative, got {float(values.min())}")
