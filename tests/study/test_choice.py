"""What Python values a choice takes, and that every option is declared once."""

import inspect
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from specmd_jax.cli.flags import Decisions, Machine
from specmd_jax.cli.sweep import Axes
from specmd_jax.core.errors import InputError
from specmd_jax.hardware.profiles import get_hardware
from specmd_jax.policies.strategy import FAMILIES, SWITCHES
from specmd_jax.study.choice import DEFAULTS, OPTIONS, Choice
from specmd_jax.study.option import read_value
from specmd_jax.study.setup import Setup, describe, identity, make_setup


def read(name: str, value: Any) -> Any:
    """Reads a value as a `Choice` does, whose own types the tests' type checker holds."""
    return read_value(name, OPTIONS[name].kind, value)


@pytest.mark.parametrize(
    ("name", "value", "kept"),
    [
        ("capacity", np.float32(0.25), "0.25"),
        ("capacity", np.int64(200), "200"),
        ("capacity", np.asarray([8, 4]), "8,4"),
        ("context", np.int32(7), 7),
        ("guard", np.bool_(True), True),
        ("strategy", Path("s.json"), "s.json"),
        ("hardware", Path("my.json"), "my.json"),
        ("link", np.float64(5e9), "5000000000.B/s"),
    ],
)
def test_values_of_other_libraries_are_taken(name: str, value: Any, kept: Any) -> None:
    assert read(name, value) == kept


@pytest.mark.parametrize(
    ("asked", "field", "kept"),
    [
        ({"capacity": 0.05}, "capacity", "0.05"),
        ({"capacity": 1e-5}, "capacity", "0.00001"),
        ({"capacity": 200}, "capacity", "200"),
        ({"capacity": (8, 8, 4, 4)}, "capacity", "8,8,4,4"),
        ({"precision": "int8,int4"}, "precisions", ("int8", "int4")),
        ({"precision": ["int8", "int4"]}, "precisions", ("int8", "int4")),
        ({"hardware": get_hardware("rtx-4090")}, "hardware", get_hardware("rtx-4090")),
    ],
)
def test_python_values_are_taken(asked: dict[str, Any], field: str, kept: Any) -> None:
    assert getattr(make_setup(Choice(**asked)), field) == kept


def test_rates_and_times_may_be_numbers() -> None:
    setup = make_setup(Choice(hardware="h100-pcie", link=5e9, latency=np.float64(2e-5)))
    assert setup.hardware is not None
    assert (setup.hardware.h2d_bytes_per_s, setup.hardware.h2d_latency_s) == (5e9, 2e-5)


@pytest.mark.parametrize("value", [0.5, np.float64(0.5), "0.5"])
def test_parameters_may_be_numbers_and_a_mapping(value: Any) -> None:
    for given in ({"eviction.decay": value}, [("eviction.decay", value)]):
        setup = make_setup(Choice(eviction="lfu-decay", params=given))
        assert describe(setup)["params"] == {"eviction.decay": 0.5}
        assert setup.name == "lfu-decay (decay=0.5)"


@pytest.mark.parametrize(
    ("name", "value", "told"),
    [
        ("eviction", 3, r"eviction is 3 \(int\): give a name"),
        ("capacity", True, r"capacity is True \(bool\): give '5%'"),
        ("capacity", None, r"capacity is None"),
        ("capacity", ["a"], r"capacity is \['a'\] \(list\)"),
        ("lookahead", 1.5, r"lookahead is 1.5 \(float\): give a whole number"),
        ("guard", "yes", r"guard is 'yes' \(str\): give True or False"),
        ("precision", 4, r"precision is 4 \(int\): give 'int8,int4'"),
        ("hardware", 4090, r"hardware is 4090 \(int\): give a name of `specmd list hardware`"),
        ("params", "eviction.decay=1", r"params is 'eviction.decay=1' \(str\)"),
        ("params", [1], r"params is \[1\] \(list\)"),
    ],
)
def test_what_means_nothing_is_said(name: str, value: Any, told: str) -> None:
    with pytest.raises(InputError, match=told):
        read(name, value)


@pytest.mark.parametrize("share", [float("nan"), float("inf"), -0.05])
def test_a_share_that_is_none_is_refused(share: float) -> None:
    from specmd_jax.core.types import ModelShape
    from specmd_jax.hardware.capacity import copies_of, parse_capacity

    shape = ModelShape(2, 4, 1)
    text = str(Choice(capacity=share).capacity)
    with pytest.raises(InputError, match="is no size"):
        parse_capacity(text, copies_of(shape), shape, "global")


def test_flags_and_axes_are_the_options() -> None:
    singles = {*inspect.signature(Decisions).parameters, *inspect.signature(Machine).parameters}
    assert singles - {"param"} == set(OPTIONS) - {"params"}
    assert set(inspect.signature(Axes).parameters) - {"param"} == set(OPTIONS) - {"params"}
    asked = vars(Decisions()) | vars(Machine())
    assert all(asked[name] == DEFAULTS[name] for name in OPTIONS if name != "params")


def test_every_decision_can_be_asked_for_and_is_told() -> None:
    assert set(SWITCHES) | set(FAMILIES) <= set(OPTIONS)
    assert set(SWITCHES) | set(FAMILIES) <= set(describe(make_setup(Choice())))


def test_every_field_of_a_setup_tells_it_from_others() -> None:
    named = set(identity(make_setup(Choice())))
    assert {one.name for one in fields(Setup)} - {"strategy"} <= named
    assert set(SWITCHES) | set(FAMILIES) <= named
    switched = Choice(prefetch="previous", touch_on_prefetch_hit=True)
    assert identity(make_setup(switched)) != identity(make_setup(Choice(prefetch="previous")))
