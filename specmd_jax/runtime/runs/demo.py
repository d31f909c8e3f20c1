"""The bundled model, really offloaded, under one strategy after another: `specmd demo`."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any, NamedTuple

from specmd_jax.model_zoo import ModelSpec
from specmd_jax.models import open_model, open_tokenizer
from specmd_jax.models.checkpoints.library import BUNDLED
from specmd_jax.runtime.options import RunOptions
from specmd_jax.runtime.runs.generation import follow, summarise_run, warm_up
from specmd_jax.runtime.runs.offloading import Offloading
from specmd_jax.runtime.transfer.link import ThrottledLink
from specmd_jax.study.choice import Choice
from specmd_jax.study.setup import Setup, make_setup

PROMPT = "The old man went down to the river in the evening, and"
PRECISION = "int4"
SHARES = (0.05, 0.25)  # of the experts that the device has room for, at that precision
LINK_BYTES_PER_S = 50e6  # one int4 expert in 0.3 ms, as a 4-bit Mixtral expert on 25 GB/s in 4 ms
PAPER = ("specmd-1", "specmd-2", "specmd-3", "specmd-4", "specmd-5")
WHOLE = "all on the device"
BEST = "score-based + next-gate"


class Shown(NamedTuple):
    """What the demo found."""

    prompt: str
    experts: int  # of all layers
    link_bytes_per_s: float
    rows: list[dict[str, Any]]  # of the model whole, then by capacity and strategy


def setups(spec: ModelSpec) -> list[tuple[str, Setup]]:
    """Returns the model whole, then the paper's strategies and the best one, by share.

    A share is one of bytes, the same for all, so that copies of several precisions compare.
    """
    whole = make_setup(Choice(capacity="100%", precision=(PRECISION,)))
    named = {name: make_setup(Choice(strategy=name)) for name in PAPER}
    named[BEST] = best()
    found = [("100%", replace(whole, name=WHOLE))]
    one, experts = spec.expert_bytes(PRECISION, with_scales=True), _experts(spec)
    for share in SHARES:
        capacity = f"{round(share * experts) * one}B"
        for name, setup in named.items():
            found.append((f"{share:.0%}", replace(setup, name=name, capacity=capacity)))
    return found


def best() -> Setup:
    """Returns the lossless strategy that a sweep over the bundled model's routing put first."""
    return make_setup(Choice(eviction="score-based", prefetch="next-gate", precision=(PRECISION,)))


def _experts(spec: ModelSpec) -> int:
    return spec.num_moe_layers * spec.num_experts


def demonstrate(
    max_tokens: int, on_progress: Callable[[float], None] = lambda share: None
) -> Shown:
    """Runs every strategy on one prompt and returns what it wrote and took: MEASURED.

    Args:
      max_tokens: that each writes.
      on_progress: called with the share that is done.
    """
    checkpoint = open_model(BUNDLED)
    tokenizer = open_tokenizer(checkpoint)
    offloading = Offloading(checkpoint)
    prompt = tokenizer.encode(PROMPT).ids
    rows: list[dict[str, Any]] = []
    spec = checkpoint.config.spec
    asked = setups(spec)
    for share, setup in asked:
        # Elsewhere a whole pass would take longer to compile than the run takes.
        options = RunOptions(whole_passes=setup.name == WHOLE)
        link = ThrottledLink(LINK_BYTES_PER_S)
        model = offloading.model(setup, link=link, options=options)
        warm_up(model, [prompt], max_tokens)
        *_, made = follow(model, [prompt], max_tokens)
        model.close()
        ids = made.token_ids[0]
        row = {"text": tokenizer.decode(ids), "token_ids": ids} | summarise_run(model, made)
        row["capacity"] = share
        row["same_text"] = ids == (rows[0]["token_ids"] if rows else ids)
        rows.append(row)
        on_progress(len(rows) / len(asked))
    return Shown(PROMPT, _experts(spec), LINK_BYTES_PER_S, rows)
