"""nvmoe's JSONL: one list of [layer, expert] pairs a decode token, in execution order.

Requests are not marked: everything is one. Learned from recorded files of BrianBoitano/nvmoe,
which come from a llama.cpp callback.
"""

import re
from collections import defaultdict
from pathlib import Path

from specmd_jax.core.errors import InputError
from specmd_jax.traces.importers._build import RoutedToken, TraceBuilder
from specmd_jax.traces.importers._lines import at_line, json_value, numbered_lines
from specmd_jax.traces.importers._options import ImportOptions
from specmd_jax.traces.importers._values import integers
from specmd_jax.traces.trace import Provenance, Trace

NAME = "nvmoe"
DESCRIPTION = "JSONL: a list of [layer, expert] pairs for each decode token"

_START = re.compile(rb"(\xef\xbb\xbf)?\s*\[\s*\[\s*-?\d+\s*,\s*-?\d+\s*\]")


def detect(head: bytes, path: Path) -> bool:
    del path
    return _START.match(head) is not None


def load(path: Path, options: ImportOptions) -> Trace:
    """Reads one decode pass a line."""
    builder = TraceBuilder()
    for number, line in numbered_lines(path):
        with at_line(number):
            for layer, experts in _by_layer(json_value(line)).items():
                builder.choose(number, layer, RoutedToken(experts))
    return builder.build(
        options,
        Provenance(producer="nvmoe", source=path.name, recorded="llama.cpp callback, decode"),
        notes=["requests are not marked in the file: all is one"],
    )


def _by_layer(pairs: object) -> dict[int, list[int]]:
    if not isinstance(pairs, list):
        raise InputError(f"expected a list of [layer, expert] pairs, got {str(pairs)[:40]!r}")
    chosen = defaultdict(list)
    for pair in pairs:
        numbers = integers(pair, "a [layer, expert] pair")
        if len(numbers) != 2 or numbers[0] < 0:
            raise InputError(f"{numbers[:5]} is not a [layer, expert] pair")
        chosen[numbers[0]].append(numbers[1])
    return chosen
