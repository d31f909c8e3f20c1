"""Operations on traces: what moves, what stays, and what is refused."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from specmd_jax.core.errors import InputError
from specmd_jax.traces import (
    DECODE,
    PREFILL,
    Trace,
    batch_prefill,
    batch_requests,
    concatenate,
    slice_passes,
    slice_requests,
)
from tests.traces.samples import gates, trace
from tests.traces.test_format import full_trace


def numbered(request: list[int], step: list[int] | None = None, phase: int = DECODE) -> Trace:
    """One layer, one expert a token: the expert is the number of the row."""
    tokens = len(request)
    return Trace(
        np.arange(tokens, dtype=np.int16)[:, None, None],
        max(tokens, 2),
        np.array(range(tokens) if step is None else step, np.int32),
        np.array(request, np.int32),
        np.full(tokens, phase, np.uint8),
    )


def passes(found: Trace) -> list[list[int]]:
    """The rows of the original, pass by pass."""
    return [found.experts[found.step == p, 0, 0].tolist() for p in range(found.num_passes)]


def test_slice_passes_counts_from_zero_again():
    found = slice_passes(trace(), 1, 3)
    assert found.step.tolist() == [0, 1]
    np.testing.assert_array_equal(found.experts, trace().experts[3:5])
    np.testing.assert_array_equal(found.weights, gates()[3:5])
    assert "passes 1..3 of 4" in found.provenance.notes


@pytest.mark.parametrize(("start", "stop"), [(-1, 2), (2, 2), (3, 1), (0, 5)])
def test_slice_passes_refuses_an_empty_or_outside_range(start, stop):
    with pytest.raises(InputError, match="of a trace of 4"):
        slice_passes(trace(), start, stop)


def test_slice_requests_keeps_order_and_closes_gaps():
    found = slice_requests(numbered([0, 1, 0, 2, 2, 1], step=[0, 0, 1, 2, 3, 4]), [0, 1])
    assert passes(found) == [[0, 1], [2], [5]]
    assert found.request.tolist() == [0, 1, 0, 1]


@pytest.mark.parametrize("ids", [[], [0, 7]])
def test_slice_requests_refuses_what_is_not_there(ids):
    with pytest.raises(InputError, match="a trace that has 0, 1"):
        slice_requests(numbered([0, 1]), ids)


def test_concatenate_renumbers_requests():
    joined = concatenate([numbered([5, 5, 3]), numbered([3, 4, 3])])
    assert joined.request.tolist() == [0, 0, 1, 2, 3, 2]
    assert joined.step.tolist() == list(range(6))
    assert "2 traces joined" in joined.provenance.notes


def test_concatenate_undoes_slicing():
    whole = full_trace()
    parts = [slice_passes(whole, 0, 2), slice_passes(whole, 2, whole.num_passes)]
    joined = concatenate(parts)
    for name in ("experts", "step", "phase", "weights", "logits", "predicted", "expert_bytes"):
        np.testing.assert_array_equal(getattr(joined, name), getattr(whole, name), err_msg=name)
    assert joined.provenance.model == whole.provenance.model


def test_concatenate_drops_what_not_all_have():
    whole = full_trace()
    other = replace(whole, logits=None, expert_bytes=np.array([10, 20, 31]))
    joined = concatenate([whole, other])
    assert joined.logits is None and joined.expert_bytes is None
    assert joined.weights is not None
    assert [note for note in joined.provenance.notes if "dropped" in note] == [
        "logits dropped: not the same kind in every trace",
        "expert_bytes dropped: not the same kind in every trace",
    ]


def test_concatenate_refuses_different_shapes_and_nothing():
    with pytest.raises(InputError, match="cannot be joined"):
        concatenate([trace(), full_trace()])
    with pytest.raises(InputError, match="at least one"):
        concatenate([])


def test_batch_prefill_takes_the_first_tokens_of_each_request():
    found = batch_prefill(numbered([0, 0, 0, 1, 1, 1]), 2)
    assert passes(found) == [[0, 1], [2], [3, 4], [5]]
    assert found.phase.tolist() == [1, 1, 0, 1, 1, 0]


def test_batch_prefill_handles_interleaved_requests():
    found = batch_prefill(numbered([0, 1, 0, 1, 0, 1], step=[0, 0, 1, 1, 2, 2]), 2)
    assert passes(found) == [[0, 2], [1, 3], [4, 5]]
    assert found.phase.tolist() == [1, 1, 1, 1, 0, 0]
    assert found.request.tolist() == [0, 0, 1, 1, 0, 1]


def test_batch_prefill_takes_short_requests_whole():
    found = batch_prefill(numbered([0, 1, 1]), 9)
    assert passes(found) == [[0], [1, 2]]
    assert (found.phase == PREFILL).all()


@pytest.mark.parametrize(
    ("source", "tokens", "message"),
    [(numbered([0]), 0, "at least 1"), (trace(), 2, "recorded as prefill already")],
)
def test_batch_prefill_refuses(source, tokens, message):
    with pytest.raises(InputError, match=message):
        batch_prefill(source, tokens)


def test_batch_requests_admits_the_next_when_one_ends():
    found = batch_requests(numbered([0, 0, 0, 1, 2, 2]), 2)
    assert passes(found) == [[0, 3], [1, 4], [2, 5]]
    assert found.request.tolist() == [0, 1, 0, 2, 0, 2]


def test_batch_requests_leaves_prefill_passes_alone():
    prefilled = batch_prefill(numbered([0, 0, 0, 0, 1, 1, 1, 1]), 2)
    found = batch_requests(prefilled, 2)
    assert passes(found) == [[0, 1], [4, 5], [2, 6], [3, 7]]
    assert found.phase.tolist() == [1, 1, 1, 1, 0, 0, 0, 0]


def test_batch_requests_goes_on_after_a_request_of_prefill_alone():
    prefilled = batch_prefill(numbered([0, 0, 1, 1, 1]), 2)
    assert passes(batch_requests(prefilled, 1)) == [[0, 1], [2, 3], [4]]


def test_batch_requests_refuses_none_at_all():
    with pytest.raises(InputError, match="at least 1"):
        batch_requests(numbered([0]), 0)


@given(
    request=st.lists(st.integers(0, 4), min_size=1, max_size=30),
    batch=st.integers(1, 6),
    prefill=st.integers(0, 4),
)
def test_batching_keeps_tokens_order_and_the_limit(request, batch, prefill):
    source = numbered(request)
    if prefill:
        source = batch_prefill(source, prefill)
    found = batch_requests(source, batch)
    assert sorted(found.experts.ravel()) == list(range(len(request)))
    for label in set(request):
        rows = found.experts[found.request == label, 0, 0]
        assert (np.diff(rows) > 0).all()
    for rows in passes(found):
        labels = [request[row] for row in rows]
        assert len(set(labels)) <= batch
        is_prefill = found.phase[found.experts[:, 0, 0] == rows[0]][0] == PREFILL
        assert len(set(labels)) == (1 if is_prefill else len(labels))


def test_batches_of_one_are_the_trace_itself():
    source = numbered([0, 0, 1, 1, 1])
    assert passes(batch_requests(source, 1)) == passes(source)
