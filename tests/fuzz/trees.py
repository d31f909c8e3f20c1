"""Mutations of JSON: values of wrong types and sizes, keys given twice, lists without end."""

import json
from random import Random
from typing import Any

RAW = [  # as they stand in the text; most are no values that Python would write
    "null", "true", "false", "0", "-1", "1", "7", "0.5", "-0.5", "1e999", "-1e999", "NaN",
    "Infinity", "2147483648", "9223372036854775808", "-9223372036854775809", "1" + "0" * 400,
    "9" * 5000, "1e-400", "4096", "1000000000", '""', '"a"', '"-3"', '"0.5"', '"\\ud800"',
    '"\\u0000"', '"\\u001b[31m"', '"' + "x" * 5000 + '"', "[]", "{}", "[null]", "[[]]", "[0, 0]",
    '{"a": 1}', "[" * 40 + "]" * 40, "[" * 900 + "]" * 900, "[" * 3000 + "]" * 3000,
    '{"a":' * 300 + "0" + "}" * 300, "[" + "0," * 5000 + "0]", "[" * 9,
]  # fmt: skip
_HOLE = "@hole{}@"
_LONGEST = 1 << 16  # characters; what an earlier mutation blew up takes long to walk


def mutated_json(text: str, rng: Random, keys: list[str]) -> str:
    """JSON, or lines of it, with one to three things changed; what does not parse stays as it is.

    Args:
      keys: that an object may be given, beside those that it has.
    """
    lines = text.split("\n")
    filled = [number for number, line in enumerate(lines) if line.strip()]
    try:
        json.loads(text)
        lines, filled = [text], [0]
    except ValueError:
        pass
    for _ in range(rng.randint(1, 3)):
        if sum(map(len, lines)) > _LONGEST:
            break
        number = filled[rng.choice((0, -1))] if rng.random() < 0.3 else rng.choice(filled)
        try:
            value = json.loads(lines[number])
        except (ValueError, RecursionError):
            continue
        lines[number] = _changed(value, rng, keys)
    return "\n".join(lines)


def _changed(value: Any, rng: Random, keys: list[str]) -> str:
    """The text of a value in which one place is another."""
    places = [(container, key) for container in _containers(value) for key in _keys(container)]
    if not places:
        return rng.choice(RAW)
    container, key = rng.choice(places)
    holes: dict[str, str] = {}

    def put(raw: str) -> str:
        name = _HOLE.format(len(holes))
        holes[json.dumps(name)] = raw
        return name

    kind = rng.choice(("replace", "replace", "replace", "drop", "again", "swap", "add", "wrap"))
    if kind == "replace":
        container[key] = put(rng.choice(RAW))
    elif kind == "drop":
        del container[key]
    elif kind == "wrap":
        container[key] = [container[key]]
    elif kind == "swap":
        other, place = rng.choice(places)
        container[key], other[place] = (
            put(json.dumps(other[place])),
            put(json.dumps(container[key])),
        )
    elif isinstance(container, list):
        container[key:key] = [container[key]] * rng.choice((1, 1, 2, 300))
    elif kind == "again":  # the key twice
        held = json.dumps(container[key])
        container[key] = put(f"{held}, {json.dumps(key)}: {rng.choice((held, rng.choice(RAW)))}")
    else:
        container[rng.choice(keys) if keys else "a"] = put(rng.choice(RAW))
    text = json.dumps(value)
    for name, raw in reversed(holes.items()):
        text = text.replace(name, raw)
    return text


def _containers(value: Any) -> list[Any]:
    found, level = [], [value]
    while level:
        level = [item for item in level if isinstance(item, dict | list)]
        found += level
        level = [
            child for item in level for child in (item.values() if isinstance(item, dict) else item)
        ]
    return found


def _keys(container: Any) -> list[Any]:
    return list(container) if isinstance(container, dict) else list(range(len(container)))
