"""Arrays whose axes no name says: what decides, and what is said where nothing does."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from specmd_jax.core.errors import InputError
from specmd_jax.core.types import ModelShape
from specmd_jax.traces import ImportOptions, Trace, import_trace, import_traces

LAYERS, EXPERTS, TOP_K = 6, 32, 2


def routed(tokens: int = 50, returning: float = 0.5, seed: int = 0) -> np.ndarray:
    """[T, L, K]: a layer's experts come back in the next token in that share of the cases."""
    rng = np.random.default_rng(seed)
    ids = rng.random((tokens, LAYERS, EXPERTS)).argsort(-1)[:, :, :TOP_K]
    stays = rng.random((tokens, LAYERS)) < returning
    for token in range(1, tokens):
        ids[token, stays[token]] = ids[token - 1, stays[token]]
    return ids


def read(path: Path, array: np.ndarray, **options: Any) -> Trace:
    np.save(path / "x.npy", array)
    return import_trace(path / "x.npy", ImportOptions(**options))


def assert_routed(found: Trace, wanted: np.ndarray) -> None:
    np.testing.assert_array_equal(found.experts, wanted)


def test_experts_come_back_along_tokens(tmp_path):
    found = read(tmp_path, routed())
    assert_routed(found, routed())
    assert not found.provenance.doubts
    assert not any("axes" in note for note in found.provenance.notes)


def test_the_other_order_is_recognised_and_said(tmp_path):
    found = read(tmp_path, routed().swapaxes(0, 1))
    assert_routed(found, routed())
    (doubt,) = found.provenance.doubts
    assert "--axes tokens-first" in doubt
    settled = read(tmp_path, routed().swapaxes(0, 1), axes="layers-first")
    assert_routed(settled, routed())
    assert not settled.provenance.doubts


@pytest.mark.parametrize(("tokens", "where"), [(50, "notes"), (4, "doubts")])
def test_what_nothing_decides_is_said_with_its_flag(tokens, where, tmp_path):
    ids = routed(tokens, returning=0.0)
    found = read(tmp_path, ids)
    assert_routed(found, ids)
    assert any("--axes layers-first" in said for said in getattr(found.provenance, where))
    assert_routed(read(tmp_path, ids.swapaxes(0, 1), axes="layers-first"), ids)


def test_the_model_decides(tmp_path):
    ids = routed(returning=0.0)
    shape = ModelShape(LAYERS, EXPERTS, TOP_K)
    found = read(tmp_path, ids.swapaxes(0, 1), model="toy", shape=shape)
    assert_routed(found, ids)
    assert any("the model has 6 layers" in note for note in found.provenance.notes)
    assert_routed(read(tmp_path, ids, model="toy", shape=shape), ids)


def test_the_axis_that_all_arrays_share_is_of_layers(tmp_path):
    parts = [routed(tokens, returning=0.0) for tokens in (7, 9)]
    np.savez(tmp_path / "x.npz", *[part.swapaxes(0, 1) for part in parts])
    found = import_trace(tmp_path / "x.npz")
    assert_routed(found, np.concatenate(parts))
    assert found.request.tolist() == [0] * 7 + [1] * 9
    for number, part in enumerate(parts):
        np.save(tmp_path / f"{number}.npy", part.swapaxes(0, 1))
    paths = [tmp_path / "0.npy", tmp_path / "1.npy"]
    with pytest.raises(InputError, match=r"all files hold 6 tokens, .* give --axes layers-first"):
        import_traces(paths)
    joined = import_traces(paths, ImportOptions(axes="layers-first"))
    assert_routed(joined, np.concatenate(parts))


def test_no_model_has_a_thousand_layers(tmp_path):
    ids = routed(1000, returning=0.0)
    assert_routed(read(tmp_path, ids.swapaxes(0, 1)), ids)


def test_layers_that_are_all_the_same_decide_nothing(tmp_path):
    ids = np.repeat(routed()[:, :1], 4, axis=1)
    assert_routed(read(tmp_path, ids), ids)


def test_an_archive_that_counts_its_tokens_says_its_axes(tmp_path):
    ids = routed(returning=0.0)
    weights = np.full(ids.shape, 0.5, np.float32)
    arrays = {"experts": ids.swapaxes(0, 1), "weights": weights.swapaxes(0, 1)}
    np.savez(tmp_path / "trace.npz", request=np.zeros(50, np.int32), **arrays)
    found = import_trace(tmp_path / "trace.npz")
    assert_routed(found, ids)
    assert found.weights is not None and found.weights.shape == ids.shape


def test_two_axes_are_one_layer_that_the_name_says(tmp_path):
    for layer in (10, 2):
        np.save(tmp_path / f"layer_{layer}.npy", routed()[:, layer % 3])
    found = import_trace(tmp_path)
    assert_routed(found, routed()[:, [2, 1]])
    assert found.provenance.layers == (2, 10)
    paths = [tmp_path / "layer_10.npy", tmp_path / "layer_2.npy"]
    np.testing.assert_array_equal(import_traces(paths).experts, found.experts)


def test_names_may_say_request_and_layer(tmp_path):
    arrays = {
        f"request{r}.blk.{layer}": routed(seed=r)[:, layer] for r in (0, 1) for layer in (0, 1)
    }
    np.savez(tmp_path / "x.npz", allow_pickle=False, **arrays)
    found = import_trace(tmp_path / "x.npz")
    assert_routed(found, np.concatenate([routed(seed=r)[:, :2] for r in (0, 1)]))
    assert found.request.tolist() == [0] * 50 + [1] * 50


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (("layer_0", "other"), "other does not say its layer"),
        (("layer_0", "layer_1"), "every request needs all layers, of the same tokens"),
        (("layer_0", "r2_layer_1"), "every request needs all layers, of the same tokens"),
        (("layer_0", "layer-0"), "two arrays are of layer 0 of one request"),
    ],
)
def test_names_that_do_not_go_together_are_refused(names, message, tmp_path):
    for name, tokens in zip(names, (50, 9), strict=True):
        np.save(tmp_path / f"{name}.npy", routed()[:tokens, 0])
    with pytest.raises(InputError, match=message):
        import_trace(tmp_path)


@pytest.mark.parametrize("filling", [0, -1])
def test_dense_layers_are_left_out_and_the_others_keep_their_numbers(filling, tmp_path):
    ids = routed()
    ids[:, 0] = filling
    found = read(tmp_path, ids, axes="tokens-first")
    assert_routed(found, ids[:, 1:])
    assert found.provenance.layers == (1, 2, 3, 4, 5)
