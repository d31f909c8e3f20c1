"""`specmd record`: from a file of prompts to a trace that every other verb reads.

Takes about 30 s.
"""

import hashlib
import json
from importlib import resources
from pathlib import Path

import numpy as np
import pytest
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace

from specmd_jax.models import save_olmoe
from specmd_jax.runtime.record import record as recording
from specmd_jax.traces import PREFILL, read_trace
from tests.cli.conftest import Specmd
from tests.models.small import CONFIG, small_decoder

WORDS = ["<unk>", "the", "cat", "sat", "on", "a", "mat", "and", "dog", "ran"]
PROMPTS = ["the cat sat on a mat", "a dog ran", "the dog and the cat ran"]
CONTEXT = 40
BUNDLED = resources.files("specmd_jax.models") / "bundled" / "model.safetensors"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of random weights with a tokenizer of a few words."""
    folder = tmp_path_factory.mktemp("model")
    save_olmoe(folder, *small_decoder(), max_position_embeddings=CONTEXT)
    words = WORDS + [f"word{i}" for i in range(CONFIG.spec.vocab_size - len(WORDS))]
    tokenizer = Tokenizer(WordLevel({word: i for i, word in enumerate(words)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = Whitespace()
    tokenizer.save(str(folder / "tokenizer.json"))
    return folder


@pytest.fixture
def prompts(tmp_path: Path) -> Path:
    path = tmp_path / "prompts.txt"
    path.write_text("\n".join([*PROMPTS, "", "   "]))
    return path


def test_the_other_verbs_read_what_it_wrote(
    specmd: Specmd, model: Path, prompts: Path, tmp_path: Path
) -> None:
    trace = tmp_path / "trace.st"
    flags = ("--max-tokens", "6", "--batch", "3", "--scores", "--lookahead", "2", "--json")
    result = specmd("record", model, "--prompts", prompts, "-o", trace, *flags)
    assert (result.code, result.err) == (0, "")
    made = result.json
    assert made["label"] == "MEASURED" and made["seconds"] > 0 and made["recorded_tokens_per_s"] > 0
    assert (made["requests"], made["passes"]) == (3, 6)
    assert (made["prefill_tokens"], made["tokens"]) == (15, 15 + 3 * 5)
    assert (made["layers"], made["experts"], made["top_k"], made["lookahead"]) == (3, 8, 3, 2)
    assert set(made["records"]) == {"weights", "logits", "predicted", "expert_bytes"}

    recall = specmd("inspect", trace, "--json").json["facts"]["foreseen_recall"]
    assert len(recall) == 2 and all(0 < share <= 1 for share in recall)
    flags = ("--prefetch", "next-gate", "--lookahead", "2", "--capacity", "50%", "--json")
    foreseen = specmd("simulate", trace, *flags)
    assert foreseen.json["prefetched"] > 0
    bent = specmd("simulate", trace, "--routing", "cache-prior", "--json")
    assert bent.json["accesses"] > 0 and bent.json["open_loop"]
    assert bent.json["capacity_bytes"] is not None


def test_the_trace_says_where_it_comes_from(
    specmd: Specmd, model: Path, prompts: Path, tmp_path: Path
) -> None:
    flags = ("--max-tokens", "2", "--temperature", "0.5", "--seed", "7")
    result = specmd("record", model, "--prompts", prompts, "-o", tmp_path / "t.st", *flags)
    assert result.code == 0
    assert "3 layers x 8 experts, top-3" in result.out and "3 requests" in result.out
    assert "tokens/s" in result.err and "MEASURED" in result.err
    trace = read_trace(tmp_path / "t.st")
    origin = trace.provenance
    assert (origin.model, origin.source) == ("olmoe", "prompts.txt")
    assert "temperature 0.5, top-p 1, seed 7" in origin.recorded and "batch 1" in origin.recorded
    digest = hashlib.sha256((model / "model.safetensors").read_bytes()).hexdigest()
    listed = f"{digest}  model.safetensors\n"
    assert origin.weights_hash == f"sha256:{hashlib.sha256(listed.encode()).hexdigest()}"
    assert str(tmp_path) not in str(origin)
    assert trace.expert_bytes is not None
    assert trace.expert_bytes.tolist() == [CONFIG.spec.expert_params * 4] * 3


def test_json_lines_may_name_the_prompt_in_three_ways(
    specmd: Specmd, model: Path, prompts: Path, tmp_path: Path
) -> None:
    lines = [
        {"prompt": PROMPTS[0], "text": "not this"},
        {"id": 1, "question": PROMPTS[1]},
        {"text": PROMPTS[2]},
    ]
    other = tmp_path / "prompts.jsonl"
    other.write_text("\n".join(map(json.dumps, lines)) + "\n", encoding="utf-8")
    for number, path in enumerate((prompts, other)):
        flags = ("-o", tmp_path / f"{number}.st", "--max-tokens", "2")
        assert specmd("record", model, "--prompts", path, *flags).code == 0
    one, two = (read_trace(tmp_path / f"{number}.st") for number in range(2))
    np.testing.assert_array_equal(one.experts, two.experts)


@pytest.mark.parametrize("whole", [0, 2])
def test_ctrl_c_keeps_the_whole_requests_or_leaves_nothing(
    specmd: Specmd,
    model: Path,
    prompts: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    whole: int,
) -> None:
    real, out, calls = recording.stream_tokens, tmp_path / "trace.st", []

    def interrupted(*arguments, **options):
        calls.append(None)
        for step, tokens in enumerate(real(*arguments, **options)):
            if len(calls) > whole and step == 1:
                raise KeyboardInterrupt
            yield tokens

    monkeypatch.setattr(recording, "stream_tokens", interrupted)
    result = specmd("record", model, "--prompts", prompts, "-o", out, "--max-tokens", "4")
    assert result.code == 130
    if whole:
        assert f"{out} holds 2 of 3 requests" in result.err
        trace = read_trace(out)
        assert set(trace.request.tolist()) == {0, 1}
        assert (trace.phase == PREFILL).sum() == 6 + 3
    else:
        assert "nothing is written" in result.err
        assert list(tmp_path.iterdir()) == [prompts]


FILES = {
    "empty.txt": b"\n  \n",
    "latin.txt": "caf\xe9".encode("latin-1"),
    "text.jsonl": b"once upon a time\n",
    "list.jsonl": b'["a"]\n',
    "other.jsonl": b'{"prompt": "a"}\n{"query": "a", "id": 3}\n',
    "number.jsonl": b'{"prompt": 3}\n',
    "blank.jsonl": b'{"prompt": " "}\n',
    "half.jsonl": rb'{"prompt": "\ud800"}',
    "twice.jsonl": b'{"prompt": "a", "prompt": "b"}',
    "long.txt": b"the cat\n" + b"the " * 37,
    "good.txt": b"the cat\n",
}
ERRORS = [
    ("{model} --prompts {folder}/none.txt -o {folder}/t.st", "No such file or directory"),
    ("{model} --prompts {folder} -o {folder}/t.st", "cannot be read"),
    ("{model} --prompts {folder}/empty.txt -o {folder}/t.st", "holds no prompt"),
    ("{model} --prompts {folder}/latin.txt -o {folder}/t.st", "is not UTF-8"),
    ("{model} --prompts {folder}/text.jsonl -o {folder}/t.st", "text.jsonl, line 1 is not JSON"),
    ("{model} --prompts {folder}/list.jsonl -o {folder}/t.st", "line 1 holds no JSON object"),
    ("{model} --prompts {folder}/other.jsonl -o {folder}/t.st", "line 2 has the fields query, id"),
    ("{model} --prompts {folder}/number.jsonl -o {folder}/t.st", "prompt is 3, not a text"),
    ("{model} --prompts {folder}/blank.jsonl -o {folder}/t.st", "prompt is ' ', not a text"),
    ("{model} --prompts {folder}/half.jsonl -o {folder}/t.st", "half of a surrogate pair"),
    ("{model} --prompts {folder}/twice.jsonl -o {folder}/t.st", "'prompt' is given twice"),
    (
        "{model} --prompts {folder}/long.txt -o {folder}/t.st --max-tokens 4",
        "prompt 2 has 37 tokens, and 4 more exceed the model's context of 40",
    ),
    ("{folder}/none --prompts {folder}/good.txt -o {folder}/t.st", "none is not a folder"),
    ("{folder} --prompts {folder}/good.txt -o {folder}/t.st", "config.json"),
    ("{model} --prompts {folder}/good.txt -o {folder}", "is a folder: give a file in it"),
    ("{model} --prompts {folder}/good.txt -o {folder}/no/t.st", "cannot be written"),
    ("{model} --prompts {folder}/good.txt -o {folder}/good.txt", "is read by this command"),
    ("{model} --prompts {folder}/good.txt", "missing from specmd record: -o"),
    ("--prompts {folder}/good.txt -o {folder}/t.st", "missing from specmd record: MODEL"),
    *(
        (f"{{model}} --prompts {{folder}}/good.txt -o {{folder}}/t.st {flags}", problem)
        for flags, problem in [
            ("--lookahead 4", "--lookahead 4: give 0 to 3"),
            ("--max-tokens 0", "max-tokens 0 is out of range"),
            ("--batch 0", "batch 0 is out of range"),
            ("--temperature -1", "temperature -1.0 is negative"),
            ("--top-p 0", "top-p 0.0 is not in (0, 1]"),
            ("--seed -1", "seed -1 is out of range"),
            ("--dtype int4", "invalid choice 'int4'"),
        ]
    ),
]


@pytest.mark.parametrize(("command", "problem"), ERRORS, ids=[command for command, _ in ERRORS])
def test_one_line_and_exit_2(
    specmd: Specmd, model: Path, tmp_path: Path, command: str, problem: str
) -> None:
    for name, data in FILES.items():
        (tmp_path / name).write_bytes(data)
    words = command.format(model=model, folder=tmp_path).split()
    result = specmd("record", *words)
    assert (result.code, result.out) == (2, "")
    (line,) = result.err.splitlines()
    assert problem in line
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(FILES)


def test_settings_of_a_checkpoint_that_are_none(
    specmd: Specmd, model: Path, prompts: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    for path in model.iterdir():
        (folder / path.name).symlink_to(path)
    (folder / "generation_config.json").write_text('{"eos_token_id": ["</s>"]}')
    result = specmd("record", folder, "--prompts", prompts, "-o", tmp_path / "t.st")
    assert result.code == 2 and "give token ids" in result.err
    for name in ("generation_config.json", "tokenizer.json"):
        (folder / name).unlink()
    result = specmd("record", folder, "--prompts", prompts, "-o", tmp_path / "t.st")
    assert result.code == 2 and "has no tokenizer.json" in result.err


@pytest.mark.skipif(not BUNDLED.is_file(), reason="the bundled weights are not here")
def test_the_bundled_model(specmd: Specmd, prompts: Path, tmp_path: Path) -> None:
    flags = ("--max-tokens", "2", "--batch", "3", "--json")
    result = specmd("record", "specmd-tiny", "--prompts", prompts, "-o", tmp_path / "t.st", *flags)
    assert (result.code, result.json["model"], result.json["requests"]) == (0, "specmd-tiny", 3)
