"""`specmd quality`: one line for whatever is wrong; the table and JSON of a small model."""

from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
from tokenizers import Tokenizer, models, pre_tokenizers

from specmd_jax.models import save_olmoe
from tests.cli.conftest import Specmd
from tests.models.small import small_decoder


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("small")
    save_olmoe(folder, *small_decoder(), dtype=jnp.float32)
    tokenizer = Tokenizer(models.WordLevel({f"w{i}": i for i in range(64)}, unk_token="w0"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.save(str(folder / "tokenizer.json"))
    return folder


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("text") / "held-out.txt"
    path.write_text(" ".join(f"w{i * 7 % 64}" for i in range(60)))
    return path


def test_json_and_table_have_a_row_for_each_capacity(specmd: Specmd, model: Path, text: Path):
    flags = ("quality", model, "--text", text, "--length", 10, "--tokens", 20,
             "--miss", "drop-priority", "--capacity", "9,100%")  # fmt: skip
    result = specmd(*map(str, flags), "--json")
    assert (result.code, result.err) == (0, "")
    rows = result.json["rows"]
    assert [row["capacity"] for row in rows] == ["9", "100%"]
    assert all(row["tokens"] == 20 and row["label"] == "MEASURED, closed loop" for row in rows)
    assert rows[0]["hits"] < rows[1]["hits"]
    shown = specmd(*map(str, flags))
    assert "drop-priority" in shown.out and "100%" in shown.out and "…" not in shown.out


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        ("--eviction belady", "looks into the future"),
        ("--length 1", "--length 1 is out of range"),
        ("--length 4000", "60 tokens, and 4001 are read at a time"),
        ("--tokens 0", "--tokens 0 is out of range"),
        ("--capacity 5%,,9", "is no size"),
        ("--miss nothing", "no miss policy is called 'nothing'"),
        ("--precision bf16,int5", "int5"),
    ],
)
def test_a_slip_is_told_in_one_line(
    specmd: Specmd, model: Path, text: Path, flags: str, said: str
) -> None:
    result = specmd("quality", str(model), "--text", str(text), *flags.split())
    assert result.code == 2 and said in result.err and result.err.count("\n") == 1


def test_files_that_are_no_text(specmd: Specmd, model: Path, tmp_path: Path) -> None:
    pickled, binary, empty = tmp_path / "a.npy", tmp_path / "b.txt", tmp_path / "c.txt"
    np.save(pickled, np.array([{}], object), allow_pickle=True)
    binary.write_bytes(b"\xff\xfe\x00")
    empty.write_text("")
    cases = {
        pickled: "no .npy file of tokens",
        binary: "no UTF-8 text",
        empty: "is empty",
        tmp_path / "missing.txt": "cannot be read",
        tmp_path: "cannot be read",
    }
    for path, said in cases.items():
        result = specmd("quality", str(model), "--text", str(path))
        assert result.code == 2 and said in result.err and result.err.count("\n") == 1, result.err


def test_a_token_outside_the_vocabulary(specmd: Specmd, model: Path, tmp_path: Path) -> None:
    path = tmp_path / "tokens.npy"
    np.save(path, np.arange(400))
    result = specmd("quality", str(model), "--text", str(path), "--capacity", "9")
    assert result.code == 2 and "vocabulary" in result.err
