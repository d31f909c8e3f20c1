"""`specmd import`: every format becomes the same file, and nothing is lost or half-written."""

import json
from pathlib import Path

import numpy as np
import pytest

from specmd_jax.traces import Trace, import_trace, read_trace
from tests.cli.conftest import Specmd
from tests.helpers.recorded import FOLDER
from tests.traces.samples import EXPERTS, LAYERS, SAMPLES, TOKENS, TOP_K

ORIGINALS = sorted(
    path
    for path in FOLDER.glob("*/original/*")
    if path.suffix in (".json", ".jsonl", ".csv", ".txt")
)


def assert_same(one: Trace, other: Trace) -> None:
    for name in ("experts", "step", "request", "phase", "weights", "logits", "predicted"):
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name), err_msg=name)


@pytest.mark.parametrize("name", SAMPLES)
def test_every_format_becomes_a_file_of_our_own(specmd: Specmd, tmp_path: Path, name: str) -> None:
    source = SAMPLES[name](tmp_path)
    result = specmd("import", source, "-o", tmp_path / "out.st", "--json")
    assert (result.code, result.err) == (0, "")
    record = result.json
    assert record["output"] == str(tmp_path / "out.st")
    shape = [record[key] for key in ("tokens", "layers", "experts", "top_k")]
    assert shape == [TOKENS, LAYERS, EXPERTS, TOP_K]
    assert_same(read_trace(tmp_path / "out.st"), import_trace(source))


@pytest.mark.skipif(not ORIGINALS, reason="no recorded traces here")
@pytest.mark.parametrize("source", ORIGINALS, ids=lambda path: path.name)
def test_files_of_real_producers(specmd: Specmd, tmp_path: Path, source: Path) -> None:
    result = specmd("import", source, "-o", tmp_path / "out.st", "--json")
    assert result.code == 0
    assert result.json["tokens"] == read_trace(tmp_path / "out.st").num_tokens > 0


def test_the_card_says_what_was_read_and_what_was_assumed(specmd: Specmd, tmp_path: Path) -> None:
    table = tmp_path / "rows.csv"
    table.write_text("layer,expert\n0,1\n0,3\n1,0\n1,2\n")
    result = specmd("import", table, "-o", tmp_path / "out.st")
    assert (result.code, result.err) == (0, "")
    assert "2 layers x 4 experts, top-2" in result.out
    assert "1 (0 prefill), 1 pass, 1 request" in result.out
    assert "assumed" in result.out and "highest id + 1 = 4" in result.out


def test_what_the_file_does_not_say_can_be_given(specmd: Specmd, tmp_path: Path) -> None:
    source = SAMPLES["nvmoe"](tmp_path)
    flags = ("--num-experts", "64", "--model", "toy/moe", "--format", "nvmoe")
    record = specmd("import", source, "-o", tmp_path / "out.st", *flags, "--json").json
    assert record["experts"] == 64
    assert record["model"] == "toy/moe"
    assert not any("highest id" in note for note in record["notes"])


def test_sources_are_joined_as_requests_of_their_own(specmd: Specmd, tmp_path: Path) -> None:
    one, two = SAMPLES["nvmoe"](tmp_path), SAMPLES["swarm"](tmp_path)
    record = specmd("import", one, two, "-o", tmp_path / "out.st", "--json").json
    assert (record["requests"], record["tokens"]) == (2, 2 * TOKENS)
    joined = read_trace(tmp_path / "out.st")
    np.testing.assert_array_equal(joined.experts[:TOKENS], import_trace(one).experts)
    np.testing.assert_array_equal(joined.experts[TOKENS:], import_trace(two).experts)


def test_a_part_can_be_taken_and_regrouped(specmd: Specmd, folder: Path, tmp_path: Path) -> None:
    flags = ("--requests", "0:1", "--passes", "0:12", "--prefill-tokens", "5")
    record = specmd("import", folder / "full.st", "-o", tmp_path / "out.st", *flags, "--json").json
    assert (record["requests"], record["tokens"]) == (1, 12)
    assert (record["prefill_tokens"], record["passes"]) == (5, 8)
    assert set(record["records"]) == {"weights", "logits", "predicted"}


def test_a_trace_is_not_imported_onto_itself(specmd: Specmd, tmp_path: Path) -> None:
    path = SAMPLES["specmd"](tmp_path)
    before = path.read_bytes()
    result = specmd("import", path, "-o", path, "--force")
    assert (result.code, path.read_bytes()) == (2, before)
    assert "is read by this command" in result.err


def test_a_failed_import_leaves_the_old_file(specmd: Specmd, tmp_path: Path) -> None:
    path = SAMPLES["specmd"](tmp_path)
    before = path.read_bytes()
    assert specmd("import", SAMPLES["nvmoe"](tmp_path), "-o", path, "--top-k", "-1").code == 2
    assert path.read_bytes() == before


def test_a_known_model_is_held_against_the_file(specmd: Specmd, tmp_path: Path) -> None:
    source, out = SAMPLES["nvmoe"](tmp_path), tmp_path / "out.st"
    result = specmd("import", source, "-o", out, "--model", "olmoe-1b-7b-0924")
    assert result.code == 2 and not out.exists()
    assert "has 16 MoE layers of 64 experts, the trace 2 of" in result.err


def test_a_file_that_names_a_known_model_by_its_place_is_of_it(
    specmd: Specmd, tmp_path: Path
) -> None:
    ids = np.arange(4 * 16 * 8).reshape(4, 16, 8) % 48  # the last 16 of 64 experts are never named
    place = "/home/u/models/OLMoE-1B-7B-0924-Q4_K_M.gguf (GGUF)"
    rows = [
        {"token": token, "layer": layer, "experts": ids[token, layer].tolist()}
        for token in range(4)
        for layer in range(16)
    ]
    source = tmp_path / "x.jsonl"
    source.write_text("\n".join(map(json.dumps, [{"model": place}, *rows])))
    record = specmd("import", source, "-o", tmp_path / "out.st", "--json").json
    assert (record["model"], record["experts"]) == ("allenai/OLMoE-1B-7B-0924", 64)
    assert b"/home/u" not in (tmp_path / "out.st").read_bytes()


def test_doubts_are_shown_where_the_trace_is_used(specmd: Specmd, tmp_path: Path) -> None:
    ids = np.stack([np.arange(40) % 7, np.full(40, 7)], -1)[:, None].repeat(2, 1)
    np.save(tmp_path / "x.npy", ids)
    shown = specmd("import", tmp_path / "x.npy", "-o", tmp_path / "x.st")
    assert "in doubt" in shown.out and "--shared-experts 7" in " ".join(shown.out.split())
    run = specmd("simulate", tmp_path / "x.st", "--capacity", "8", "--no-regret", "--json").json
    assert any("--shared-experts 7" in warning for warning in run["warnings"])
    flags = ("--shared-experts", "7", "--json")
    settled = specmd("import", tmp_path / "x.st", "-o", tmp_path / "y.st", *flags).json
    assert (settled["experts"], settled["top_k"], settled["doubts"]) == (7, 1, [])
