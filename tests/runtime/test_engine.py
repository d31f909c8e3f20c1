"""A model that is offloaded computes what it computes on the device whole."""

from dataclasses import replace
from typing import Any

import jax
import numpy as np
import pytest

from specmd_jax.core.errors import InputError
from specmd_jax.models import ResidentModel
from specmd_jax.runtime.gates.scores import RecordOptions
from specmd_jax.runtime.options import RunOptions, drained
from specmd_jax.study.metrics import count_summary
from tests.models.small import CONFIG
from tests.runtime.offloaded import (
    AHEAD,
    ALL,
    DECODER,
    EXPERTS,
    LIVE,
    PROMPTS,
    counted,
    make_setup,
    offloaded,
    record,
    run,
)

pytestmark = pytest.mark.matrix

NEW = 6


@pytest.fixture(scope="module")
def whole() -> dict[int, tuple[list, list]]:
    """What the engine makes of one prompt and of four with every expert on the device."""
    made = {}
    for batch in (1, 4):
        model = offloaded(make_setup(ALL), options=RunOptions())
        made[batch] = run(model, PROMPTS[:batch], NEW)
    return made


def same(left: tuple[list, list], right: tuple[list, list]) -> bool:
    tokens = left[0] == right[0]
    return tokens and all(np.array_equal(*pair) for pair in zip(left[1], right[1], strict=True))


@pytest.mark.parametrize("batch", [1, 4])
def test_with_every_expert_on_the_device_it_is_the_resident_model(
    whole: dict[int, tuple[list, list]], batch: int
) -> None:
    tokens, logits = run(ResidentModel(DECODER, EXPERTS), PROMPTS[:batch], NEW)
    assert tokens == whole[batch][0]
    for one, other in zip(logits, whole[batch][1], strict=True):
        # Padding sees what is there: only the last position counts for all sequences.
        np.testing.assert_array_equal(one[:, -1], other[:, -1])


@pytest.mark.parametrize("eviction", LIVE)
@pytest.mark.parametrize("capacity", ["3", "11"])
def test_no_eviction_policy_changes_a_bit(
    whole: dict[int, tuple[list, list]], eviction: str, capacity: str
) -> None:
    assert same(run(offloaded(make_setup(capacity, eviction=eviction)), PROMPTS[:1], NEW), whole[1])


@pytest.mark.parametrize("prefetch", AHEAD)
@pytest.mark.parametrize(("capacity", "batch"), [("6", 1), ("14", 4)])
def test_no_prefetcher_changes_a_bit(
    whole: dict[int, tuple[list, list]], prefetch: str, capacity: str, batch: int
) -> None:
    model = offloaded(make_setup(capacity, prefetch=prefetch))
    assert same(run(model, PROMPTS[:batch], NEW), whole[batch])
    model.close()


@pytest.mark.parametrize("scope", ["global", "layer"])
@pytest.mark.parametrize("admission", ["forced", "bypass"])
@pytest.mark.parametrize("capacity", ["1", "4", "9", ALL, "1000"])
def test_no_capacity_changes_a_bit(
    whole: dict[int, tuple[list, list]], scope: str, admission: str, capacity: str
) -> None:
    setup = make_setup(capacity, eviction="lfu", scope=scope, admission=admission)
    assert same(run(offloaded(setup), PROMPTS, NEW), whole[4])


@pytest.mark.parametrize("length", [1, 2, 63, 64, 65, 300])
def test_a_prompt_may_have_any_length(length: int) -> None:
    drawn = jax.random.randint(jax.random.key(length), (length,), 0, CONFIG.spec.vocab_size)
    prompt = [drawn.tolist()]
    everything = run(offloaded(make_setup(ALL)), prompt, 2)
    assert same(run(offloaded(make_setup("5")), prompt, 2), everything)
    assert everything[0] == run(ResidentModel(DECODER, EXPERTS), prompt, 2)[0]


@pytest.mark.parametrize(
    ("capacity", "decisions"),
    [("20", {}), ("21", {"eviction": "least-stale", "prefetch": "next-gate"}), (ALL, {})],
)
def test_passes_dispatched_in_hope_change_nothing(
    whole: dict[int, tuple[list, list]], capacity: str, decisions: dict[str, Any]
) -> None:
    setup, wanted = make_setup(capacity, **decisions), RecordOptions(scores=True, lookahead=1)
    assert same(run(offloaded(setup, options=drained()), PROMPTS[:1], NEW), whole[1])
    at_once, trace = record(setup, PROMPTS[:1], 4 * NEW, wanted, options=drained())
    exact, other = record(setup, PROMPTS[:1], 4 * NEW, wanted, options=drained(whole_passes=False))
    assert at_once == exact
    for name in ("experts", "weights", "step", "request", "phase"):
        np.testing.assert_array_equal(getattr(trace, name), getattr(other, name))


def test_a_pass_in_parts_changes_nothing(whole: dict[int, tuple[list, list]]) -> None:
    model = offloaded(make_setup("11", eviction="lfu"))

    class InParts:
        config = model.config

        def __call__(self, tokens, cache):
            model.split_next_pass()
            return model(tokens, cache)

    assert same(run(InParts(), PROMPTS, NEW), whole[4])
    exact = offloaded(make_setup("11", eviction="lfu"))
    run(exact, PROMPTS, NEW)
    assert counted(model) == counted(exact)


@pytest.mark.parametrize("capacity", ["18", "20"])
def test_a_pass_is_one_step_wherever_its_hope_fails(capacity: str) -> None:
    model = offloaded(make_setup(capacity), options=drained())
    run(model, PROMPTS[:1], 8 * NEW)
    assert model._step + 1 == 8 * NEW  # a pass a token: the prompt's, and those of decode


def test_it_starts_anew_when_it_is_reset(whole: dict[int, tuple[list, list]]) -> None:
    model = offloaded(make_setup("9"))
    first = run(model, PROMPTS[:1], NEW)
    counts = count_summary(model.answer)
    model.reset()
    assert count_summary(model.answer)["accesses"] == 0
    assert same(run(model, PROMPTS[:1], NEW), first)
    assert count_summary(model.answer) == counts
    run(model, PROMPTS[:1], NEW)
    assert count_summary(model.answer)["accesses"] == 2 * counts["accesses"]


@pytest.mark.parametrize(
    ("capacity", "decisions", "problem"),
    [
        ("0", {}, "capacity '0' holds no expert"),
        ("100B", {}, "holds no expert of 6,144 bytes"),
        ("much", {}, "is no size"),
        ("6", {"eviction": "belady"}, "looks into the future"),
        ("6", {"prefetch": "oracle"}, "looks into the future"),
    ],
)
def test_what_cannot_be_run_is_refused(
    capacity: str, decisions: dict[str, Any], problem: str
) -> None:
    with pytest.raises(InputError, match=problem):
        offloaded(make_setup(capacity, **decisions))


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"precisions": ("int8", "int4")}, "and the store has bf16"),
        ({"start": "popular"}, "a run starts cold"),
    ],
)
def test_what_a_replay_alone_can_do_is_refused(change: dict[str, Any], problem: str) -> None:
    with pytest.raises(InputError, match=problem):
        offloaded(replace(make_setup("6"), **change))
