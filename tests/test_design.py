"""The ways that docs/design.md describes are those of the code: short, called, and going down."""

import importlib
import inspect
import re
import tomllib
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "docs" / "design.md").read_text()
CONTRACTS = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"][
    "contracts"
]


def ways() -> list[list[str]]:
    """Returns the calls of each list on the page, from its first line to its last."""
    found: list[list[str]] = []
    for number, name in re.findall(r"^(\d)\. `([\w.]+)`", PAGE, re.MULTILINE):
        if number == "1":
            found.append([])
        found[-1].append(name)
    return found


def module_of(name: str) -> ModuleType:
    """Returns the module of a dotted name in the package; the rest of the name is there too."""
    parts = ["specmd_jax", *name.split(".")]
    for length in range(len(parts), 0, -1):
        try:
            module = importlib.import_module(".".join(parts[:length]))
        except ModuleNotFoundError:
            continue
        found = module
        for part in parts[length:]:
            found = getattr(found, part)
        return module
    raise AssertionError(name)


def floor_of(name: str) -> tuple[int, int]:
    """Returns the floor of the house, from the top, and that within its room."""
    rooms = name.split(".")

    def place(container: str, room: str) -> int:
        for contract in CONTRACTS:
            if contract.get("containers") == [container]:
                floors = [re.findall(r"\w+", floor) for floor in contract["layers"]]
                return next(i for i, floor in enumerate(floors) if room in floor)
        return 0

    return place("specmd_jax", rooms[0]), place(f"specmd_jax.{rooms[0]}", rooms[1])


def test_there_are_four_ways_of_at_most_eight_calls():
    assert PAGE.count("\n## ") == 4 and len(ways()) == 5, "one way has two parts"
    sections = PAGE.split("\n## ")[1:]
    assert all(len(re.findall(r"^\d\. ", part, re.MULTILINE)) <= 8 for part in sections)


@pytest.mark.parametrize("way", ways(), ids=lambda way: way[0])
def test_each_call_is_made_by_one_before_it_and_none_climbs(way: list[str]):
    floors = [floor_of(name) for name in way]
    assert floors == sorted(floors)
    for place, name in enumerate(way[1:], start=1):
        module, called = module_of(name), name.split(".")[-1]
        callers = [inspect.getsource(module_of(one)) for one in way[:place]]
        assert any(re.search(rf"\b{called}\b", source) for source in callers), name
        assert module.__name__.startswith("specmd_jax.")
