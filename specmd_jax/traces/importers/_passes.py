"""Which tokens of a table share a forward pass, and whose they are."""

from collections import defaultdict
from collections.abc import Sequence
from itertools import pairwise

from specmd_jax.traces.importers._build import RoutedToken, TraceBuilder
from specmd_jax.traces.importers._records import Row
from specmd_jax.traces.trace import DECODE, PREFILL


class Passes:
    """Gives rows to a builder, each with its request, its phase and its pass.

    Args:
      rows: all of the table, typed.
      stretch: of each row, see `_restarts`.
      restarts: what the user says that a stretch is.
    """

    def __init__(self, rows: Sequence[Row], stretch: Sequence[int], restarts: str | None) -> None:
        steps = [row["step"] for row in rows if "step" in row]
        self._shared = all(a <= b for a, b in pairwise(steps))  # by requests, of one step
        named = any("request" in row for row in rows)
        self._new = restarts or ("pass" if named or steps else "request")
        self._anew = max(stretch, default=0) > 0
        self._several = self._of_several_tokens(rows, stretch)
        self.notes, self.doubts = self._said(stretch, restarts)

    def add(self, builder: TraceBuilder, row: Row, stretch: int) -> None:
        """Gives one row to the builder."""
        request, step, phase = row.get("request", "0"), row.get("step"), row.get("phase", DECODE)
        run = None
        if self._anew and self._new == "request":
            request = (request, stretch)
        if step is not None:
            run = step if self._shared else (request, step)
        elif self._anew and self._new == "pass":
            run = (request, stretch)
            phase = row.get("phase", PREFILL if run in self._several else DECODE)
        elif phase == PREFILL:
            run = (request, "prefill")
        token = (
            (request, row.get("token", step))
            if not self._anew
            else (request, stretch, row.get("token", step))
        )
        where = {"request": request, "phase": phase, "run": run}
        if isinstance(row["experts"], int):
            builder.choose_one(token, row["layer"], row["experts"], row.get("weights"), **where)
        else:
            choice = RoutedToken(row["experts"], row.get("weights"), row.get("logits"))
            builder.choose(token, row["layer"], choice, **where)

    @staticmethod
    def _of_several_tokens(rows: Sequence[Row], stretch: Sequence[int]) -> set[tuple[str, int]]:
        tokens = defaultdict(set)
        for row, number in zip(rows, stretch, strict=True):
            tokens[row.get("request", "0"), number].add(row.get("token"))
        return {key for key, held in tokens.items() if len(held) > 1}

    def _said(
        self, stretch: Sequence[int], restarts: str | None
    ) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """The note of what a stretch is, or the doubt where only the table's looks say it."""
        if not self._anew:
            return (), ()
        each = "forward pass" if self._new == "pass" else "request"
        said = (
            f"token indices begin anew, up to {max(stretch)} times: each time a {each} of its own"
        )
        if self._new == "pass" and self._several:
            said += ", a prefill where it has several tokens and no phase"
        if restarts is not None:
            return (said,), ()
        other = "request" if self._new == "pass" else "pass"
        return (), (f"{said}; if each is a {other}, import with --restarts {other}",)
