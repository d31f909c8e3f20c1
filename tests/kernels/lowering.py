"""Lowering for a machine that is not there."""

from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import jax
from jax.sharding import AbstractDevice, AbstractMesh, use_abstract_mesh

H100 = AbstractDevice(device_kind="NVIDIA H100 80GB HBM3", num_cores=None, platform="cuda")


def lowered(call: Callable[..., Any], *shapes: Any, platform: str) -> str:
    """Returns what `call` is lowered to, as text.

    Since JAX 0.12 Triton asks which GPU it lowers for, which only an abstract mesh tells where
    there is none.
    """
    mesh = AbstractMesh((), (), abstract_device=H100)
    with use_abstract_mesh(mesh) if platform == "cuda" else nullcontext():
        return jax.jit(call).trace(*shapes).lower(lowering_platforms=(platform,)).as_text()
