"""JSON made wrong: values of other types, out of range, missing, nested, repeated."""

import json
from typing import Any

from hypothesis import strategies as st

ODD = st.one_of(
    st.sampled_from(
        [None, True, False, 0, -1, 1, 2, 3, 7, 64, 4096, 4097, 1 << 22, 10**9, 2**63 - 1, -(2**63)]
    ),
    st.sampled_from([10**400, -(10**400), 1e308, -0.0, 5e-324, float("nan"), float("inf")]),
    st.sampled_from(["", "0", "auto", "\x1b[31m\u202e", "x" * 5000, "full_attention", "moe"]),
    st.integers(),
    st.floats(),
    st.text(max_size=8),
    st.lists(st.integers(-2, 9), max_size=50),
    st.lists(st.one_of(st.none(), st.text(max_size=3), st.floats()), max_size=40),
    st.dictionaries(st.text(max_size=5), st.integers(), max_size=3),
    st.integers(1, 40).map(lambda levels: json.loads("[" * levels + "]" * levels)),
)


def mutated(record: dict[str, Any], more_keys: list[str]) -> st.SearchStrategy[dict[str, Any]]:
    """Returns records that differ from `record` in a few keys, its own or `more_keys`."""
    keys = st.sampled_from([*record, *more_keys])
    changes = st.dictionaries(keys, st.one_of(ODD, st.just(...)), min_size=1, max_size=4)
    return changes.map(lambda change: _changed(record, change))


def _changed(record: dict[str, Any], change: dict[str, Any]) -> dict[str, Any]:
    whole = record | change
    return {key: value for key, value in whole.items() if value is not ...}
