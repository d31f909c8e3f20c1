"""The MoE feed-forward over slots: experts are read where they lie."""

from specmd_kernels.slot_ffn.api import slot_ffn
from specmd_kernels.slot_ffn.slots import GPT_OSS, SWIGLU, Activation, Slots

__all__ = ["GPT_OSS", "SWIGLU", "Activation", "Slots", "slot_ffn"]
