"""No text from a file acts on the terminal; every terminal can be printed to."""

import io
import json
import os
import subprocess
import sys
import unicodedata
from pathlib import Path

import pytest
from rich.table import Table
from rich.text import Text
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace

from specmd_jax.cli import output
from specmd_jax.models import save_olmoe
from specmd_jax.report.demo_page import _page
from tests.cli.conftest import Specmd
from tests.models.small import CONFIG, small_decoder

HOSTILE = "[red]\x1b]0;PWN\x07\x1b[2J\x9b31m\u202e\u2066[/red]\ud800\nfake"
SHOWN = r"\x1b]0;PWN\x07\x1b[2J\x9b31m\u202e\u2066"
NAME = os.fsdecode(b"t\xff\x1b[31m.jsonl")


def assert_tame(text: str) -> None:
    """Nothing but printable characters and the ends of lines."""
    acting = {char for char in text if unicodedata.category(char) in ("Cc", "Cf", "Cs", "Zl", "Zp")}
    assert acting <= {"\n"}, acting


@pytest.fixture
def trace(tmp_path: Path) -> Path:
    """A recording that is hostile in its name, its model and its producer."""
    path = tmp_path / NAME
    lines = [{"num_experts": 8, "model": HOSTILE, "producer": HOSTILE, "licence": HOSTILE}]
    for token in range(12):
        lines.append(
            {"request": token // 6, "token": token % 6, "layer": 0, "experts": [token % 8]}
        )
    path.write_text("\n".join(map(json.dumps, lines)) + "\n")
    return path


def test_every_verb_that_reads_a_trace(specmd: Specmd, trace: Path, tmp_path: Path) -> None:
    kept = tmp_path / f"{NAME}.st"
    for command in (
        ("import", trace, "-o", kept),
        ("inspect", kept),
        ("simulate", kept, "--capacity", "25%"),
        ("sweep", kept, trace, "--capacity", "25%,50%", "-o", tmp_path / f"{NAME}.parquet"),
    ):
        result = specmd(*command)
        assert result.code == 0, result.err
        assert_tame(result.out)
        assert_tame(result.err)
        if command[0] in ("import", "simulate"):
            named = "".join(result.out.split())  # across the ends of lines
            assert f"[red]{SHOWN}" in named, "named all the same, as it is"
    machine = json.loads(specmd("simulate", kept, "--capacity", "25%", "--json").out)
    assert machine["model"].split() == HOSTILE.split(), "JSON holds it as it is"


def test_a_hostile_config(specmd: Specmd, tmp_path: Path) -> None:
    config = Path("specmd_jax/models/bundled/config.json")
    name = HOSTILE.replace("\ud800", "")  # which no config.json may hold
    values = json.loads(config.read_text()) | {"_name_or_path": name}
    (tmp_path / "config.json").write_text(json.dumps(values))
    result = specmd("predict", tmp_path / "config.json", "--hardware", "rtx-4090")
    assert result.code == 0, result.err
    assert_tame(result.out)
    assert SHOWN in "".join(result.out.split())


def test_a_hostile_tokenizer(specmd: Specmd, tmp_path: Path) -> None:
    save_olmoe(tmp_path, *small_decoder(), max_position_embeddings=40)
    words = {"the": 0} | {f"\x1b[{i}m\u202e\x07": i for i in range(1, CONFIG.spec.vocab_size)}
    tokenizer = Tokenizer(WordLevel(words, unk_token="the"))
    tokenizer.pre_tokenizer = Whitespace()
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    result = specmd(
        "generate", tmp_path, "--prompt", "the", "--capacity", "50%", "--max-tokens", "4"
    )
    assert result.code == 0, result.err
    assert_tame(result.out)
    assert r"\x1b[" in result.out and r"\u202e\x07" in result.out


@pytest.mark.parametrize(
    "command",
    ["{0}", "simulate {0}", "import {0} -o {0}", "list {0}", "predict {0} --hardware {0}"],
)
def test_complaints(specmd: Specmd, command: str) -> None:
    result = specmd(*(word.format("\x1b[2J\u202e\udcff") for word in command.split()))
    assert (result.code, result.out) == (2, "")
    assert len(result.err.splitlines()) == 1
    assert_tame(result.err)


def test_the_console_lets_nothing_through(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever a page forgets."""
    console = output.stdout()
    console.file = io.StringIO()
    table = Table(title=Text(HOSTILE))
    table.add_column(Text(HOSTILE))
    table.add_row(Text(HOSTILE))
    console.print(Text(HOSTILE), table)
    assert_tame(console.file.getvalue())


def test_the_page_of_a_demo() -> None:
    bad = f"<script>{HOSTILE}$\\frac$</script>"
    row = {"text": bad, "strategy": bad, "capacity": "25%", "same_text": False, "tpot_s": 1.0}
    row |= {"hit_rate": 0.5, "bytes_loaded": 1, "ttft_s": 1.0, "stall_s": 0.0}
    row |= {"capacity_slots": 1, "cycles": 1.0}
    exact = row | {"same_text": True}
    shown = {"prompt": bad, "experts": 8, "link_bytes_per_s": 1e9, "rows": [exact, row, exact]}
    page = _page(shown)
    assert_tame(page.replace("\t", ""))
    assert "<script>" not in page and SHOWN in page


@pytest.mark.parametrize(
    "variables",
    [
        {"PYTHONIOENCODING": "ascii"},
        {"LANG": "C", "LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"},
        {"TERM": "dumb", "NO_COLOR": "1"},
    ],
)
@pytest.mark.parametrize(
    "command",
    ["list hardware", "simulate --help", "predict specmd-none --hardware rtx-4090",
     "predict olmoe-1b-7b-0924 --hardware rtx-4090", "list policies"],
)  # fmt: skip
def test_plain_terminals(variables: dict[str, str], command: str) -> None:
    environment = os.environ | {"COLUMNS": "80"} | variables
    words = [sys.executable, "-m", "specmd_jax.cli", *command.split()]
    ended = subprocess.run(words, env=environment, capture_output=True)
    assert ended.returncode == (2 if "none" in command else 0), ended.stderr
    assert b"\x1b" not in ended.stdout + ended.stderr and b"Traceback" not in ended.stderr
    if "TERM" not in variables:
        assert (ended.stdout + ended.stderr).isascii()
        assert b"\\u" not in ended.stdout, "bars are drawn with what there is"
