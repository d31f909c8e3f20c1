"""A bare number is slots: where so few make no sense, the percentage is offered."""

import numpy as np
import pytest

from specmd_jax.core.errors import InputError
from specmd_jax.study.choice import Choice
from specmd_jax.study.metrics import summarise_result
from specmd_jax.study.run import compare
from specmd_jax.study.setup import make_setup
from specmd_jax.traces import DECODE, Trace


@pytest.fixture(scope="module")
def trace() -> Trace:
    rng = np.random.default_rng(0)
    experts = rng.random((6, 2, 8)).argsort(axis=2)[:, :, :4]
    return Trace(
        experts.astype(np.int16),
        8,
        step=np.arange(6, dtype=np.int32),
        request=np.zeros(6, np.int32),
        phase=np.full(6, DECODE, np.int8),
    )


def told(trace: Trace, capacity: str, scope: str = "global") -> list[str]:
    (answer,) = compare(trace, [make_setup(Choice(capacity=capacity, scope=scope))])
    return [one for one in summarise_result(trace, answer)["warnings"] if "slots" in one[:30]]


def test_too_few_slots_are_told_as_a_slip(trace: Trace) -> None:
    (warning,) = told(trace, "3")
    assert "fewer than the 4 experts" in warning and warning.endswith("write 3%")
    (warning,) = told(trace, "6", "layer")
    assert "6 slots, 3 a layer" in warning and warning.endswith("write 6%")


def test_enough_slots_and_shares_are_not(trace: Trace) -> None:
    assert told(trace, "4") == told(trace, "12%") == told(trace, "8", "layer") == []


def test_all_setups_are_checked_before_the_first_runs(
    trace: Trace, monkeypatch: pytest.MonkeyPatch
) -> None:
    def run_batch(*args: object, **kwargs: object) -> None:
        raise AssertionError("something ran")

    monkeypatch.setattr("specmd_jax.study.run.run_batch", run_batch)
    choices = [
        Choice(capacity="4"),
        Choice(capacity="4", prefetch="next-gate"),
        Choice(capacity="0"),
        Choice(capacity="4", eviction="mrs", prefetch="next-gate"),
    ]
    with pytest.raises(InputError, match="3 of 4 setups cannot be run") as refused:
        compare(trace, [make_setup(choice) for choice in choices])
    for name in ("lru + next-gate at 4", "lru at 0: capacity '0' holds no expert", "mrs + next"):
        assert name in str(refused.value)
