"""One check of a record's fields: what it must be, what was given, in the words of a user."""

from dataclasses import dataclass, field
from typing import Annotated

import numpy as np
import pytest
from msgspec import Meta, Struct

from specmd_jax.core.errors import InputError
from specmd_jax.core.schema import Rate, Seconds, check_fields, read_record

Count = Annotated[int, Meta(ge=1, le=4096)]


class Shape(Struct):
    layers: Count
    widths: Count | Annotated[list[Count], Meta(max_length=3)] | None = None
    options: dict[Annotated[str, Meta(max_length=8)], bool] = {}
    title: Annotated[str, Meta(max_length=8)] = ""


@pytest.mark.parametrize(
    ("record", "complaint"),
    [
        ({}, "it has no layers"),
        ({"layers": 0}, "layers must be a whole number of at least 1, got 0"),
        ({"layers": 10**9}, "layers must be a whole number of at most 4,096, got 1000000000"),
        ({"layers": True}, "layers must be a whole number, got true"),
        ({"layers": None}, "layers must be a whole number, got null"),
        ({"layers": 2.0}, "layers must be a whole number, got 2.0"),
        ({"layers": 1, "widths": "8"}, "widths must be a whole number or a list, got '8'"),
        ({"layers": 1, "widths": [1, -1]}, "widths[1] must be a whole number of at least 1"),
        ({"layers": 1, "widths": [1] * 4}, "widths must be a list of at most 3 entries"),
        ({"layers": 1, "options": {"x": 3}}, "options holds a value of the wrong kind"),
        ({"layers": 1, "options": {"x" * 9: True}}, "options has a key that is none"),
        ({"layers": 1, "title": "x" * 9}, "title must be a text of at most 8 characters"),
        ({"layers": 1, "width": 3}, "x.json has 'width': is widths meant?"),
        ({"layers": 1, "widths": "\x1b[31m\u202e"}, r"got '\x1b[31m\u202e'"),
        ({"layers": 1, "widths": "x" * 10**6}, "xxx..."),
    ],
)
def test_what_does_not_fit_is_named_in_one_line(record: dict, complaint: str):
    with pytest.raises(InputError) as error:
        read_record(record, Shape, "x.json", "write it anew")
    assert complaint in str(error.value)
    assert len(str(error.value)) < 200 and str(error.value).isprintable()


def test_many_and_long_keys_cost_little():
    keys = {f"width{i}": 1 for i in range(100_000)} | {"w" * 1_000_000: 1}
    with pytest.raises(InputError, match="has 'width0': is widths meant") as error:
        read_record({"layers": 1} | keys, Shape, "x.json", "")
    assert len(str(error.value)) < 200
    assert read_record({"layers": 1, "x" * 1_000_000: 1}, Shape, "", "") == Shape(1)


def test_what_fits_is_read_and_other_keys_are_for_people():
    assert read_record({"layers": 2, "widths": [1], "about": 1}, Shape, "", "") == Shape(2, [1])


@dataclass(frozen=True)
class Machine:
    rate: Rate
    wait: Seconds | None = field(default=0.0)

    def __post_init__(self) -> None:
        check_fields(self, "this machine")


def test_a_dataclass_made_in_python_is_held_to_the_same_bounds():
    assert read_record({"rate": 5}, Machine, "", "").rate == 5.0
    assert Machine(np.float64(2.0)).wait == 0
    for rate, wait in ((0.0, 0.0), (float("nan"), 0.0), (float("inf"), 0.0), (1.0, -1.0)):
        with pytest.raises(InputError, match=r"this machine: (rate|wait) must be a number"):
            Machine(rate, wait)
