"""Runs into traces. A recorder takes what the gates of each pass chose."""

from typing import TYPE_CHECKING

from specmd_jax.core.lazy import lazy_names

if TYPE_CHECKING:
    from specmd_jax.runtime.record.model import RecordingModel as RecordingModel
    from specmd_jax.runtime.record.model import load_whole as load_whole
    from specmd_jax.runtime.record.provenance import describe_recording as describe_recording
    from specmd_jax.runtime.record.record import Continuation as Continuation
    from specmd_jax.runtime.record.recorder import Recorder as Recorder

__getattr__, __dir__, __all__ = lazy_names(
    __name__,
    {
        "model": (
            "RecordingModel",
            "load_whole",
        ),
        "provenance": ("describe_recording",),
        "record": ("Continuation",),
        "recorder": ("Recorder",),
    },
)
