"""What would be read without a word and wrong: each is noticed, and its flag settles it."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from specmd_jax.core.errors import InputError
from specmd_jax.core.types import ModelShape
from specmd_jax.traces import ImportOptions, Trace, import_trace, import_traces, write_trace

TOKENS, LAYERS, EXPERTS, TOP_K = 40, 4, 16, 3


def routed(tokens: int = TOKENS, layers: int = LAYERS, seed: int = 0) -> np.ndarray:
    """[T, L, K] distinct ids; the first tokens name all experts of every layer."""
    rng = np.random.default_rng(seed)
    ids = rng.random((tokens, layers, EXPERTS)).argsort(-1)[:, :, :TOP_K]
    token, layer, slot = np.indices((EXPERTS // 2, layers, TOP_K))
    ids[: EXPERTS // 2] = (2 * token + 3 * layer + np.array([0, 1, 5])[slot]) % EXPERTS
    return ids


def saved(path: Path, ids: np.ndarray) -> Path:
    np.save(path, ids.astype(np.int32))
    return path


def rows(path: Path, ids: np.ndarray, layers: list[int], **facts: Any) -> Path:
    """A JSONL table of one row a token and layer."""
    lines = [
        json.dumps({"token": token, "layer": layer, "experts": chosen[at].tolist()} | facts)
        for token, chosen in enumerate(ids)
        for at, layer in enumerate(layers)
    ]
    path.write_text("\n".join(lines))
    return path


def read(path: Path, **options: Any) -> Trace:
    return import_trace(path, ImportOptions(**options))


# ids that count on from layer to layer


def test_ids_that_count_on_are_taken_within_their_layer(tmp_path):
    offset = EXPERTS * np.arange(LAYERS)[:, None]
    path = saved(tmp_path / "x.npy", routed() + offset)
    found = read(path)
    assert found.num_experts == EXPERTS
    np.testing.assert_array_equal(found.experts, routed())
    (doubt,) = found.provenance.doubts
    assert "--ids per-layer" in doubt
    assert read(path, ids="per-layer").num_experts == LAYERS * EXPERTS
    settled = read(path, ids="global")
    np.testing.assert_array_equal(settled.experts, routed())
    assert not settled.provenance.doubts


def test_ids_may_count_by_the_models_layers(tmp_path):
    layers = [3, 4, 5, 6]
    path = rows(tmp_path / "x.jsonl", routed() + EXPERTS * np.array(layers)[:, None], layers)
    found = read(path)
    assert found.num_experts == EXPERTS
    np.testing.assert_array_equal(found.experts, routed())


def test_more_ids_than_any_layer_has_are_no_damage(tmp_path):
    ids = routed(tokens=64, layers=300)
    path = saved(tmp_path / "x.npy", ids + EXPERTS * np.arange(300)[:, None])
    np.testing.assert_array_equal(read(path).experts, ids)


def test_a_known_number_decides_where_blocks_leave_it_open(tmp_path):
    ids = np.arange(12).reshape(6, 1, 2) % 10 + np.array([[0], [20]])
    path = saved(tmp_path / "x.npy", ids)
    assert read(path, num_experts=20, ids="global").num_experts == 20
    assert read(path).num_experts in range(15, 21)


def test_ids_that_do_not_count_on_are_not_taken_so(tmp_path):
    path = saved(tmp_path / "x.npy", routed())
    assert not read(path).provenance.doubts
    with pytest.raises(InputError, match="leave out --ids global"):
        read(path, ids="global", num_experts=8)
    with pytest.raises(InputError, match="must be given"):
        read(path, ids="global")


# shared experts among the routed ones


def fused(shared: int = EXPERTS) -> np.ndarray:
    """The ids with a shared expert in the last slot; ids from it on make room."""
    ids = routed()
    moved = ids + (ids >= shared)
    return np.concatenate([moved, np.full((TOKENS, LAYERS, 1), shared)], axis=2)


@pytest.mark.parametrize("shared", [EXPERTS, 0, 7])
def test_a_shared_expert_is_named_and_left_out_when_asked(shared, tmp_path):
    path = saved(tmp_path / "x.npy", fused(shared))
    found = read(path)
    assert tuple(found.shape) == (LAYERS, EXPERTS + 1, TOP_K + 1)
    (doubt,) = found.provenance.doubts
    assert f"--shared-experts {shared}" in doubt and "--shared-experts none" in doubt
    settled = read(path, shared_experts=(shared,))
    assert tuple(settled.shape) == (LAYERS, EXPERTS, TOP_K)
    np.testing.assert_array_equal(settled.experts, routed())
    assert not settled.provenance.doubts
    kept = read(path, shared_experts=())
    assert kept.num_experts == EXPERTS + 1 and not kept.provenance.doubts


def test_a_shared_expert_beyond_the_routed_ones_needs_no_flag(tmp_path):
    path = saved(tmp_path / "x.npy", fused())
    for known in ({"num_experts": EXPERTS}, {"shape": ModelShape(LAYERS, EXPERTS, TOP_K)}):
        found = read(path, **known)
        np.testing.assert_array_equal(found.experts, routed())
        assert any("left out as shared" in note for note in found.provenance.notes)


def test_weights_of_a_shared_expert_go_with_it(tmp_path):
    ids, gates = fused(), np.broadcast_to(np.array([0.5, 0.3, 0.2, 1.0]), (TOKENS, LAYERS, 4))
    np.savez(tmp_path / "trace.npz", experts=ids, weights=gates.astype(np.float32))
    found = read(tmp_path / "trace.npz", shared_experts=(EXPERTS,))
    assert found.weights is not None
    np.testing.assert_allclose(found.weights, gates[:, :, :3])


def test_an_expert_that_is_not_always_chosen_is_not_shared(tmp_path):
    path = saved(tmp_path / "x.npy", routed())
    with pytest.raises(InputError, match="expert 3 is not chosen by every token"):
        read(path, shared_experts=(3,))


def test_a_dense_model_has_no_shared_expert(tmp_path):
    everyone = np.broadcast_to(np.arange(TOP_K), (TOKENS, LAYERS, TOP_K))
    assert not read(saved(tmp_path / "x.npy", everyone)).provenance.doubts


# the model


def test_the_model_supplies_what_the_file_does_not_say(tmp_path):
    path = saved(tmp_path / "x.npy", routed())
    found = read(path, model="toy", shape=ModelShape(LAYERS, 64, TOP_K))
    assert found.num_experts == 64 and found.provenance.model == "toy"


@pytest.mark.parametrize("shape", [(5, EXPERTS, TOP_K), (LAYERS, EXPERTS, 4)])
def test_a_model_that_was_not_recorded_is_refused(shape, tmp_path):
    path = saved(tmp_path / "x.npy", routed())
    with pytest.raises(InputError, match=r"model toy .* give the model that was recorded"):
        read(path, model="toy", shape=ModelShape(*shape))


def test_a_file_that_states_other_experts_contradicts_the_model(tmp_path):
    path = rows(tmp_path / "x.jsonl", routed(), list(range(LAYERS)))
    path.write_text(json.dumps({"num_experts": 32}) + "\n" + path.read_text())
    with pytest.raises(InputError, match="of 16 experts, the trace 4 of 32"):
        read(path, model="toy", shape=ModelShape(LAYERS, EXPERTS, TOP_K))


def test_options_that_contradict_the_model_are_refused():
    with pytest.raises(InputError, match="num_experts 8 contradicts model toy"):
        ImportOptions(num_experts=8, model="toy", shape=ModelShape(4, 16, 2))


def test_a_trace_of_our_own_that_assumed_its_experts_takes_the_models(tmp_path):
    write_trace(read(saved(tmp_path / "x.npy", routed())), tmp_path / "x.st")
    found = read(tmp_path / "x.st", model="toy", shape=ModelShape(LAYERS, 64, TOP_K))
    assert found.num_experts == 64
    assert not found.experts_assumed


def test_a_trace_of_our_own_is_settled_by_the_same_flags(tmp_path):
    write_trace(read(saved(tmp_path / "x.npy", fused())), tmp_path / "x.st")
    found = read(tmp_path / "x.st", shared_experts=(EXPERTS,), layers="1:3")
    assert tuple(found.shape) == (2, EXPERTS, TOP_K)
    assert found.provenance.layers == (1, 2) and not found.provenance.doubts


# layers


def test_layers_are_kept_by_the_files_numbers(tmp_path):
    path = rows(tmp_path / "x.jsonl", routed(), [3, 5, 6, 9])
    np.testing.assert_array_equal(read(path, layers="5,9:").experts, routed()[:, [1, 3]])
    assert read(path, layers=":6").provenance.layers == (3, 5)
    with pytest.raises(InputError, match=r"layers 0:3 are none of 3\.\.9"):
        read(path, layers="0:3")
    with pytest.raises(InputError, match="are no list of spans"):
        read(path, layers="first")


def test_files_of_different_layers_are_merged(tmp_path):
    paths = [rows(tmp_path / f"{at}.jsonl", routed()[:, [at]], [at]) for at in (2, 0, 1, 3)]
    found = import_traces(paths)
    np.testing.assert_array_equal(found.experts, routed())
    assert len(set(found.request.tolist())) == 1 and found.num_experts == EXPERTS


def test_files_of_one_layer_are_requests(tmp_path):
    paths = [
        rows(tmp_path / f"{seed}-{at}.jsonl", routed(seed=seed)[:, [at]], [at])
        for seed in (0, 1)
        for at in (0, 1)
    ]
    found = import_traces(paths)
    assert found.request.tolist() == [0] * TOKENS + [1] * TOKENS
    np.testing.assert_array_equal(found.experts[TOKENS:], routed(seed=1)[:, :2])


def test_ids_that_count_on_over_files_are_found_when_they_are_merged(tmp_path):
    paths = [
        rows(tmp_path / f"{at}.jsonl", routed()[:, [at]] + at * EXPERTS, [at]) for at in range(4)
    ]
    found = import_traces(paths)
    assert found.num_experts == EXPERTS
    np.testing.assert_array_equal(found.experts, routed())


@pytest.mark.parametrize(
    ("tokens", "layers", "message"),
    [
        (TOKENS - 1, [2, 3], "39 of layer 2, and they differ in tokens"),
        (TOKENS, [1, 2], "give files of the same layers or of different ones"),
    ],
)
def test_layers_that_do_not_go_together_are_refused(tokens, layers, message, tmp_path):
    one = rows(tmp_path / "a.jsonl", routed()[:, :2], [0, 1])
    other = rows(tmp_path / "b.jsonl", routed()[:tokens, 2:], layers)
    with pytest.raises(InputError, match=message):
        import_traces([one, other])


def test_the_user_says_what_files_are(tmp_path):
    paths = [saved(tmp_path / f"{at}.npy", routed()[:, [at]]) for at in range(4)]
    assert import_traces(paths).shape.num_layers == 1
    merged = import_traces(paths, ImportOptions(join="layers"))
    np.testing.assert_array_equal(merged.experts, routed())
    paths = [rows(tmp_path / f"{at}.jsonl", routed()[:, [at]], [at]) for at in range(2)]
    joined = import_traces(paths, ImportOptions(join="requests"))
    assert joined.num_tokens == 2 * TOKENS


def test_a_model_is_held_against_all_files_together(tmp_path):
    paths = [rows(tmp_path / f"{at}.jsonl", routed()[:, [at]], [at]) for at in range(4)]
    shape = ModelShape(LAYERS, 64, TOP_K)
    assert import_traces(paths, ImportOptions(model="toy", shape=shape)).shape == shape
    with pytest.raises(InputError, match="has 4 MoE layers"):
        import_traces(paths[:3], ImportOptions(model="toy", shape=shape))


def test_files_of_two_models_are_not_joined(tmp_path):
    paths = [rows(tmp_path / f"{name}.jsonl", routed(), list(range(LAYERS))) for name in ("a", "b")]
    for path in paths:
        facts = {"num_experts": EXPERTS, "model": f"model-{path.stem}"}
        path.write_text(json.dumps(facts) + "\n" + path.read_text())
    with pytest.raises(InputError, match=r"a\.jsonl is of model model-a, b\.jsonl of model-b"):
        import_traces(paths)
    assert import_traces(paths, ImportOptions(model="one")).provenance.model == "one"


def test_files_that_name_different_highest_ids_are_of_one_model(tmp_path):
    low, layers = np.broadcast_to([0, 3, 7], routed().shape), list(range(LAYERS))
    paths = [rows(tmp_path / f"{ids.max()}.jsonl", ids, layers) for ids in (low, routed())]
    assert import_traces(paths).num_experts == EXPERTS
