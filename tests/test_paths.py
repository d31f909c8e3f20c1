"""Paths, modules and names that documents and docstrings mention are there."""

import ast
import re
from collections.abc import Iterator
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "experiments" / "README.md"]
PAGES += sorted((ROOT / "docs").glob("*.md"))
SOURCES = [ROOT / name for name in ("specmd_jax", "kernels", "experiments", "tests")]
ROOMS = {path.stem for path in (ROOT / "specmd_jax").iterdir() if not path.name.startswith("_")}
TOP = ("specmd_jax", "specmd_kernels", "experiments", "tests")
OURS = re.compile(r"^(specmd_jax|kernels|experiments|tests|docs|\.ci)/")
FILES = re.compile(r"(?<![\w/.])(?:specmd_jax|kernels|experiments|docs|tests)/[\w./]+\.\w+")
EXAMPLE = "specmd_jax/policies/eviction/mru.py"  # the policy that CONTRIBUTING has one write


def paths_in(page: Path) -> Iterator[tuple[str, Path]]:
    """Yields each path that a page links to or names, and where it must be."""
    text = page.read_text()
    for link in re.findall(r"\]\(([^)#\s]+)(?:#[\w-]+)?\)", text):
        if "://" not in link:
            yield link, page.parent / link
    for name in re.findall(r"[\w./-]+/[\w./-]*", re.sub(r"\]\([^)]*\)", "]", text)):
        name = name.rstrip(".")
        if OURS.match(name) and name != EXAMPLE:
            yield name, ROOT / name


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_paths_on_a_page_exist(page: Path):
    assert [name for name, path in paths_in(page) if not path.exists()] == []


def exists(name: str) -> bool:
    """Whether a dotted name is a module, or something of one."""
    parts = name.split(".")
    for length in range(len(parts), 0, -1):
        module = ".".join(parts[:length])
        try:
            if find_spec(module) is None:
                continue
        except ModuleNotFoundError:
            continue
        found = import_module(module)
        for part in parts[length:]:
            if not hasattr(found, part) and part not in getattr(found, "__annotations__", {}):
                return False
            found = getattr(found, part, None)
        return True
    return False


def names_in(text: str) -> Iterator[str]:
    """Yields the dotted names of ours in a text, as they are imported."""
    for name in re.findall(r"(?<![\w./@-])((?:[A-Za-z_]\w*\.)+[A-Za-z_]\w*)(?![\w(/-]|\.\w)", text):
        first = name.split(".")[0]
        if name.endswith((".py", ".md", ".json", ".jsonl", ".toml", ".st", ".npz")):
            continue
        if first in TOP:
            yield name
        elif first in ROOMS and f"`{name}`" in text:
            yield f"specmd_jax.{name}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_names_on_a_page_exist(page: Path):
    assert [name for name in names_in(page.read_text()) if not exists(name)] == []


def docstrings(source: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(source.read_text())):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef):
            yield ast.get_docstring(node) or ""


def test_paths_and_names_in_docstrings_exist():
    wrong: dict[str, list[str]] = {}
    for source in (file for folder in SOURCES for file in folder.rglob("*.py")):
        for text in docstrings(source):
            missing = [name for name in names_in(text) if not exists(name)]
            missing += [path for path in FILES.findall(text) if not (ROOT / path).exists()]
            if missing:
                wrong.setdefault(str(source.relative_to(ROOT)), []).extend(missing)
    assert wrong == {}
