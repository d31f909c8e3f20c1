"""Replays a trace through a cache: one program for each configuration."""

from specmd_kernels.cache_sim.api import cache_sim
from specmd_kernels.cache_sim.policy import CachePolicy, SimCounts, SimOutcome, SimView

__all__ = ["CachePolicy", "SimCounts", "SimOutcome", "SimView", "cache_sim"]
