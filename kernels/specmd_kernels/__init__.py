"""Pallas kernels of the three hot loops: expert feed-forward, gate and cache simulation.

Each op is a folder: `api` to call, `reference` that defines it, one file a backend, and
`arg_specs` with the shapes of real models. Nothing here knows of `specmd_jax`.
"""

from specmd_kernels.cache_sim import (
    CachePolicy,
    SimCounts,
    SimOutcome,
    SimView,
    cache_sim,
)
from specmd_kernels.dispatch import Implementation, preferred
from specmd_kernels.gate_topk import GateChoice, gate_topk
from specmd_kernels.slot_ffn import GPT_OSS, SWIGLU, Activation, Slots, slot_ffn

__all__ = [
    "GPT_OSS",
    "SWIGLU",
    "Activation",
    "CachePolicy",
    "GateChoice",
    "Implementation",
    "SimCounts",
    "SimOutcome",
    "SimView",
    "Slots",
    "cache_sim",
    "gate_topk",
    "preferred",
    "slot_ffn",
]
