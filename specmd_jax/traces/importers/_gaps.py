"""Layers that some tokens lack: what an engine skips is padded, what a damaged file lacks is named.

llama.cpp computes the last layer for those tokens alone whose logits are wanted: of a prompt, the
last one. Where a file records no phases, the tokens before the first one that reaches the last
layer are such prompt tokens. A draft head that predicts further tokens looks like one layer more,
at which few tokens have a row: it is no layer of the model and has to be left out.
"""

from collections import Counter, defaultdict
from collections.abc import Hashable, Sequence
from itertools import groupby

from specmd_jax.core.errors import InputError
from specmd_jax.traces.importers._routed import RoutedToken, Row
from specmd_jax.traces.trace import PREFILL


def fill_gaps(rows: Sequence[Row], layers: Sequence[int]) -> list[str]:
    """Pads the last layer of prompt tokens that do not reach it, and says so.

    Raises:
      InputError: any other token lacks a layer that others have.
    """
    lacking = [row for row in rows if len(row.choices) < len(layers)]
    if not lacking:
        return []
    last = layers[-1]
    leading = _leading(rows, layers)
    prompts = {at for places in leading for at in places}
    for at, row in enumerate(rows):
        if len(row.choices) == len(layers):
            continue
        skipped = len(row.choices) == len(layers) - 1 and last not in row.choices
        if not skipped or not (row.phase == PREFILL or at in prompts):
            raise InputError(_complaint(rows, row, layers))
        some = next(iter(row.choices.values()))
        zeros = None if some.logits is None else [0.0] * len(some.logits)
        row.choices[last] = RoutedToken([], None, zeros)
    note = f"{len(lacking)} prompt tokens do not reach the last layer in the engine: padded there"
    passes = sum(_taken_as_prompt(rows, places) for places in leading)
    if passes:
        note += "; with the next token, which does, they are one prefill pass"
    return [note]


def spans(layers: Sequence[int]) -> str:
    """Layers as `--layers` takes them: `0:4`, or `0,2,5:9`."""
    parts = []
    for _, run in groupby(enumerate(layers), lambda pair: pair[1] - pair[0]):
        numbers = [layer for _, layer in run]
        parts.append(f"{numbers[0]}:{numbers[-1] + 1}" if len(numbers) > 1 else str(numbers[0]))
    return ",".join(parts)


def _leading(rows: Sequence[Row], layers: Sequence[int]) -> list[list[int]]:
    """For each request without phases, its rows before the first that reaches the last layer.

    Those of a request that lacks the layer again later on are not meant.
    """
    by_request: dict[Hashable, list[int]] = defaultdict(list)
    for at, row in enumerate(rows):
        by_request[row.request].append(at)
    found = []
    for places in by_request.values():
        reaches = [len(rows[at].choices) == len(layers) for at in places]
        first = reaches.index(True) if True in reaches else 0
        if first and all(reaches[first:]) and all(rows[at].phase != PREFILL for at in places):
            found.append(places[:first])
    return found


def _taken_as_prompt(rows: Sequence[Row], places: list[int]) -> bool:
    """Makes leading rows and the one after them one prefill pass, where no pass is recorded."""
    prompt = [*places, places[-1] + 1]
    together = prompt == list(range(prompt[0], prompt[-1] + 1)) and prompt[-1] < len(rows)
    request = rows[prompt[0]].request
    if not together or any(not rows[at].run[0] or rows[at].request != request for at in prompt):
        return False
    for at in prompt:
        rows[at].phase, rows[at].run = PREFILL, (False, (request, "prompt"))
    return True


def _complaint(rows: Sequence[Row], row: Row, layers: Sequence[int]) -> str:
    """What is missing, and how to go on without the layer that few tokens have."""
    having = Counter(layer for one in rows for layer in one.choices)
    rarest = min(layers, key=having.__getitem__)
    others = spans([layer for layer in layers if layer != rarest])
    if 2 * having[rarest] <= len(rows):
        return (
            f"layer {rarest} has experts for {having[rarest]} of {len(rows)} tokens, as a draft "
            f"head that predicts further tokens has: --layers {others} leaves it out"
        )
    absent = next(layer for layer in layers if layer not in row.choices)
    return (
        f"{_named(row)} has no experts at layer {absent}, which {having[absent]} of {len(rows)} "
        f"tokens have: was the file cut off? --layers {others} leaves layer {rarest} out"
    )


def _named(row: Row) -> str:
    if isinstance(row.token, tuple) and row.token[0] == row.request:
        return f"token {row.token[-1]} of request {row.request}"
    return f"token {row.token}"
