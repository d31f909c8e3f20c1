"""Layers that tokens lack: prompts that an engine cuts short, draft heads, damaged files."""

import json
from pathlib import Path

import numpy as np
import pytest

from specmd_jax.core.errors import InputError
from specmd_jax.traces import DECODE, PAD, PREFILL, ImportOptions, Trace, import_trace
from tests.traces.samples import SAMPLES, ids

LAYERS, TOKENS, PROMPT = 3, 8, 5


def chosen(token: int, layer: int) -> list[int]:
    return [(token + layer) % 8, (token + layer + 3) % 8]


def written(path: Path, reach: dict[int, int], requests: int = 1) -> Path:
    """A table whose tokens have as many layers as `reach` says, else all."""
    records = [
        {"request": request, "token": token, "layer": layer, "experts": chosen(token, layer)}
        for request in range(requests)
        for token in range(TOKENS)
        for layer in range(reach.get(token, LAYERS))
    ]
    if path.suffix == ".csv":
        lines = ["request,token,layer,expert"] + [
            f"{record['request']},{record['token']},{record['layer']},{expert}"
            for record in records
            for expert in record["experts"]
        ]
    else:
        lines = [json.dumps(record) for record in records]
    path.write_text("\n".join(lines))
    return path


def assert_padded(found: Trace, requests: int = 1) -> None:
    wanted = [[chosen(token, layer) for layer in range(LAYERS)] for token in range(TOKENS)]
    experts = np.array(wanted * requests)
    short = np.tile(np.arange(TOKENS) < PROMPT - 1, requests)
    assert (found.experts[short, -1] == PAD).all()
    np.testing.assert_array_equal(found.experts[:, :-1], experts[:, :-1])
    np.testing.assert_array_equal(found.experts[~short], experts[~short])


SHORT = dict.fromkeys(range(PROMPT - 1), LAYERS - 1)


@pytest.mark.parametrize("name", ["x.csv", "x.jsonl"])
@pytest.mark.parametrize("requests", [1, 2])
def test_a_prompt_that_stops_before_the_last_layer_is_padded_and_said(name, requests, tmp_path):
    found = import_trace(written(tmp_path / name, SHORT, requests))
    assert_padded(found, requests)
    assert any("do not reach the last layer" in note for note in found.provenance.notes)
    prompt = [PREFILL] * PROMPT + [DECODE] * (TOKENS - PROMPT)
    assert found.phase.tolist() == prompt * requests
    assert found.num_passes == requests * (1 + TOKENS - PROMPT)


def test_passes_that_the_file_states_stay(tmp_path):
    path = written(tmp_path / "x.jsonl", SHORT)
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    path.write_text("\n".join(json.dumps(line | {"step": line["token"] // 2}) for line in lines))
    found = import_trace(path)
    assert_padded(found)
    assert found.num_passes == TOKENS // 2
    assert not found.phase.any()


def test_every_format_of_rows_pads_the_last_layer(tmp_path):
    """moe-policylang without phases: the prompt is told from where the last layer begins."""
    path = SAMPLES["policylang"](tmp_path)
    header, *entries = [json.loads(line) for line in path.read_text().splitlines()]
    kept = [entry for entry in entries if entry["l"] == 0 or entry["t"] >= 2]
    for entry in kept:
        del entry["ph"]
    lines = [header | {"num_entries": len(kept)}, *kept]
    path.write_text("\n".join(map(json.dumps, lines)))
    found = import_trace(path)
    assert (found.experts[:2, 1] == PAD).all()
    np.testing.assert_array_equal(found.experts[2:], ids()[2:])
    assert found.phase.tolist() == [PREFILL] * 3 + [DECODE] * 3


def test_a_draft_head_is_named_and_left_out_as_told(tmp_path):
    path = written(tmp_path / "x.jsonl", {t: LAYERS - 1 for t in range(TOKENS) if t % 4 != 1})
    with pytest.raises(InputError, match="layer 2 has experts for 2 of 8 tokens") as caught:
        import_trace(path)
    assert "--layers 0:2 leaves it out" in str(caught.value)
    found = import_trace(path, ImportOptions(layers="0:2"))
    assert found.shape.num_layers == 2 and found.num_tokens == TOKENS


def test_tokens_of_a_draft_head_alone_go_with_it(tmp_path):
    path = written(tmp_path / "x.jsonl", {})
    extra = {"request": 0, "token": TOKENS, "layer": 9, "experts": [0, 1]}
    path.write_text(path.read_text() + "\n" + json.dumps(extra))
    with pytest.raises(InputError, match="--layers 0:3 leaves it out"):
        import_trace(path)
    assert import_trace(path, ImportOptions(layers="0:3")).num_tokens == TOKENS


def test_a_file_that_is_cut_off_is_not_padded(tmp_path):
    path = written(tmp_path / "x.jsonl", {TOKENS - 1: LAYERS - 1})
    with pytest.raises(InputError, match=r"has no experts at layer 2.*was the file cut off"):
        import_trace(path)
