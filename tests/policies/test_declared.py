"""What policies say of themselves: what they read, whether they are lossless, their formula."""

import importlib
import inspect
import re

import pytest

from specmd_jax.policies.base import GATE, LOGITS, NEXT_USE, PREDICTED, PROBS, READS, UPCOMING
from specmd_jax.policies.strategy import FAMILIES, Strategy, make_strategy
from specmd_jax.study.tune.knobs import KNOBS
from tests.oracle.registry import twin

POLICIES = [(family, name) for family, policies in FAMILIES.items() for name in policies]
FORMULAS = {"eviction": "Score", "prefetch": "Names", "miss": "Plan", "routing": "Choice"}
OF_EVENT = {  # how a policy's own code asks for what it reads
    GATE: r"event\.gate|importance_rank\(|score_based\.",
    LOGITS: r"event\.logits",
    PROBS: r"event\.probs|\bswap\(",
    PREDICTED: r"event\.predicted|foreseen\(",
    UPCOMING: r"event\.upcoming",
    NEXT_USE: r"cache\.next_use",
}


def source(family: str, name: str) -> str:
    """The code of a policy's own functions."""
    policy = FAMILIES[family][name]
    homes = {one.__module__ for one in policy if inspect.isfunction(one)}
    own = [home for home in homes if not home.endswith(".base")]
    return "\n".join(inspect.getsource(importlib.import_module(home)) for home in own)


@pytest.mark.parametrize(("family", "name"), POLICIES)
def test_a_policy_says_what_it_reads(family: str, name: str) -> None:
    declared = set(FAMILIES[family][name].reads)
    assert declared <= set(READS)
    code = source(family, name)
    found = {need for need, asked in OF_EVENT.items() if re.search(asked, code)}
    assert found == declared


@pytest.mark.parametrize(("family", "name"), POLICIES)
def test_a_policy_gives_its_formula_and_its_source(family: str, name: str) -> None:
    doc = FAMILIES[family][name].doc or ""
    assert re.search(rf"^{FORMULAS[family]}\b", doc, re.MULTILINE) and "\nSource:" in doc


def test_who_does_nothing_is_none() -> None:
    assert not Strategy().prefetches and not Strategy().open_loop
    assert [name for name, one in FAMILIES["prefetch"].items() if one.select is None] == ["none"]
    assert [name for name, one in FAMILIES["miss"].items() if one.plan is None] == ["fetch"]
    assert [name for name, one in FAMILIES["routing"].items() if one.lossless] == ["standard"]


def test_what_changes_the_output_is_open_loop() -> None:
    for name, policy in FAMILIES["miss"].items():
        assert make_strategy(miss=name).open_loop == (not policy.lossless)
        alters = re.search(r"\b(dropped|substituted|tier)=|\bswap\(", source("miss", name))
        assert bool(alters) == (not policy.lossless), name


def test_weights_are_parameters_that_can_be_tuned() -> None:
    weighted = {n: p.weights for n, p in FAMILIES["eviction"].items() if p.weights}
    assert set(weighted) == {"linear", "hobbit"}
    for weights in weighted.values():
        assert {f"eviction.{name}" for name in weights} <= set(KNOBS)


def test_a_missing_twin_names_the_line_to_add() -> None:
    line = r'add the line "most-used": eviction.MostUsed, to EVICTIONS in tests/oracle/registry.py'
    with pytest.raises(LookupError, match=line):
        twin("EVICTIONS", "most-used")
