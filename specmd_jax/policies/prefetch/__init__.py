"""Prefetch: what to bring early. A new policy is a file beside these and a line in the dict."""

from specmd_jax.policies.base import Prefetch
from specmd_jax.policies.prefetch import (
    activation_matrix,
    hottest,
    next_gate,
    next_gate_mass,
    next_gate_percentile,
    next_gate_quantile,
    noisy_oracle,
    none,
    oracle,
    previous,
    transition,
)

PREFETCHES: dict[str, Prefetch] = {
    "activation-matrix": activation_matrix.policy,
    "hottest": hottest.policy,
    "next-gate": next_gate.policy,
    "next-gate-mass": next_gate_mass.policy,
    "next-gate-percentile": next_gate_percentile.policy,
    "next-gate-quantile": next_gate_quantile.policy,
    "noisy-oracle": noisy_oracle.policy,
    "none": none.policy,
    "oracle": oracle.policy,
    "previous": previous.policy,
    "transition": transition.policy,
}
