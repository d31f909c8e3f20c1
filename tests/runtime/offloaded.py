"""The small decoder with its experts in host memory, and the ways of running it."""

from typing import Any

import jax
import numpy as np

from specmd_jax.models import Pass, generate
from specmd_jax.policies.base import NEXT_USE
from specmd_jax.policies.strategy import FAMILIES, make_strategy
from specmd_jax.runtime.engine import OffloadedModel
from specmd_jax.runtime.gates.scores import RecordOptions
from specmd_jax.runtime.offload.store import ExpertStore
from specmd_jax.runtime.options import RunOptions
from specmd_jax.runtime.record.recorder import Recorder
from specmd_jax.study.metrics import count_summary
from specmd_jax.study.setup import Setup
from specmd_jax.traces import Trace
from tests.models.small import CONFIG, small_decoder

PROMPTS = [[3, 14, 15, 9, 26, 5, 35, 8, 9], [7, 9, 3, 2], [38, 46, 26, 43, 38, 32, 7], [1]]
ALL = str(CONFIG.spec.num_moe_layers * CONFIG.spec.num_experts)
SHAPE = CONFIG.spec.shape

# What a run can do: the policies that do not look into the future.
LIVE = sorted(name for name, policy in FAMILIES["eviction"].items() if NEXT_USE not in policy.reads)
AHEAD = sorted(
    name for name, policy in FAMILIES["prefetch"].items() if "upcoming" not in policy.reads
)

DECODER, EXPERTS = small_decoder()
STORE = ExpertStore(lambda layer: jax.tree.map(np.asarray, EXPERTS[layer]), SHAPE.num_layers)


def make_setup(capacity: str = "6", lookahead: int = 1, **decisions: Any) -> Setup:
    """Returns the setup of named policies."""
    strategy = make_strategy(**decisions)._replace(lookahead=lookahead)
    return Setup(strategy, strategy.params, "tested", capacity)


def offloaded(setup: Setup, options: RunOptions | None = None, **others: Any) -> OffloadedModel:
    """Returns the small model under a setup; no whole passes, which are slow to compile."""
    return OffloadedModel(
        DECODER, STORE, setup, options=options or RunOptions(whole_passes=False), **others
    )


class Watched:
    """A `Forward` that keeps the logits of every pass."""

    def __init__(self, forward: Any):
        self.forward, self.config = forward, forward.config
        self.logits: list[np.ndarray] = []

    def __call__(self, tokens, cache) -> Pass:
        done = self.forward(tokens, cache)
        self.logits.append(np.asarray(done.logits))
        return done


def run(forward: Any, prompts: list[list[int]], new: int, chunk: int = 128) -> tuple[list, list]:
    """Returns the tokens that follow the prompts, and the logits of every pass."""
    watched = Watched(forward)
    made = generate(watched, watched.config, prompts, new, chunk=chunk)
    return made, watched.logits


def record(
    setup: Setup,
    prompts: list[list[int]],
    new: int,
    wanted: RecordOptions | None = None,
    **options: Any,
) -> tuple[dict[str, Any], Trace]:
    """Returns the counts of a run, and the trace it recorded."""
    recorder = Recorder(wanted)
    model = offloaded(setup, recorder=recorder, **options)
    recorder.begin([len(prompt) for prompt in prompts])
    try:
        run(model, prompts, new)
    finally:
        model.close()
    recorder.finish()
    return counted(model), recorder.trace(SHAPE.num_experts, None, STORE.copy_bytes[:, 0])


def counted(model: OffloadedModel) -> dict[str, Any]:
    """Returns the counts of a run as `specmd simulate --json` has them."""
    return count_summary(model.answer)
