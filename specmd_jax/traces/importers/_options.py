"""What a user may say about a file that the file itself does not."""

import re
from dataclasses import dataclass
from typing import Literal, get_args

from specmd_jax.core.errors import InputError
from specmd_jax.core.types import ModelShape
from specmd_jax.traces.trace import MAX_EXPERTS

Axes = Literal["tokens-first", "layers-first"]
Ids = Literal["per-layer", "global"]
Join = Literal["layers", "requests"]
Restarts = Literal["pass", "request"]

_CHOICES = {"axes": Axes, "ids": Ids, "join": Join, "restarts": Restarts}
_SPAN = re.compile(r"(\d{1,6})(?:(:)(\d{1,6})?)?|(:)(\d{1,6})")


@dataclass(frozen=True)
class ImportOptions:
    """Facts that go before those in the file; None or "" leaves the file to speak.

    Raises:
      InputError: a number is out of range, a word is unknown, or two facts contradict each other.
    """

    format: str | None = None  # the NAME of an importer; None recognises it by content
    num_experts: int | None = None  # routed experts of a layer
    top_k: int | None = None  # experts a token
    model: str = ""
    shape: ModelShape | None = None  # of that model: it supplies what is not recorded
    layers: str | None = None  # those to keep, as the file numbers them: "0:4" or "0,2,5:"
    axes: str | None = None  # of arrays [tokens, layers, k] or [layers, tokens, k], see Axes
    ids: str | None = None  # whether expert ids begin at 0 in each layer, see Ids
    shared_experts: tuple[int, ...] | None = None  # ids to leave out; (): none is shared
    join: str | None = None  # what several files of one trace are, see Join
    restarts: str | None = None  # what begins where a token index begins anew, see Restarts

    def __post_init__(self) -> None:
        for name in ("num_experts", "top_k"):
            value = getattr(self, name)
            if value is not None and not 1 <= value <= MAX_EXPERTS:
                raise InputError(
                    f"{name} {value} is outside 1..{MAX_EXPERTS}: give what the model card says"
                )
            known = self.shape and getattr(self.shape, name)
            if known and value not in (None, known):
                raise InputError(
                    f"{name} {value} contradicts model {self.model}, which has {known}: "
                    "leave out one of the two"
                )
        for name, kind in _CHOICES.items():
            if getattr(self, name) not in (None, *get_args(kind)):
                raise InputError(
                    f"{name} is {getattr(self, name)!r}: choose {' or '.join(get_args(kind))}"
                )
        _spans(self.layers or "0")

    @property
    def known_experts(self) -> int | None:
        """Routed experts of a layer, as far as the user or the model says."""
        return self.num_experts or (self.shape and self.shape.num_experts) or None

    @property
    def known_top_k(self) -> int | None:
        """Experts a token, as far as the user or the model says."""
        return self.top_k or (self.shape and self.shape.top_k) or None

    def keeps(self, layer: int) -> bool:
        """Whether a layer, by the file's number, is to be read."""
        return self.layers is None or any(layer in span for span in _spans(self.layers))


def _spans(text: str) -> list[range]:
    spans = []
    for part in text.split(","):
        match = _SPAN.fullmatch(part.strip())
        if match is None:
            raise InputError(f"layers {text[:40]!r} are no list of spans: write 0:4, or 0,2,5:")
        start = int(match[1] or 0)
        stop = match[3] or match[5]
        open_end = 1 << 20 if match[2] else start + 1
        spans.append(range(start, int(stop) if stop else open_end))
    return spans
