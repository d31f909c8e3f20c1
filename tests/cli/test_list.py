"""`specmd list`: everything there is to choose from, complete in JSON and legible in a terminal."""

import os
import subprocess
import sys

import pytest

from specmd_jax.cli import main
from specmd_jax.hardware.profiles import HARDWARE
from specmd_jax.model_zoo import MODELS
from specmd_jax.policies.published import NOT_EXPRESSIBLE, STRATEGIES
from specmd_jax.policies.strategy import FAMILIES
from specmd_jax.traces import IMPORTERS
from tests.cli.conftest import Specmd

NAMES = {
    "strategies": [*STRATEGIES, *NOT_EXPRESSIBLE],
    "policies": [name for known in FAMILIES.values() for name in known],
    "models": [spec.name for spec in MODELS.values()],
    "hardware": [profile.name for profile in HARDWARE.values()],
    "formats": list(IMPORTERS),
}


@pytest.mark.parametrize("what", NAMES)
def test_json_names_every_one(specmd: Specmd, what: str) -> None:
    result = specmd("list", what, "--json")
    assert (result.code, result.err) == (0, "")
    assert [record["name"] for record in result.json[what]] == NAMES[what]


@pytest.mark.parametrize("width", [80, 120])
@pytest.mark.parametrize("what", NAMES)
def test_the_table_shows_every_one_in_full(
    specmd: Specmd, monkeypatch: pytest.MonkeyPatch, what: str, width: int
) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    result = specmd("list", what)
    first_words = {line.split()[0] for line in result.out.splitlines() if line.strip()}
    assert set(NAMES[what]) <= first_words
    assert max(len(line) for line in result.out.splitlines()) <= width
    assert "…" not in result.out, "nothing is cut"
    assert "\x1b" not in result.out, "no colours where nobody asked for them"


def test_colours_are_for_terminals_that_want_them(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    main(["list", "formats"])
    assert "\x1b[1;36m" in capsys.readouterr().out
    monkeypatch.setenv("NO_COLOR", "1")
    main(["list", "formats"])
    assert "\x1b[1;36m" not in capsys.readouterr().out


def test_a_policy_says_what_it_is_where_it_is_from_and_what_tunes_it(specmd: Specmd) -> None:
    for record in specmd("list", "policies", "--json").json["policies"]:
        assert record["summary"].endswith("."), record["name"]
        assert record["source"], record["name"]
        policy = FAMILIES[record["family"]][record["name"]]
        assert set(record["params"]) == set(policy.params._fields if policy.params else ())


def test_a_strategy_is_four_policies_or_the_reason_why_not(specmd: Specmd) -> None:
    for record in specmd("list", "strategies", "--json").json["strategies"]:
        if record["expressible"]:
            assert all(record[family] in FAMILIES[family] for family in FAMILIES)
        else:
            assert record["note"].startswith("not expressible: ")


def test_sizes_of_a_model_agree_with_each_other(specmd: Specmd) -> None:
    for record in specmd("list", "models", "--json").json["models"]:
        one, every = record["expert_bytes"]["bf16"], record["routed_bytes"]["bf16"]
        assert every == one * record["layers"] * record["experts"]
        assert one > record["expert_bytes"]["int8"] > record["expert_bytes"]["int4"]


def test_a_reader_that_leaves_early_is_no_error() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    command = [sys.executable, "-m", "specmd_jax.cli", "list", "policies"]
    done = subprocess.run(command, stdout=writer, stderr=subprocess.PIPE, text=True, check=False)
    os.close(writer)
    assert (done.returncode, done.stderr) == (0, "")
