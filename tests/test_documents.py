"""What the documents say is what the project does."""

import re
import runpy
import tomllib
from pathlib import Path

import pytest

from specmd_jax.cli.verbs import VERBS
from specmd_jax.core.errors import InputError
from specmd_jax.policies.strategy import FAMILIES
from specmd_jax.report.policy_table import BEGIN, END, policy_table, with_table

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()


def code_blocks(page: str, language: str) -> list[str]:
    return [text.strip() for text in re.findall(rf"```{language}\n(.*?)```", page, re.DOTALL)]


def test_the_readmes_table_is_written_from_the_docstrings():
    assert with_table(README) == README, "run python -m specmd_jax.report.policy_table README.md"


def test_the_table_has_a_row_for_every_policy():
    rows = policy_table().splitlines()[2:]
    assert len(rows) == sum(len(known) for known in FAMILIES.values())
    for family, known in FAMILIES.items():
        for name in known:
            assert any(row.startswith(f"| {family} | `{name}` | ") for row in rows)


def test_every_policy_has_a_meaning_and_a_source():
    for row in policy_table().splitlines()[2:]:
        cells = [cell.strip() for cell in re.split(r"(?<!\\)\|", row)[1:-1]]
        assert len(cells) == 4 and all(cells), row


@pytest.mark.parametrize("page", ["", BEGIN, END, f"{END} {BEGIN}"])
def test_a_page_without_both_markers_is_refused(page: str):
    with pytest.raises(InputError, match="policies: begin"):
        with_table(page)


def test_ci_runs_the_readmes_test_command():
    test_command = code_blocks(README, "sh")[1]
    assert test_command in (ROOT / ".ci" / "run").read_text().splitlines()


def test_the_readme_shows_only_verbs_that_exist():
    used = re.findall(r"^specmd (\w+)", "\n".join(code_blocks(README, "sh")), re.MULTILINE)
    assert used and set(used) <= set(VERBS)


def test_the_policy_in_contributing_works(tmp_path: Path):
    (example,) = re.findall(r"```python\n(.*?)```", (ROOT / "CONTRIBUTING.md").read_text(), re.S)
    file = tmp_path / "mru.py"
    file.write_text("\n".join(line.removeprefix("   ") for line in example.splitlines()))
    policy = runpy.run_path(str(file))["policy"]
    assert policy.score is not None and policy.doc.startswith("Most recently used")


def test_the_picture_of_the_house_has_the_rooms_of_the_contract():
    """Floor by floor, from the top; a room that spans two lines of the picture counts once."""
    (picture,) = re.findall(r"```\n(┌.*?)```", README, re.DOTALL)
    rooms = {path.parent.name for path in (ROOT / "specmd_jax").glob("*/__init__.py")}
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    contract = project["tool"]["importlinter"]["contracts"][0]["layers"]
    floors = [
        [word for word in re.findall(r"│ (\w+) ", line) if word in rooms]
        for line in picture.splitlines()
    ]
    drawn = [set(floor) for floor in floors if floor]
    assert drawn == [set(re.findall(r"\w+", layer)) & rooms for layer in contract]
    assert set().union(*drawn) == rooms
