"""Collects routing decisions in the order a file gives them, and makes a trace of them."""

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import replace
from itertools import chain, compress, pairwise

import numpy as np
from jaxtyping import Float, Integer

from specmd_jax.core.errors import InputError
from specmd_jax.traces.importers._finish import finish
from specmd_jax.traces.importers._gaps import fill_gaps
from specmd_jax.traces.importers._options import ImportOptions
from specmd_jax.traces.importers._routed import RoutedToken, Row
from specmd_jax.traces.trace import DECODE, PAD, Provenance, Trace

MAX_LAYERS = 4096  # of a model; real ones stop at some hundred
_ANY_CELLS = 1 << 24  # (token, layer, slot) that any trace may have, padding among them
_MOST_PADDING = 64  # cells for each id, beyond those


class TraceBuilder:
    """Takes decisions in any order of layers; tokens stand in the order of first mention."""

    def __init__(self) -> None:
        self._rows: dict[Hashable, Row] = {}

    def choose(
        self,
        token: Hashable,
        layer: int,
        choice: RoutedToken,
        *,
        request: Hashable = 0,
        phase: int = DECODE,
        run: Hashable = None,
    ) -> None:
        """Records all that one token chose at one layer.

        Args:
          token: whatever tells this token from the others of the file.
          run: shared by the tokens of one forward pass; None for a pass of its own.

        Raises:
          InputError: an id is negative, the token has a choice there already, or its phase changes.
        """
        if choice.experts and min(choice.experts) < 0:
            raise InputError(f"expert id {min(choice.experts)} is negative: ids run from 0")
        row = self._row(token, request, phase, run)
        if layer in row.choices:
            raise InputError(
                f"token {token} is given layer {layer} twice: "
                "was a part of the file copied in again?"
            )
        row.choices[layer] = choice

    def choose_one(
        self,
        token: Hashable,
        layer: int,
        expert: int,
        weight: float | None = None,
        *,
        request: Hashable = 0,
        phase: int = DECODE,
        run: Hashable = None,
    ) -> None:
        """Records one expert more of a token at a layer; arguments as for `choose`.

        Raises:
          InputError: the id is negative, only some experts have a weight, or the phase changes.
        """
        if expert < 0:
            raise InputError(f"expert id {expert} is negative: ids run from 0")
        row = self._row(token, request, phase, run)
        new = RoutedToken([], None if weight is None else [])
        choice = row.choices.setdefault(layer, new)
        if (choice.weights is None) != (weight is None):
            raise InputError(f"token {token}, layer {layer} has a weight for some experts only")
        choice.experts.append(expert)
        if choice.weights is not None and weight is not None:
            choice.weights.append(weight)

    def build(
        self,
        options: ImportOptions,
        provenance: Provenance,
        *,
        num_experts: int | None = None,
        expert_bytes: Mapping[int, int] | None = None,
        ragged: bool = False,
        notes: Sequence[str] = (),
    ) -> Trace:
        """Makes the trace; layers are numbered from 0 in their own order.

        Prompt tokens may lack the last layer, see `_gaps`. Nothing else may be missing.

        Args:
          num_experts: what the file says, if it does.
          expert_bytes: size of an expert by layer, as the file numbers it.
          ragged: whether tokens may choose different numbers of experts.

        Raises:
          InputError: there are no tokens, a layer is missing or beyond any model, or a choice
            differs in width.
        """
        rows = list(self._rows.values())
        if not rows:
            raise InputError("no routing decision was found: record at least one pass")
        rows, layers = _of_layers(rows, options)
        _check_widths(rows, ragged)
        provenance = replace(provenance, layers=tuple(layers))
        notes = [*notes, *fill_gaps(rows, layers)]
        choices = [row.choices[layer] for row in rows for layer in layers]
        widths = np.array([len(choice.experts) for choice in choices])
        _check_padding(rows, layers, widths)
        grid = (len(rows), len(layers))
        requests: dict[Hashable, int] = {}
        return finish(
            _filled([c.experts for c in choices], widths, np.int32, PAD).reshape(*grid, -1),
            step=_steps(rows),
            request=np.array([requests.setdefault(r.request, len(requests)) for r in rows]),
            phase=np.array([row.phase for row in rows], np.uint8),
            weights=_weights(choices, widths, grid),
            logits=_logits(choices, grid),
            expert_bytes=_sizes(expert_bytes, layers),
            options=options,
            provenance=provenance,
            num_experts=num_experts,
            notes=notes,
        )

    def _row(self, token: Hashable, request: Hashable, phase: int, run: Hashable) -> Row:
        row = self._rows.get(token)
        if row is None:
            own = token if run is None else run
            row = self._rows[token] = Row(token, request, phase, (run is None, own))
        if row.phase != phase:
            raise InputError(f"token {token} is both prefill and decode: give it one phase")
        return row


def _of_layers(rows: list[Row], options: ImportOptions) -> tuple[list[Row], list[int]]:
    """The rows at the layers that are asked for, and those layers; all where none are named."""
    recorded = sorted(set().union(*(row.choices for row in rows)))
    _check_layers(recorded)
    layers = [layer for layer in recorded if options.keeps(layer)]
    if not layers:
        raise InputError(
            f"layers {options.layers} are none of {recorded[0]}..{recorded[-1]}, which are recorded"
        )
    if len(layers) == len(recorded):
        return rows, layers
    for row in rows:
        row.choices = {at: row.choices[at] for at in layers if at in row.choices}
    return [row for row in rows if row.choices], layers


def _check_padding(
    rows: Sequence[Row], layers: Sequence[int], widths: Integer[np.ndarray, " C"]
) -> None:
    """All choices become as wide as the widest: one of them must not fill the memory."""
    widest = int(widths.argmax())
    cells, ids = int(widths[widest]) * len(widths), int(widths.sum())
    if cells > max(_ANY_CELLS, _MOST_PADDING * ids):
        row, layer = rows[widest // len(layers)], layers[widest % len(layers)]
        raise InputError(
            f"token {row.token}, layer {layer} chooses {widths[widest]} experts, others "
            f"{ids / len(widths):.1f} on average: is that row damaged?"
        )


def _check_layers(layers: Sequence[int]) -> None:
    for layer in (layers[0], layers[-1]):
        if not 0 <= layer < MAX_LAYERS:
            raise InputError(
                f"layer {layer} is outside 0..{MAX_LAYERS - 1}: the file is damaged, or not a "
                "routing trace"
            )


def _check_widths(rows: Sequence[Row], ragged: bool) -> None:
    found = {len(choice.experts) for row in rows for choice in row.choices.values()}
    if len(found) > 1 and not ragged:
        raise InputError(
            f"tokens choose {min(found)} to {max(found)} experts a layer: this format has one "
            "top-k, so lines are missing or cut off"
        )


def _filled(
    lists: Sequence[list[int]] | Sequence[list[float]],
    widths: Integer[np.ndarray, " C"],
    dtype: type,
    fill: int | float,
) -> Integer[np.ndarray, "C K"] | Float[np.ndarray, "C K"]:
    """Lists of the given widths as the rows of one array, the rest filled."""
    table = np.full((len(widths), int(widths.max())), fill, dtype)
    table[np.arange(table.shape[1]) < widths[:, None]] = np.fromiter(chain(*lists), dtype)
    return table


def _weights(
    choices: Sequence[RoutedToken], widths: Integer[np.ndarray, " C"], grid: tuple[int, int]
) -> Float[np.ndarray, "T L K"] | None:
    lists = _all_or_none([choice.weights for choice in choices if choice.experts], "weights")
    if lists is None:
        return None
    if [len(weights) for weights in lists] != widths[widths > 0].tolist():
        raise InputError("a choice has more or fewer weights than experts: give one each")
    return _filled(lists, widths, np.float64, 0.0).reshape(*grid, -1)


def _logits(
    choices: Sequence[RoutedToken], grid: tuple[int, int]
) -> Float[np.ndarray, "T L N"] | None:
    lists = _all_or_none([choice.logits for choice in choices], "router scores")
    if lists is None:
        return None
    lengths = {len(logits) for logits in lists}
    if len(lengths) > 1 or 0 in lengths:
        raise InputError(
            f"router scores of {sorted(lengths)[:4]} experts in one file: "
            "give all experts every time"
        )
    return np.array(lists, np.float64).reshape(*grid, -1)


def _all_or_none(lists: Sequence[list[float] | None], what: str) -> list[list[float]] | None:
    given = [values for values in lists if values is not None]
    if not given:
        return None
    if len(given) < len(lists):
        raise InputError(
            f"{what} are given for {len(given)} of {len(lists)} choices: record all or none"
        )
    return given


def _sizes(by_layer: Mapping[int, int] | None, layers: Sequence[int]) -> np.ndarray | None:
    if not by_layer:
        return None
    missing = [layer for layer in layers if layer not in by_layer]
    if missing:
        raise InputError(f"the size of an expert is given for some layers, not for {missing[0]}")
    return np.array([by_layer[layer] for layer in layers], np.int64)


def _steps(rows: Sequence[Row]) -> Integer[np.ndarray, " T"]:
    """Numbers the forward passes; the tokens of one must stand together."""
    begins = [True] + [before.run != row.run for before, row in pairwise(rows)]
    seen = set()
    for row in compress(rows, begins):
        if row.run in seen:
            raise InputError(f"pass {row.run[1]} begins again: the lines are out of order")
        seen.add(row.run)
    return np.cumsum(begins) - 1
