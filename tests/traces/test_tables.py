"""Tables as others write them: spellings, lists, rows inside records, restarts, two models."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from specmd_jax.core.errors import InputError
from specmd_jax.traces import DECODE, PREFILL, ImportOptions, Trace, import_trace

TOKENS, LAYERS = 5, 2


def ids() -> np.ndarray:
    token, layer, slot = np.indices((TOKENS, LAYERS, 3))
    return (3 * token + 2 * layer + np.array([0, 1, 5])[slot]) % 16


def written(path: Path, lines: list[Any]) -> Path:
    path.write_text("\n".join(one if isinstance(one, str) else json.dumps(one) for one in lines))
    return path


def read(path: Path, lines: list[Any], **options: Any) -> Trace:
    return import_trace(written(path / "x", lines), ImportOptions(**options))


def assert_ids(found: Trace, wanted: np.ndarray | None = None) -> None:
    np.testing.assert_array_equal(found.experts, ids() if wanted is None else wanted)


def cells() -> list[tuple[int, int, list[int]]]:
    return [(t, layer, ids()[t, layer].tolist()) for t in range(TOKENS) for layer in range(LAYERS)]


@pytest.mark.parametrize(
    "header",
    [
        "t,l,e",
        "tok,layer,topk_experts",
        "token_idx,layer_num,expert",
        "token,layer,expert_idx",
        "token_id,layer_id,expert_id",
        "Token Index,Layer,Expert ID",
        "tokenIdx,layerIdx,expertIdx",
        "pos,MoE_Layer,selected-expert",
        '"token","layer","expert"',
        "# token,layer,expert",
        "token_position, moe_layer_idx, routed_expert_id",
    ],
)
@pytest.mark.parametrize("delimiter", [",", "\t", ";"])
def test_a_column_is_known_by_its_words(header, delimiter, tmp_path):
    rows = [f"{t},{layer},{expert}" for t, layer, chosen in cells() for expert in chosen]
    lines = [line.replace(",", delimiter) for line in (header, *rows)]
    assert_ids(read(tmp_path, lines))


def test_numbers_may_be_written_as_floats(tmp_path):
    rows = [f"{t}.0,{layer}.0,{e}.0" for t, layer, chosen in cells() for e in chosen]
    assert_ids(read(tmp_path, ["token,layer,expert", *rows]))
    records = [{"token": float(t), "layer": layer, "experts": e} for t, layer, e in cells()]
    assert_ids(read(tmp_path, records))
    with pytest.raises(InputError, match="expected a whole number"):
        read(tmp_path, ["token,layer,expert", "0,0,1.5"])


LISTS = (
    "[{0} {1} {2}]",
    "[{0}, {1}, {2}]",
    "({0}, {1}, {2})",
    "{0} {1} {2}",
    "{0}|{1}|{2}",
    "array([{0}, {1}, {2}], dtype=int32)",
    "[{0}\n {1} {2}]",
    "[{0}. {1}. {2}.]",
)


@pytest.mark.parametrize("spelling", LISTS)
def test_a_cell_may_hold_a_list(spelling, tmp_path):
    rows = [f'{layer},{t},"{spelling.format(*e)}","[0.5 0.3 0.2]"' for t, layer, e in cells()]
    found = read(tmp_path, ["layer,token,expert_ids,expert_weights", *rows])
    assert_ids(found)
    assert found.weights is not None
    np.testing.assert_allclose(found.weights[0, 0], [0.5, 0.3, 0.2], rtol=1e-6)


@pytest.mark.parametrize(
    "header",
    [
        "# token_id,layer_id,expert_0,...,expert_k",
        "token,layer,expert_0,expert_1,expert_2",
        "token,layer,e0,e1,e2",
    ],
)
def test_each_slot_may_have_a_column(header, tmp_path):
    rows = [f"{t},{layer},{','.join(map(str, e))}" for t, layer, e in cells()]
    assert_ids(read(tmp_path, ["# recorded today", header, *rows]))


def test_weights_may_have_columns_too(tmp_path):
    rows = [f"{t},{layer},{e[0]},0.75,{e[1]},0.25" for t, layer, e in cells()]
    found = read(tmp_path, ["token,layer,expert_0,weight_0,expert_1,weight_1", *rows])
    assert_ids(found, ids()[:, :, :2])
    assert found.weights is not None and found.weights[0, 0].tolist() == [0.75, 0.25]


def test_a_first_line_may_say_anything(tmp_path):
    meta = {"type": "meta", "model_id": "org/m", "layers_logged": [3], "top_k": 3}
    rows = [
        {"type": "route", "req_id": "r", "token_idx": t, "layer": 3, "topk_ids": e}
        | {"topk_weights": [0.5, 0.3, 0.2]}
        for t, layer, e in cells()
        if layer == 0
    ]
    found = read(tmp_path, [meta, *rows])
    assert_ids(found, ids()[:, :1])
    assert found.provenance.model == "org/m" and found.provenance.layers == (3,)


def test_a_text_of_the_token_is_no_place(tmp_path):
    rows = [{"token": " the", "pos": t, "layer": layer, "experts": e} for t, layer, e in cells()]
    assert_ids(read(tmp_path, rows))
    rows = [{"token_id": 77 - t, "position": t, "layer": n, "experts": e} for t, n, e in cells()]
    assert_ids(read(tmp_path, rows))


def nested() -> list[dict[str, Any]]:
    return [
        {"layer": layer, "token_idx": t, "expert_idx": expert, "gate_weight": 0.5}
        for t, layer, chosen in cells()
        for expert in chosen
    ]


def test_rows_may_lie_in_a_record(tmp_path):
    record = {"model_id": "m/a", "num_experts": 16, "token_ids": [1], "activations": nested()}
    found = read(tmp_path, [record])
    assert_ids(found)
    assert (found.provenance.model, found.num_experts) == ("m/a", 16)
    assert found.weights is not None
    two = read(tmp_path, [record, record])
    assert two.request.tolist() == [0] * TOKENS + [1] * TOKENS
    assert not two.provenance.doubts


@pytest.mark.parametrize("indent", [None, 1])
def test_a_file_may_be_one_value(indent, tmp_path):
    tokens = [
        {"token": t, "layers": [{"layer": n, "experts": ids()[t, n].tolist()} for n in range(2)]}
        for t in range(TOKENS)
    ]
    for value in ({"num_experts": 16, "tokens": tokens}, tokens, nested()):
        assert_ids(read(tmp_path, [json.dumps(value, indent=indent)]))


# a table that is nearly right


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("token,layer,who", r"no column of experts .*: the columns are token, layer, who"),
        ("token,expert", r"no column of layer \(layer, layer_id\): the columns are token, expert"),
        ("layer,expert,time", r"no column of token .*: the columns are layer, expert, time"),
        ("token,position,layer,expert", "token and position mean the same, token: rename"),
        ({"token": 0, "layer": 1, "who": 2}, r"no column of experts .* token, layer, who"),
    ],
)
def test_what_is_missing_is_named_with_what_is_there(line, message, tmp_path):
    with pytest.raises(InputError, match=message):
        read(tmp_path, [line, "0,0,1"] if isinstance(line, str) else [line])


@pytest.mark.parametrize(
    "lines",
    [
        [{"source": "c.npz", "layers": {"0": {"ranked": [3, 1, 2], "counts": [9, 5, 2]}}}],
        [{"model": "m", "num_experts": 4, "layers": {"0": {"hits": [9, 5, 2, 0]}}}],
        ["layer,expert,count", "0,3,9"],
    ],
)
def test_counts_are_told_from_traces(lines, tmp_path):
    with pytest.raises(InputError, match="counts and rankings hold no order"):
        read(tmp_path, lines)


def test_an_array_of_counts_is_told_from_a_trace(tmp_path):
    np.save(tmp_path / "counts.npy", np.ones((4, 16), np.int64))
    with pytest.raises(InputError, match="counts and rankings hold no order"):
        import_trace(tmp_path / "counts.npy")


# rows of two models


def of_models(*models: str) -> list[dict[str, Any]]:
    return [
        {"model": model, "request": "r", "token": t, "layer": n, "experts": e}
        for t, n, e in cells()
        for model in models
    ]


def test_rows_of_two_models_are_named_and_told_apart(tmp_path):
    rows = of_models("org/model-a", "/m/Model-B-Q4_K_M.gguf")
    with pytest.raises(InputError, match=r"rows of 2 models: org/model-a \(10\), /m/Model-B.*10"):
        read(tmp_path, rows)
    with pytest.raises(InputError, match="rows of 2 models"):
        read(tmp_path, rows, model="model-c")
    for name in ("org/model-a", "model-a", "Model-B"):
        found = read(tmp_path, rows, model=name)
        assert_ids(found)
        assert found.provenance.model == name


def test_a_second_heading_is_of_a_second_model(tmp_path):
    rows = [{"token": t, "layer": n, "experts": e} for t, n, e in cells()]
    with pytest.raises(InputError, match="rows of 2 models: a"):
        read(tmp_path, [{"model": "a"}, *rows, {"model": "b"}, *rows])


# token indices that begin anew


def restarting(lengths: tuple[int, ...], **facts: Any) -> tuple[list[dict[str, Any]], np.ndarray]:
    """Stretches of so many tokens, and the ids of all tokens in order."""
    total = np.arange(sum(lengths))[:, None, None]
    chosen = (3 * total + 2 * np.arange(LAYERS)[:, None] + np.array([0, 1, 5])) % 16
    index = [token for length in lengths for token in range(length)]
    rows = [
        {"token_idx": token, "layer": layer, "topk_ids": chosen[at, layer].tolist()} | facts
        for at, token in enumerate(index)
        for layer in range(LAYERS)
    ]
    return rows, chosen


def test_an_index_that_begins_anew_in_a_request_opens_a_pass(tmp_path):
    rows, chosen = restarting((4, 1, 1), req_id="r")
    found = read(tmp_path, rows)
    assert_ids(found, chosen)
    assert found.step.tolist() == [0, 0, 0, 0, 1, 2]
    assert found.phase.tolist() == [PREFILL] * 4 + [DECODE] * 2
    assert set(found.request.tolist()) == {0}
    (doubt,) = found.provenance.doubts
    assert "--restarts request" in doubt
    assert not read(tmp_path, rows, restarts="pass").provenance.doubts


def test_an_index_that_begins_anew_without_a_request_opens_one(tmp_path):
    rows, chosen = restarting((3, 2))
    found = read(tmp_path, rows)
    assert_ids(found, chosen)
    assert found.request.tolist() == [0, 0, 0, 1, 1]
    assert found.num_passes == 5
    assert "--restarts pass" in found.provenance.doubts[0]


def test_rows_that_were_sorted_by_token_are_read_all_the_same(tmp_path):
    rows, chosen = restarting((4, 4, 4), req_id="r")
    rows.sort(key=lambda row: (row["token_idx"], row["layer"]))
    found = read(tmp_path, rows)
    assert_ids(found, chosen)
    assert found.step.tolist() == [0] * 4 + [1] * 4 + [2] * 4


def test_rows_layer_by_layer_begin_anew_too(tmp_path):
    rows, chosen = restarting((3, 3), req_id="r")
    by_pass = [sorted(part, key=lambda row: row["layer"]) for part in (rows[:6], rows[6:])]
    assert_ids(read(tmp_path, [row for part in by_pass for row in part]), chosen)


def test_steps_tell_passes_where_the_index_begins_anew(tmp_path):
    rows, chosen = restarting((2, 2, 1))
    steps = [0] * 4 + [1] * 4 + [2] * 2
    found = read(tmp_path, [row | {"step": at} for row, at in zip(rows, steps, strict=True)])
    assert_ids(found, chosen)
    assert found.step.tolist() == [0, 0, 1, 1, 2]
    assert not found.phase.any()


def test_rows_of_one_expert_may_begin_anew(tmp_path):
    rows, chosen = restarting((3, 2), request=1)
    single = [
        {k: v for k, v in row.items() if k != "topk_ids"} | {"expert": expert}
        for row in rows
        for expert in row["topk_ids"]
    ]
    assert_ids(read(tmp_path, single), chosen)


def test_an_index_that_falls_elsewhere_needs_a_word(tmp_path):
    rows, chosen = restarting((4,))
    moved = rows[:6] + rows[2:4] + rows[6:]
    with pytest.raises(InputError, match=r"line 7: token 1 .* twice.*--restarts request"):
        read(tmp_path, moved)
    assert read(tmp_path, moved, restarts="request").num_tokens == 5
    out_of_order = rows[:2] + rows[4:6] + rows[2:4]
    with pytest.raises(InputError, match="token 1 comes after 2: sort the rows by token, or give"):
        read(tmp_path, out_of_order)
    assert_ids(read(tmp_path, sorted(out_of_order, key=lambda row: row["token_idx"])), chosen[:3])
