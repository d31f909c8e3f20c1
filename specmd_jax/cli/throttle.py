"""Flags of a run: how fast the link from host to device shall be."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

from tyro.conf import arg

from specmd_jax.core.errors import InputError

if TYPE_CHECKING:
    from specmd_jax.runtime.transfer.link import Link


@dataclass(frozen=True, kw_only=True)
class Throttle:
    """The link from host memory to the device."""

    rate: Annotated[
        str | None,
        arg(name="link", metavar="RATE", help_behavior_hint="(default: the device's own)"),
    ] = None
    """Throttle it, for example to 5GB/s."""
    latency: Annotated[str | None, arg(metavar="TIME", help_behavior_hint="(default: 0s)")] = None
    """Fixed time of each copy on the throttled link, for example 20us."""

    def link(self) -> "Link | None":
        """Returns the link; None for the device's own.

        Raises:
          InputError: a value is none.
        """
        from specmd_jax.core.units import parse_rate, parse_seconds
        from specmd_jax.runtime.transfer.link import ThrottledLink

        if self.rate is None:
            if self.latency is not None:
                raise InputError("--latency is of a throttled link: add --link, for example 5GB/s")
            return None
        latency_s = 0.0 if self.latency is None else parse_seconds(self.latency)
        return ThrottledLink(parse_rate(self.rate), latency_s)
