"""Miss: what to do about an absent expert. A new policy is a file here and a line in the dict."""

from specmd_jax.policies.base import Miss
from specmd_jax.policies.miss import (
    cpu,
    drop_priority,
    drop_priority_cascade,
    fetch,
    fetch_lowest_bit,
    fetch_priority,
    substitute,
    substitute_unbounded,
)

MISSES: dict[str, Miss] = {
    "cpu": cpu.policy,
    "drop-priority": drop_priority.policy,
    "drop-priority-cascade": drop_priority_cascade.policy,
    "fetch": fetch.policy,
    "fetch-lowest-bit": fetch_lowest_bit.policy,
    "fetch-priority": fetch_priority.policy,
    "substitute": substitute.policy,
    "substitute-unbounded": substitute_unbounded.policy,
}
