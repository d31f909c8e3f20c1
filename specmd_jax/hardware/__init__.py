"""How fast a machine is, how big an expert is on it, and what fits."""

from typing import TYPE_CHECKING

from specmd_jax.core.lazy import lazy_names

if TYPE_CHECKING:
    from specmd_jax.hardware.profiles import HARDWARE as HARDWARE
    from specmd_jax.hardware.profiles import HardwareProfile as HardwareProfile
    from specmd_jax.hardware.profiles import get_hardware as get_hardware
    from specmd_jax.hardware.profiles import read_profile as read_profile
    from specmd_jax.hardware.profiles import write_profile as write_profile

__getattr__, __dir__, __all__ = lazy_names(
    __name__,
    {
        "profiles": (
            "HARDWARE",
            "HardwareProfile",
            "get_hardware",
            "read_profile",
            "write_profile",
        ),
    },
)
