"""A second program of docs/semantics.md: plain Python, written to be obvious and not to be fast.

It shares no line with `specmd_jax`: dicts, sets, `sorted` and Python integers, and numpy only for
float32 where the page asks for it. Tests compare the simulator with it, count by count.
"""

from tests.oracle.data import Case, Config, Costs, EventRecord, Result
from tests.oracle.simulate import simulate

__all__ = ["Case", "Config", "Costs", "EventRecord", "Result", "simulate"]
