"""What a gate says: the chosen experts and scores. It is brought to the host, as an event."""

from typing import TYPE_CHECKING

from specmd_jax.core.lazy import lazy_names

if TYPE_CHECKING:
    from specmd_jax.runtime.gates.gate_events import GateChoices as GateChoices
    from specmd_jax.runtime.gates.gate_events import GatePosition as GatePosition
    from specmd_jax.runtime.gates.gate_events import make_events as make_events
    from specmd_jax.runtime.gates.message import MessageLayout as MessageLayout
    from specmd_jax.runtime.gates.scores import PassRecord as PassRecord
    from specmd_jax.runtime.gates.scores import RecordOptions as RecordOptions

__getattr__, __dir__, __all__ = lazy_names(
    __name__,
    {
        "gate_events": (
            "GateChoices",
            "GatePosition",
            "make_events",
        ),
        "message": ("MessageLayout",),
        "scores": (
            "PassRecord",
            "RecordOptions",
        ),
    },
)
