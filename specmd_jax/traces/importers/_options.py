"""What a user may say about a file that the file itself does not."""

from dataclasses import dataclass

from specmd_jax.core.errors import InputError
from specmd_jax.traces.trace import MAX_EXPERTS


@dataclass(frozen=True)
class ImportOptions:
    """Facts that go before those in the file; None or "" leaves the file to speak.

    Raises:
      InputError: a number is out of range.
    """

    format: str | None = None  # the NAME of an importer; None recognises it by content
    num_experts: int | None = None  # routed experts of a layer
    top_k: int | None = None  # experts a token, for formats that only list ids
    model: str = ""

    def __post_init__(self) -> None:
        for name in ("num_experts", "top_k"):
            value = getattr(self, name)
            if value is not None and not 1 <= value <= MAX_EXPERTS:
                raise InputError(
                    f"{name} {value} is outside 1..{MAX_EXPERTS}: give what the model card says"
                )
