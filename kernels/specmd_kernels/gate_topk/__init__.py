"""The gate of a MoE layer, bent towards resident experts, with a look at the next layer."""

from specmd_kernels.gate_topk.api import gate_topk
from specmd_kernels.gate_topk.types import GateChoice

__all__ = ["GateChoice", "gate_topk"]
