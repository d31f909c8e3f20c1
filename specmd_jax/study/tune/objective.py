"""What tuning minimises: simulated seconds, raised by what they cost in quality and in bytes.

  objective = seconds (1 + quality_price q + bytes_price b)

with q the share of the demand that was not served as the router chose it (dropped, substituted or
rerouted; a tenth of what was loaded below the best precision), and b the bytes moved over those
that the demand would take without a cache. Replay cannot see quality: q is its stand-in, and
OPEN-LOOP.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from specmd_jax.core.errors import InputError
from specmd_jax.model_zoo import ModelSpec
from specmd_jax.simulator.batch import CONFIGS_PER_TILE
from specmd_jax.study.metrics import summarise_result
from specmd_jax.study.run import RunResult, compare
from specmd_jax.study.setup import Setup
from specmd_jax.study.tune.knobs import Knob, values_at, with_values
from specmd_jax.traces import Trace, slice_passes, slice_requests

GOALS = ("tpot", "ttft", "stall")
COARSE = 0.1  # of a dropped expert, what one below the best precision counts
BATCH = 32  # settings replayed together: always as many, so that there is one compile
WIDE = CONFIGS_PER_TILE  # where there are many more: as many as one vmap takes


class Goal(NamedTuple):
    """What counts."""

    what: str = "tpot"  # "stall": seconds that a pass waits for the link
    quality_price: float = 10.0  # at 1 a cache that drops everything would be a bargain
    bytes_price: float = 0.0


@dataclass
class Objective:
    """The objective of a trace at any setting of the knobs; it counts its simulations."""

    trace: Trace
    setup: Setup
    knobs: tuple[Knob, ...]
    goal: Goal = field(default_factory=Goal)
    spec: ModelSpec | None = None
    evaluations: int = 0

    def __call__(
        self,
        places: Float[np.ndarray, "B D"],
        on_progress: Callable[[float], None] = lambda share: None,
    ) -> Float[np.ndarray, " B"]:
        """Returns the objective at each of `places` in the unit cube, in seconds."""
        found, size = [], BATCH if len(places) <= WIDE else WIDE
        for start in range(0, len(places), size):
            found.append(self._batch(places[start : start + size], size))
            on_progress(min(1.0, (start + size) / len(places)))
        self.evaluations += len(places)
        return np.concatenate(found)

    def _batch(self, places: Float[np.ndarray, "B D"], size: int) -> Float[np.ndarray, " B"]:
        # Filled up with two corners, so that every knob differs in every batch.
        corners = np.broadcast_to([[0.25], [0.75]], (2, places.shape[1]))
        whole = np.concatenate([places, corners, np.repeat(places[:1], size, axis=0)])[:size]
        values = values_at(self.knobs, whole)
        setups = [
            replace(self.setup, params=with_values(self.setup.params, self.knobs, one))
            for one in values
        ]
        answers = compare(self.trace, setups, self.spec)[: len(places)]
        return np.asarray([self.score(answer) for answer in answers])

    def score(self, answer: RunResult) -> float:
        """Returns the objective of one answer, in seconds.

        Raises:
          InputError: the trace has no pass of the kind that is timed.
        """
        summary = summarise_result(self.trace, answer)
        seconds = {
            "tpot": summary["tpot_s"],
            "ttft": summary["ttft_s"],
            "stall": summary["stall_s"] / self.trace.num_passes,
        }[self.goal.what]
        if seconds is None:
            kind = "decode" if self.goal.what == "tpot" else "prefill"
            raise InputError(
                f"{self.goal.what} needs {kind} passes and the trace has none: "
                "choose another --objective, or form them with --prefill-tokens"
            )
        altered = summary["dropped"] + summary["substituted"] + summary["swapped"]
        altered += COARSE * int(answer.tally.counts.loads[..., 1:].sum())
        lost = altered / max(summary["accesses"], 1)
        moved = summary["loads"] / max(summary["accesses"], 1)
        return seconds * (1 + self.goal.quality_price * lost + self.goal.bytes_price * moved)


def split_requests(trace: Trace) -> tuple[Trace, Trace]:
    """Returns every second request to tune on, and the others to be judged on.

    A trace of one request is cut in its middle.

    Raises:
      InputError: there is one pass only.
    """
    requests = np.unique(trace.request).tolist()
    if len(requests) > 1:
        return slice_requests(trace, requests[::2]), slice_requests(trace, requests[1::2])
    if trace.num_passes < 2:
        raise InputError("a trace of one pass cannot be split: tune on a longer one")
    half = trace.num_passes // 2
    return slice_passes(trace, 0, half), slice_passes(trace, half, trace.num_passes)
