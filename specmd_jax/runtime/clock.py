"""Who is told what is computed when: nobody on a real machine, a clock in a run without one.

With a clock that this moves forward, the loops of the runtime take place in a time of their own,
and two runs of the same passes are the same to the last tick.
"""

from collections.abc import Callable
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Bool

from specmd_jax.runtime.decide.layer_work import LayerWork


@runtime_checkable
class ComputeObserver(Protocol):
    """Is told what is computed, in the order in which the device does it."""

    def begin_pass(self, tokens: int) -> None:
        """A pass begins.

        Args:
          tokens: of all sequences.
        """
        ...

    def gate_fires(self) -> None:
        """Attention and gate of a MoE layer are computed; its gate fires now."""
        ...

    def compute(self, work: LayerWork, experts: Bool[np.ndarray, " N"]) -> None:
        """Some experts are computed on the device."""
        ...

    def compute_resident(self, work: Callable[[], LayerWork]) -> None:
        """All experts of a layer are computed, from slots; whoever cares may ask which."""
        ...

    def layer_done(self, work: LayerWork) -> None:
        """The routed experts of a layer are computed, those on the host, too."""
        ...

    def end_pass(self) -> None:
        """The logits are computed."""
        ...


class RealTime:
    """A real machine: its own clock goes on without being told."""

    def begin_pass(self, tokens: int) -> None:
        """See `ComputeObserver`."""

    def gate_fires(self) -> None:
        """See `ComputeObserver`."""

    def compute(self, work: LayerWork, experts: Bool[np.ndarray, " N"]) -> None:
        """See `ComputeObserver`."""

    def compute_resident(self, work: Callable[[], LayerWork]) -> None:
        """See `ComputeObserver`."""

    def layer_done(self, work: LayerWork) -> None:
        """See `ComputeObserver`."""

    def end_pass(self) -> None:
        """See `ComputeObserver`."""
