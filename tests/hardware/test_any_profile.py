"""Whatever a machine's, a strategy's or a journal's file holds: read, or one line."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings

from specmd_jax.core.errors import InputError
from specmd_jax.hardware.profiles import PROFILE_FORMAT, HardwareProfile, get_hardware, read_profile
from specmd_jax.hardware.roofline import attention_s, expert_s, host_expert_s, transfer_s
from specmd_jax.model_zoo import get_model
from specmd_jax.policies.strategy import StrategyParams, make_strategy
from specmd_jax.policies.strategy_file import read_strategy, write_strategy
from specmd_jax.study.journal import Journal
from tests.helpers.mutate import mutated

PROFILE = {"format": PROFILE_FORMAT} | asdict(get_hardware("rtx-3060"))
FIELDS = [*HardwareProfile.__dataclass_fields__, "measured"]
OLMOE = get_model("olmoe-1b-7b-0924")
anything = settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def dumped(record: dict[str, Any]) -> str:
    return json.dumps(record)


@anything
@given(mutated(PROFILE, FIELDS))
def test_a_machine_is_read_or_refused_in_one_line(tmp_path: Path, record: dict[str, Any]):
    path = tmp_path / "machine.json"
    path.write_text(dumped(record))
    try:
        machine = read_profile(path)
    except InputError as error:
        assert str(error).isprintable() and len(str(error)) < 500
        return
    for seconds in (
        attention_s(OLMOE, machine, 1, 64),
        expert_s(OLMOE, machine, 1),
        host_expert_s(OLMOE, machine, 1),
        transfer_s(machine, 12 << 20),
    ):
        assert 0 <= seconds < float("inf")


@pytest.fixture(scope="module")
def strategy(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    path = tmp_path_factory.mktemp("strategy") / "s.json"
    plain = make_strategy("lfu-decay", "next-gate")
    write_strategy(path, plain, plain.params, ("bf16",), "cold", {})
    return json.loads(path.read_text())


@anything
@given(change=mutated({}, ["eviction", "scope", "lookahead", "guard", "precision", "params",
                           "start", "format", "touch_on_prefetch_hit", "lookahaed"]))  # fmt: skip
def test_a_strategy_is_read_or_refused_in_one_line(
    tmp_path: Path, strategy: dict[str, Any], change: dict[str, Any]
):
    path = tmp_path / "s.json"
    path.write_text(dumped(strategy | change))
    try:
        preset = read_strategy(path)
    except InputError as error:
        assert "\n" not in str(error) and len(str(error)) < 500
    else:
        assert isinstance(preset.params, StrategyParams) and preset.strategy.lookahead >= 1


@anything
@given(mutated({"key": "a", "row": {"x": 1, "y": None, "z": "text"}}, ["row", "key"]))
def test_a_journals_line_is_a_row_or_computed_again(tmp_path: Path, entry: dict[str, Any]):
    path = tmp_path / "x.partial.jsonl"
    whole = '{"key": "b", "row": {"x": 2}}\n'
    path.write_bytes(whole.encode() + dumped(entry).encode() + b'\n\xff{"key\n' + whole.encode())
    rows = Journal(path).rows()
    assert rows["b"] == {"x": 2} and len(rows) <= 2
    assert all(isinstance(row, dict) for row in rows.values())
