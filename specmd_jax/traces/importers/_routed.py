"""One token under construction, and what the router chose for it at a layer."""

from collections.abc import Hashable
from dataclasses import dataclass, field
from typing import NamedTuple


class RoutedToken(NamedTuple):
    """What the router chose for one token at one layer."""

    experts: list[int]
    weights: list[float] | None = None
    logits: list[float] | None = None  # of all experts


@dataclass
class Row:
    """One token, with its choices by layer, as the file numbers them."""

    token: Hashable
    request: Hashable
    phase: int
    run: tuple[bool, Hashable]  # tokens of one forward pass share it; True: a pass of its own
    choices: dict[int, RoutedToken] = field(default_factory=dict)
