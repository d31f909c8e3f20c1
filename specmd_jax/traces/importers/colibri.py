"""colibri's ROUTE_TRACE: one text line a routing decision.

`<call> <row> <layer> <id>:<gate> <id>:<gate> ...`: call counts invocations of an MoE layer, row the
tokens inside one. A pass ends where the layer does not rise; engines that never advance the call
count are read by the layer alone. Requests and phases are not recorded: a pass of several rows
counts as prefill. Learned from c/route_trace.h of JustVugg/colibri.
"""

import re
from pathlib import Path

from specmd_jax.core.errors import InputError
from specmd_jax.traces.importers._build import RoutedToken, TraceBuilder
from specmd_jax.traces.importers._lines import at_line, first_line, numbered_lines
from specmd_jax.traces.importers._options import ImportOptions
from specmd_jax.traces.importers._values import integer, real
from specmd_jax.traces.trace import DECODE, PREFILL, Provenance, Trace

NAME = "colibri"
DESCRIPTION = "ROUTE_TRACE text: call row layer id:gate id:gate ..."

_LINE = re.compile(r"\d+ \d+ \d+( \d+:\S+)+")

Decision = tuple[int, int, int, RoutedToken]  # pass, row, layer


def detect(head: bytes, path: Path) -> bool:
    del path
    return _LINE.fullmatch(first_line(head)) is not None


def load(path: Path, options: ImportOptions) -> Trace:
    """Reads the lines, counts passes, then tells prefill from decode by their rows."""
    decisions = _decisions(path)
    wide = {number for number, row, _, _ in decisions if row > 0}
    builder = TraceBuilder()
    for number, row, layer, choice in decisions:
        phase = PREFILL if number in wide else DECODE
        builder.choose((number, row), layer, choice, phase=phase, run=number)
    return builder.build(
        options,
        Provenance(producer="colibri", source=path.name, recorded="ROUTE_TRACE"),
        notes=["requests and phases not recorded: one request, passes of several rows are prefill"],
    )


def _decisions(path: Path) -> list[Decision]:
    found: list[Decision] = []
    passes, last_call, last_layer = -1, -1, -1
    for number, line in numbered_lines(path):
        with at_line(number):
            call, row, layer, choice = _parsed(line)
            again = layer == last_layer and call != last_call
            if passes < 0 or layer < last_layer or again:
                passes += 1
            last_call, last_layer = call, layer
            found.append((passes, row, layer, choice))
    return found


def _parsed(line: str) -> Decision:
    fields = line.split()
    pairs = [field.partition(":") for field in fields[3:]]
    if not pairs or not all(colon for _, colon, _ in pairs):
        raise InputError(f"{line[:40]!r} is no `call row layer id:gate ...`: was it cut off?")
    call, row, layer = (
        integer(value, name) for value, name in zip(fields, ("call", "row", "layer"), strict=False)
    )
    if min(call, row, layer) < 0:
        raise InputError(f"call {call}, row {row}, layer {layer}: none may be negative")
    experts = [integer(expert, "an expert id") for expert, _, _ in pairs]
    return call, row, layer, RoutedToken(experts, [real(gate, "a gate") for _, _, gate in pairs])
