"""Every format gives the trace it was recorded from; every original gives its trace.npz."""

import json
import os
from pathlib import Path

import numpy as np
import pytest

from specmd_jax.core.errors import InputError
from specmd_jax.traces import (
    IMPORTERS,
    PAD,
    PREFILL,
    ImportOptions,
    import_trace,
    slice_requests,
    write_trace,
)
from tests.traces.samples import (
    EXPERTS,
    PROMPT,
    SAMPLES,
    TOKENS,
    ids,
    policylang_entries,
    sglang_records,
    torch_bytes,
    trace,
)

SHARED = Path(os.environ.get("SPECMD_RECORDINGS", Path(__file__).parents[2] / ".." / "shared"))
ORIGINALS = SHARED / "traces"

WITH_PHASES = (
    "specmd",
    "npz",
    "bigmoe",
    "cache-lab",
    "policylang",
    "megatron",
    "vllm npz",
    "sglang",
    "llama.cpp",
    "colibri",
    "table",
)
WITH_WEIGHTS = ("specmd", "npz", "bigmoe", "cache-lab", "policylang", "esft", "colibri", "table")
REQUESTS = {"esft": [0, 0, 0, 0, 1, 1], "vllm folder": [0, 0, 0, 1, 1, 1]}

needs_originals = pytest.mark.skipif(not ORIGINALS.is_dir(), reason="shared traces are absent")


@pytest.mark.parametrize("name", SAMPLES)
def test_every_format_gives_the_trace_it_was_recorded_from(name, tmp_path):
    found, recorded = import_trace(SAMPLES[name](tmp_path)), trace()
    assert found.num_experts == EXPERTS
    np.testing.assert_array_equal(found.experts, recorded.experts)
    assert found.request.tolist() == REQUESTS.get(name, [0] * TOKENS)
    if name.startswith(WITH_PHASES):
        np.testing.assert_array_equal(found.step, recorded.step)
        np.testing.assert_array_equal(found.phase, recorded.phase)
    else:
        assert found.step.tolist() == list(range(TOKENS))
        assert not found.phase.any()
    if name.startswith(WITH_WEIGHTS):
        assert found.weights is not None and recorded.weights is not None
        np.testing.assert_array_equal(found.weights, recorded.weights)
    else:
        assert found.weights is None


@pytest.mark.parametrize("name", SAMPLES)
def test_a_file_is_recognised_by_content(name, tmp_path):
    path = SAMPLES[name](tmp_path)
    if path.is_file() and name != "npz":  # npz has meta.json beside it
        path = path.rename(tmp_path / "renamed")
    format_name = max((known for known in IMPORTERS if name.startswith(known)), key=len)
    explicit = import_trace(path, ImportOptions(format=format_name))
    np.testing.assert_array_equal(import_trace(path).experts, explicit.experts)
    head = b"" if path.is_dir() else path.read_bytes()[: 1 << 16]
    first = next(known for known, module in IMPORTERS.items() if module.detect(head, path))
    assert first == format_name


def test_importers_describe_themselves_in_one_line():
    for name, module in IMPORTERS.items():
        assert name == module.NAME
        assert 0 < len(module.DESCRIPTION) <= 100
        assert "\n" not in module.DESCRIPTION


def test_options_go_before_the_file(tmp_path):
    options = ImportOptions(num_experts=64, model="other/model")
    found = import_trace(SAMPLES["nvmoe"](tmp_path), options)
    assert found.num_experts == 64
    assert found.provenance.model == "other/model"
    assert not any("highest id" in note for note in found.provenance.notes)


def test_an_assumed_number_of_experts_is_noted(tmp_path):
    found = import_trace(SAMPLES["nvmoe"](tmp_path))
    assert any("highest id + 1 = 8" in note for note in found.provenance.notes)


def test_bigmoe_pads_the_last_layer_of_a_prefill(tmp_path):
    path = SAMPLES["bigmoe"](tmp_path)
    last = f"0,0,{PROMPT - 1},1,"  # of the prompt, llama.cpp computes only the last token there
    kept = [
        line
        for line in path.read_text().splitlines()
        if not line.startswith("0,0,") or line.split(",")[3] == "0" or line.startswith(last)
    ]
    path.write_text("\n".join(kept))
    found = import_trace(path)
    assert (found.experts[: PROMPT - 1, 1] == PAD).all()
    assert found.weights is not None
    assert not found.weights[: PROMPT - 1, 1].any()
    np.testing.assert_array_equal(found.experts[PROMPT - 1 :], ids()[PROMPT - 1 :])
    assert any("2 prompt tokens" in note for note in found.provenance.notes)


def test_llama_cpp_gives_a_short_last_layer_to_the_last_prompt_tokens(tmp_path):
    path = SAMPLES["llama.cpp"](tmp_path)
    rows = path.read_text().splitlines()
    last_layer = 1 + 2 * PROMPT  # the header, then layer 0 of the prompt
    path.write_text("\n".join(rows[:last_layer] + rows[last_layer + 2 * (PROMPT - 1) :]))
    found = import_trace(path)
    assert (found.experts[: PROMPT - 1, 1] == PAD).all()
    np.testing.assert_array_equal(found.experts[PROMPT - 1 :], ids()[PROMPT - 1 :])


def test_weights_that_no_node_showed_are_not_zero(tmp_path):
    path = SAMPLES["bigmoe"](tmp_path)
    path.write_text(path.read_text().replace("0.75", "nan").replace("0.25", "nan"))
    assert import_trace(path).weights is None


def test_model_layers_are_noted_where_dense_ones_are_left_out(tmp_path):
    path = tmp_path / "pairs.jsonl"
    path.write_text("[[3, 0], [3, 1], [5, 1], [5, 2]]\n")
    found = import_trace(path)
    assert found.shape.num_layers == 2
    assert "MoE layers 0..1 are model layers 3, 5" in found.provenance.notes


def test_vllm_leaves_out_dense_layers(tmp_path):
    experts = np.insert(ids(), 0, 0, axis=1)
    np.save(tmp_path / "request.npy", experts)
    np.testing.assert_array_equal(import_trace(tmp_path / "request.npy").experts, ids())


def test_sglang_maps_physical_experts_back(tmp_path):
    table = np.tile(np.arange(EXPERTS)[::-1], (3, 1)).astype(np.int64)
    path = tmp_path / "recorder.pt"
    saved = {"records": sglang_records(), "last_physical_to_logical_map": table}
    path.write_bytes(torch_bytes(saved))
    np.testing.assert_array_equal(import_trace(path).experts, EXPERTS - 1 - ids())


def test_sglang_counts_become_tokens_with_the_same_counts(tmp_path):
    records = [
        {"global_physical_count": record["global_physical_count"][1:]}
        for record in sglang_records()
    ]
    path = tmp_path / "per_pass.pt"
    path.write_bytes(torch_bytes({"records": records}))
    found = import_trace(path, ImportOptions(top_k=2, num_experts=EXPERTS))
    assert found.num_passes == len(records)
    for number, record in enumerate(records):
        chosen = found.experts[found.step == number]
        counts = [np.bincount(layer.ravel(), minlength=EXPERTS) for layer in chosen.swapaxes(0, 1)]
        np.testing.assert_array_equal(counts, record["global_physical_count"])


def test_sglang_adds_up_the_counts_of_copies(tmp_path):
    counts = np.array([[1, 1, 0, 2], [2, 0, 1, 1]], np.int32)
    table = np.array([[0, 1, 2, 0], [0, 1, 2, 1]])
    path = tmp_path / "per_pass.pt"
    records = [{"global_physical_count": counts}]
    path.write_bytes(torch_bytes({"records": records, "last_physical_to_logical_map": table}))
    found = import_trace(path, ImportOptions(top_k=1))
    assert sorted(found.experts[:, 0, 0]) == [0, 0, 0, 1]
    assert sorted(found.experts[:, 1, 0]) == [0, 0, 1, 2]


def test_sglang_follows_requests_by_position(tmp_path):
    records = sglang_records()
    second = dict(records[0], positions=[0, 1, 2])
    both = dict(
        records[1],
        positions=[PROMPT, PROMPT],
        topk_ids_of_layer=np.repeat(records[1]["topk_ids_of_layer"], 2, axis=1),
    )
    path = tmp_path / "recorder.pt"
    path.write_bytes(torch_bytes({"records": [records[0], second, both]}))
    assert import_trace(path).request.tolist() == [0, 0, 0, 1, 1, 1, 0, 1]


def test_policylang_logits_are_the_logarithm_of_the_softmax(tmp_path):
    found = import_trace(SAMPLES["policylang"](tmp_path))
    assert found.logits is not None
    softmax = np.array([entry["sm"] for entry in policylang_entries() if entry["l"] == 0])
    np.testing.assert_allclose(np.exp(found.logits[:, 0]), softmax, rtol=1e-6)


def test_policylang_takes_experts_from_a_softmax_alone(tmp_path):
    header = {"model_name": "toy", "num_experts": EXPERTS, "num_entries": 12}
    entries = [{key: entry[key] for key in ("p", "t", "l", "sm")} for entry in policylang_entries()]
    path = tmp_path / "old.jsonl"
    path.write_text("\n".join(json.dumps(record) for record in (header, *entries)))
    np.testing.assert_array_equal(import_trace(path, ImportOptions(top_k=2)).experts, ids())
    with pytest.raises(InputError, match="give top-k"):
        import_trace(path)


def test_megatron_joins_data_parallel_ranks_and_drops_copies(tmp_path):
    text = SAMPLES["megatron"](tmp_path).read_text()
    other = text.replace('"rank": 0', '"rank": 1')
    (tmp_path / "router_trace_rank1.jsonl").write_text(other)
    found = import_trace(tmp_path)
    assert found.num_tokens == TOKENS
    assert "rank 1 repeats rank 0: left out" in found.provenance.notes
    changed = other.replace("[0, 5]", "[1, 5]")
    (tmp_path / "router_trace_rank1.jsonl").write_text(changed)
    found = import_trace(tmp_path)
    assert found.num_tokens == 2 * TOKENS
    assert found.num_passes == trace().num_passes
    np.testing.assert_array_equal(slice_requests(found, [0]).experts, ids())


def test_cache_lab_reads_the_decoder_and_pads_what_is_unassigned(tmp_path):
    path = SAMPLES["cache-lab v2"](tmp_path)
    first, *events = [json.loads(line) for line in path.read_text().splitlines()]
    first["routing_stages"].insert(0, dict(first["routing_stages"][0], routing_stage="encoder"))
    encoder = dict(events[0], routing_stage="encoder", phase="source")
    events[-1] |= {
        "assignment_state": "unassigned",
        "unassigned_reason": "capacity",
        "selected_experts": [],
        "selected_probabilities": [],
    }
    path.write_text("\n".join(map(json.dumps, (first, encoder, *events))))
    found = import_trace(path)
    assert (found.experts[-1, -1] == PAD).all()
    np.testing.assert_array_equal(found.experts[:-1], ids()[:-1])
    assert "1 selections of the encoder left out" in found.provenance.notes


def test_colibri_without_advancing_calls_is_read_by_layer(tmp_path):
    path = SAMPLES["colibri"](tmp_path)
    lines = [line.split(" ", 1)[1] for line in path.read_text().splitlines()]
    path.write_text("\n".join(f"0 {line}" for line in lines))
    np.testing.assert_array_equal(import_trace(path).step, trace().step)


def test_a_table_with_steps_shared_by_requests_is_batched(tmp_path):
    path = tmp_path / "batched.csv"
    rows = ["req,step,layer,experts"] + [
        f"{r},{s},{layer},{r} {s + 4}" for s in range(3) for layer in range(2) for r in range(2)
    ]
    path.write_text("\n".join(rows))
    found = import_trace(path)
    assert found.step.tolist() == [0, 0, 1, 1, 2, 2]
    assert found.request.tolist() == [0, 1, 0, 1, 0, 1]


def test_a_table_whose_steps_begin_anew_is_not(tmp_path):
    path = tmp_path / "one_by_one.csv"
    rows = ["req;ignored,step,layer,experts", "req,step,layer,experts"][1:]
    rows += [
        f"{r},{s},0,[{r}, {s + 4}]".replace("[", '"[').replace("]", ']"')
        for r in range(2)
        for s in range(3)
    ]
    path.write_text("\n".join(rows))
    found = import_trace(path)
    assert found.step.tolist() == list(range(6))
    assert found.request.tolist() == [0, 0, 0, 1, 1, 1]


def test_a_table_may_be_ragged(tmp_path):
    path = tmp_path / "ragged.jsonl"
    records = [{"token": t, "layer": 0, "experts": list(range(t + 1))} for t in range(3)]
    path.write_text("\n".join(map(json.dumps, records)))
    assert import_trace(path).experts[:, 0].tolist() == [[0, -1, -1], [0, 1, -1], [0, 1, 2]]


def _npz(folder):
    return import_trace(ORIGINALS / folder)


def _same_sets(found, wanted):
    np.testing.assert_array_equal(np.sort(found, axis=-1), np.sort(wanted, axis=-1))


@needs_originals
def test_the_swarm_original_equals_its_first_request():
    found = import_trace(ORIGINALS / "olmoe-sampled" / "original" / "expert_indices.json")
    wanted = slice_requests(_npz("olmoe-sampled"), [0])
    _same_sets(found.experts, wanted.experts)
    assert found.num_experts == wanted.num_experts
    assert found.provenance.model == wanted.provenance.model


@needs_originals
def test_the_grouped_nf4_original_equals_its_first_request():
    found = import_trace(ORIGINALS / "granite-3b-loops" / "original" / "granite_code.jsonl")
    wanted = slice_requests(_npz("granite-3b-loops"), [0])
    _same_sets(found.experts, wanted.experts)
    assert found.num_experts == wanted.num_experts


@needs_originals
def test_the_esft_original_equals_two_layers():
    found = import_trace(ORIGINALS / "deepseek-v2-lite-intent" / "original")
    wanted = _npz("deepseek-v2-lite-intent")
    _same_sets(found.experts, wanted.experts[:, :2])
    np.testing.assert_array_equal(found.request, wanted.request)
    assert found.weights is not None and wanted.weights is not None
    np.testing.assert_allclose(found.weights, wanted.weights[:, :2], atol=3e-4)


@needs_originals
def test_the_bigmoe_original_equals_its_trace_with_its_prefill():
    found = import_trace(ORIGINALS / "gemma-4-26b-a4b-phone" / "original" / "gemma.route.csv")
    wanted = _npz("gemma-4-26b-a4b-phone")
    _same_sets(found.experts, wanted.experts)
    assert found.weights is not None and wanted.weights is not None
    np.testing.assert_allclose(found.weights, wanted.weights, atol=5e-4)
    assert found.num_experts == wanted.num_experts
    assert int((found.phase == PREFILL).sum()) == 29
    assert found.num_passes == 157 - 29 + 1
    assert found.expert_bytes is not None
    assert sorted(set(found.expert_bytes.tolist())) == [3593216, 4336640]


@needs_originals
def test_the_nvmoe_original_has_whole_tokens():
    """The file is of a run that trace.npz does not hold, so its lines are compared themselves."""
    path = ORIGINALS / "olmoe-workloads" / "original" / "olmoe-smoke.jsonl"
    found = import_trace(path)
    pairs = [json.loads(line) for line in path.read_text().splitlines()]
    by_token = np.array(pairs).reshape(len(pairs), 16, 8, 2)
    assert (by_token[..., 0] == np.arange(16)[:, None]).all()
    np.testing.assert_array_equal(found.experts, by_token[..., 1])


@needs_originals
@pytest.mark.parametrize(
    "folder",
    [path.name for path in sorted(ORIGINALS.glob("*/trace.npz")) for path in [path.parent]],
)
def test_every_shared_trace_survives_the_round_trip(folder, tmp_path):
    found = _npz(folder)
    write_trace(found, tmp_path / "trace.safetensors")
    again = import_trace(tmp_path / "trace.safetensors")
    np.testing.assert_array_equal(again.experts, found.experts)
    assert again.provenance == found.provenance
