"""A generation with a stop-watch: what was written, and what each token took."""

import time
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import jax.numpy as jnp
import numpy as np

from specmd_jax.models import Forward, Sampling, stream_tokens
from specmd_jax.policies.base import LOGITS
from specmd_jax.runtime.engine import OffloadedModel
from specmd_jax.runtime.record.recorder import Recorder
from specmd_jax.runtime.transfer.link import DirectLink
from specmd_jax.study.metrics import count_summary

MEASURED = "MEASURED"
PERCENTILES = (50, 95, 99)  # of the times between tokens
WARM_UP_TOKENS = 6


@dataclass
class Generation:
    """What came of some prompts, in one batch.

    Attributes:
      token_ids: that followed each prompt.
      at_s: when each token of the batch was there, since the prompts were handed in.
      seconds: until the end.
      prompt_tokens: of all prompts.
    """

    token_ids: list[list[int]]
    at_s: list[float] = field(default_factory=list)
    seconds: float = 0.0
    prompt_tokens: int = 0

    @property
    def ttft_s(self) -> float | None:
        """Seconds to the first token."""
        return self.at_s[0] if self.at_s else None

    @property
    def tpot_s(self) -> float | None:
        """Mean seconds between one token and the next."""
        if len(self.at_s) < 2:
            return None
        return (self.at_s[-1] - self.at_s[0]) / (len(self.at_s) - 1)

    @property
    def tokens_per_s(self) -> float | None:
        """The rate of decode: of all that came after the first tokens, batch / TPOT."""
        decoded = sum(len(ids) - 1 for ids in self.token_ids if ids)
        seconds = self.at_s[-1] - self.at_s[0] if self.at_s else 0.0
        return decoded / seconds if seconds else None

    @property
    def prefill_tokens_per_s(self) -> float | None:
        """The rate of prefill: of the prompts, until the first token is there."""
        return self.prompt_tokens / self.ttft_s if self.prompt_tokens and self.ttft_s else None


def follow(
    model: Forward,
    prompts: Sequence[Sequence[int]],
    max_tokens: int,
    *,
    stop: Collection[int] = (),
    sampling: Sampling | None = None,
    seed: int = 0,
    dtype: jnp.dtype | type = jnp.float32,
    clock: Callable[[], float] = time.perf_counter,
) -> Iterator[Generation]:
    """Yields what there is so far, after each token of the batch.

    Args:
      model: whole or offloaded; it may record.
      prompts: token ids.
      max_tokens: new ones of each sequence, at most.
      stop: tokens that end a sequence.
      sampling: how tokens are drawn; greedy by default.
      seed: of the draws.
      dtype: of cached keys and values.
      clock: of the stop-watch.
    """
    made = Generation([[] for _ in prompts], prompt_tokens=sum(map(len, prompts)))
    going = set(range(len(prompts)))
    recorder: Recorder | None = getattr(model, "recorder", None)
    if recorder is not None:
        recorder.begin([len(prompt) for prompt in prompts])
    begun = clock()
    config = model.config
    options: dict[str, Any] = {"sampling": sampling, "seed": seed, "dtype": dtype}
    for tokens in stream_tokens(model, config, prompts, max_tokens, **options):
        made.seconds = clock() - begun
        made.at_s.append(made.seconds)
        for row in tuple(going):
            made.token_ids[row].append(int(tokens[row]))
            if made.token_ids[row][-1] in stop:
                going.remove(row)
                if recorder is not None:
                    recorder.end(row)
        yield made
        if not going:
            break


def warm_up(
    model: OffloadedModel, prompts: Sequence[Sequence[int]], max_tokens: int, **options: Any
) -> None:
    """Compiles what a generation will need, over the device's own link, and forgets the rest.

    Args:
      model: begins anew afterwards.
      prompts: of the generation to come; programs depend on their lengths alone.
      max_tokens: of the generation to come: the cache has to be of its size.
      **options: see `follow`.
    """
    link, recorder = model.link, model.recorder
    model.link, model.recorder = DirectLink(), None
    try:
        model.reset()
        for made in follow(model, prompts, max_tokens, **options):
            if len(made.at_s) == WARM_UP_TOKENS // 3:
                model.split_next_pass()
            if len(made.at_s) == WARM_UP_TOKENS // 2:
                model.expect_hits()
            if len(made.at_s) > WARM_UP_TOKENS:
                break
    finally:
        model.link, model.recorder = link, recorder
        model.reset()


def summarise_run(model: OffloadedModel, made: Generation) -> dict[str, Any]:
    """Returns one run as plain numbers: times in seconds, sizes in bytes, counts as a replay's.

    Args:
      model: that ran nothing else since it began anew.
      made: what it wrote.
    """
    setup, budget, strategy = model.setup, model.budget, model.setup.strategy
    between = np.diff(made.at_s)
    tokens = sum(len(ids) for ids in made.token_ids)
    per_pass = model.config.spec.num_moe_layers * model.config.spec.top_k
    return {
        "strategy": setup.name or None,
        "scope": strategy.scope,
        "admission": strategy.admission,
        "precisions": list(model.store.precisions),
        "capacity": setup.capacity,
        "capacity_slots": budget.capacity.slots,
        "capacity_bytes": budget.capacity.nbytes,
        "cycles": budget.capacity.slots / per_pass,
        "lossless": not strategy.open_loop and len(model.store.precisions) == 1,
        "ttft_s": made.ttft_s,
        "tpot_s": made.tpot_s,
        "inter_token_s": _percentiles(between),
        "stall_s": float(sum(model.stalls_s)),
        "stall_late_s": model.late_s,
        "seconds": made.seconds,
        "tokens": tokens,
        "tokens_per_s": made.tokens_per_s,
        "prefill_tokens_per_s": made.prefill_tokens_per_s,
        "link_busy_share": model.link.busy_s / made.seconds if made.seconds else None,
        **count_summary(model.answer),
        "warnings": _warnings(model),
        "label": MEASURED,
    }


def _percentiles(between: np.ndarray) -> dict[str, float] | None:
    if not len(between):
        return None
    return {f"p{q}": float(np.percentile(between, q)) for q in PERCENTILES}


def _warnings(model: OffloadedModel) -> list[str]:
    notes, strategy = [], model.setup.strategy
    if strategy.open_loop or len(model.store.precisions) > 1:
        notes.append("lossy: the text may differ from the exact model's; see specmd quality")
    if LOGITS in strategy.routing.reads:
        notes.append("routing bends only in passes of one token")
    return notes
