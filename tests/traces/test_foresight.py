"""Recall of the predictions of a trace, by lookahead and by layer."""

import numpy as np
import pytest

from specmd_jax.core.errors import InputError
from specmd_jax.core.types import ModelShape
from specmd_jax.traces import PAD, Trace
from specmd_jax.traces.analysis import foreseen_recall, foreseen_recall_by_layer
from specmd_jax.traces.synthetic.generator import SyntheticSpec, generate


def by_hand() -> Trace:
    """Two tokens, three layers of four experts, top-2, foreseen two layers ahead."""
    experts = np.array([[[0, 1], [2, 3], [0, 2]], [[1, 2], [0, 3], [1, PAD]]], np.int16)
    predicted = np.zeros((2, 3, 2, 4), np.float32)
    predicted[0, 0, 0] = [0.1, 0.2, 0.4, 0.3]  # names 2, 3: both are used
    predicted[1, 0, 0] = [0.1, 0.4, 0.2, 0.3]  # names 1, 3: one of 0, 3
    predicted[0, 0, 1] = [0.4, 0.4, 0.1, 0.1]  # names 0, 1: one of 0, 2
    predicted[0, 1, 0] = [0.1, 0.4, 0.1, 0.4]  # names 1, 3: none of 0, 2
    predicted[1, 1, 0] = [0.0, 0.9, 0.1, 0.0]  # names 1, 2: the only one
    rows = np.zeros(2, np.int32)
    return Trace(
        experts, 4, np.array([0, 1], np.int32), rows, rows.astype(np.uint8), predicted=predicted
    )


def test_by_hand() -> None:
    nan = np.nan
    wanted = [[nan, 3 / 4, 1 / 3], [nan, nan, 1 / 2]]
    np.testing.assert_allclose(foreseen_recall_by_layer(by_hand()), wanted)
    np.testing.assert_allclose(foreseen_recall(by_hand()), [4 / 7, 1 / 2])


def test_better_predictors_and_nearer_layers_recall_more() -> None:
    def recall(noise: float) -> np.ndarray:
        shape = ModelShape(6, 16, 2)
        return foreseen_recall(
            generate(SyntheticSpec(shape, tokens=200, lookahead=3, predictor_noise=noise))
        )

    good, bad = recall(0.5), recall(2.0)
    assert (good > bad).all()
    assert (np.diff(good) < 0).all() and (np.diff(bad) < 0).all()


def test_lookahead_beyond_the_last_layer_is_not_defined() -> None:
    trace = generate(SyntheticSpec(ModelShape(2, 8, 2), tokens=10, lookahead=3))
    assert np.isnan(foreseen_recall(trace)).tolist() == [False, True, True]
    assert np.isnan(foreseen_recall_by_layer(trace)[1:]).all()


def test_without_predictions_there_is_none() -> None:
    with pytest.raises(InputError, match="no predicted router probabilities"):
        foreseen_recall_by_layer(generate(SyntheticSpec(ModelShape(2, 8, 2), tokens=10)))
