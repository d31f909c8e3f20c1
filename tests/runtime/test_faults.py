"""What goes wrong while a model streams its experts is told, and never becomes a wrong token."""

import threading
import time
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
import pytest

from specmd_jax.core.errors import InputError
from specmd_jax.models import generate
from specmd_jax.policies.strategy import FAMILIES
from specmd_jax.runtime.engine import OffloadedModel
from specmd_jax.runtime.offload import slots as slots_module
from specmd_jax.runtime.offload.store import Packed
from specmd_jax.runtime.options import RunOptions
from specmd_jax.runtime.runs.generation import follow
from specmd_jax.runtime.transfer.link import ATTEMPTS, DirectLink, Transfer, TransferFailed
from specmd_jax.runtime.transfer.prefetch_queue import PrefetchLoop
from specmd_jax.runtime.transfer.watchdog import Watchdog, WatchdogFailed
from tests.runtime.offloaded import ALL, CONFIG, PROMPTS, make_setup, offloaded, run

pytestmark = pytest.mark.matrix

NEW = 6
PATIENCE_S = 60.0  # a run that takes longer hangs


class FaultyLink(DirectLink):
    """Fails the transfers whose numbers `fails` picks; `when` says at which end."""

    def __init__(self, fails: Callable[[int], bool], when: str = "wait"):
        super().__init__()
        self.sent = 0
        self._fails, self._when = fails, when

    def send(self, expert: Packed) -> Transfer:
        self.sent += 1
        if not self._fails(self.sent):
            return super().send(expert)
        if self._when == "send":
            raise RuntimeError("the bus is gone")
        return Broken()


class Broken:
    def wait(self) -> Any:
        raise RuntimeError("the bus is gone")


@pytest.fixture(scope="module")
def exact() -> list[list[int]]:
    return run(offloaded(make_setup(ALL)), PROMPTS[:1], NEW)[0]


def in_time(work: Callable[[], Any]) -> Any:
    """Returns what `work` returns or raises, or fails if it does not end."""
    outcome: list[Any] = []

    def body() -> None:
        try:
            outcome.append((work(), None))
        except BaseException as error:
            outcome.append((None, error))

    thread = threading.Thread(target=body, daemon=True)
    thread.start()
    thread.join(PATIENCE_S)
    assert outcome, "it hangs"
    value, error = outcome[0]
    if error is not None:
        raise error
    return value


def tokens_of(model: OffloadedModel) -> list[list[int]]:
    try:
        return generate(model, CONFIG, PROMPTS[:1], NEW)
    finally:
        model.close()


PREFETCHING: dict[str, Any] = {"prefetch": "previous", "eviction": "least-stale"}


@pytest.mark.parametrize("when", ["send", "wait"])
@pytest.mark.parametrize("decisions", [{}, PREFETCHING], ids=["demand", "prefetch"])
def test_a_transfer_that_fails_now_and_then_is_sent_again(
    exact: list[list[int]], decisions: dict[str, Any], when: str
) -> None:
    link = FaultyLink(lambda number: number % 3 == 0, when)
    model = offloaded(make_setup("6", **decisions), link=link)
    assert in_time(lambda: tokens_of(model)) == exact


def test_a_transfer_that_fails_for_good_ends_the_run(exact: list[list[int]]) -> None:
    link = FaultyLink(lambda number: number > 20)
    model = offloaded(make_setup("6"), link=link)
    made: list[int] = []

    def work() -> None:
        for part in follow(model, PROMPTS[:1], NEW):
            made[:] = part.token_ids[0]

    with pytest.raises(TransferFailed, match=rf"expert \d+ of layer \d .* {ATTEMPTS} attempts"):
        in_time(work)
    assert made == exact[0][: len(made)], "what was written before is right"


def test_a_prefetch_that_fails_for_good_is_told_at_the_next_token(exact: list[list[int]]) -> None:
    model = offloaded(make_setup("6", **PREFETCHING), link=FaultyLink(lambda number: number > 30))
    with pytest.raises((WatchdogFailed, TransferFailed), match="the bus is gone"):
        in_time(lambda: tokens_of(model))


def test_what_the_watchdog_meets_is_not_swallowed() -> None:
    class Startled(PrefetchLoop):
        def start_next(self) -> Any:
            raise ZeroDivisionError("boo")

    def watchdog(loop: PrefetchLoop) -> Watchdog:
        loop.__class__ = Startled
        return Watchdog(loop)

    model = offloaded(
        make_setup("9", prefetch="previous"),
        options=RunOptions(watchdog=watchdog, whole_passes=False),
    )
    with pytest.raises(WatchdogFailed, match="prefetching failed: boo"):
        in_time(lambda: tokens_of(model))


def test_a_link_that_stalls_costs_time_and_nothing_else(exact: list[list[int]]) -> None:
    class Stalling(DirectLink):
        sent = 0

        def send(self, expert: Packed) -> Transfer:
            self.sent += 1
            if self.sent == 12:
                time.sleep(2.0)
            return super().send(expert)

    model = offloaded(make_setup("6", **PREFETCHING), link=Stalling())
    begun = time.perf_counter()
    assert in_time(lambda: tokens_of(model)) == exact
    assert time.perf_counter() - begun >= 2.0


def test_ctrl_c_in_the_middle_of_a_token_keeps_what_was_written(exact: list[list[int]]) -> None:
    class Interrupting(DirectLink):
        left = 60

        def send(self, expert: Packed) -> Transfer:
            self.left -= 1
            if self.left == 0:
                raise KeyboardInterrupt
            return super().send(expert)

    model = offloaded(make_setup("6"), link=Interrupting())
    made: list[int] = []
    with pytest.raises(KeyboardInterrupt):
        for part in follow(model, PROMPTS[:1], NEW):
            made = list(part.token_ids[0])
    model.close()
    assert 0 < len(made) < NEW
    assert made == exact[0][: len(made)]
    model.reset()
    assert tokens_of(model) == exact, "and it can be used again"


def test_too_little_device_memory_is_told_before_anything_runs(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def full(*args: Any) -> Any:
        raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: out of memory")

    monkeypatch.setattr(slots_module, "allot", full)
    with pytest.raises(InputError, match=r"the device has no .* GiB for experts.*--capacity"):
        offloaded(make_setup("6"))


def draw(rng: np.random.Generator) -> dict[str, Any]:
    """Returns the names of a strategy that a run can follow, and its capacity."""
    live = {
        "eviction": [n for n, p in FAMILIES["eviction"].items() if "next_use" not in p.reads],
        "prefetch": [n for n, p in FAMILIES["prefetch"].items() if "upcoming" not in p.reads],
        "miss": [name for name in FAMILIES["miss"] if name != "drop-priority-cascade"],
        "routing": list(FAMILIES["routing"]),
        "scope": ["global", "layer"],
        "admission": ["forced", "bypass"],
    }
    drawn = {name: str(rng.choice(sorted(names))) for name, names in live.items()}
    drawn["capacity"] = str(rng.integers(1, 25))
    return drawn | {"lookahead": int(rng.integers(1, 3)), "guard": bool(rng.integers(2))}


def soak(strategies: int, tokens: int) -> None:
    """Runs strategies at random; the slots raise if a decision breaks the budget."""
    rng = np.random.default_rng(0)
    for _ in range(strategies):
        drawn = draw(rng)
        model = offloaded(make_setup(**drawn))
        made = in_time(lambda model=model: generate(model, CONFIG, PROMPTS[:1], tokens))
        counts = model.answer.tally.counts
        model.close()
        assert len(made[0]) == tokens, drawn
        held = int((np.asarray(model._decisions.resident) >= 0).sum())
        assert held <= int(drawn["capacity"]), drawn
        total = {name: int(part.sum()) for name, part in counts._asdict().items()}
        missed = total["accesses"] - total["hits"]
        fates = ("dropped", "substituted", "on_host", "loads", "late")
        assert missed == sum(total[name] for name in fates), drawn


def test_strategies_at_random_break_no_invariant() -> None:
    soak(strategies=8, tokens=12)


@pytest.mark.slow
def test_two_hundred_strategies_at_random_break_no_invariant() -> None:
    soak(strategies=200, tokens=200)
