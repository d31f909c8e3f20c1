"""The gate on TPU: tokens along sublanes, experts along lanes."""

from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu
from jaxtyping import Array, Bool, Float

from specmd_kernels.gate_topk.kernel import run
from specmd_kernels.gate_topk.types import GateChoice, GateRule

ROWS = 128  # tokens of a block


def gate_topk(
    rule: GateRule,
    scalars: Float[Array, "2"],
    logits: Float[Array, "T N"],
    resident: Bool[Array, " N"],
    next_logits: Float[Array, "T N"] | None,
    *,
    interpret: bool = False,
) -> GateChoice:
    """See `api.gate_topk`; `scalars` are the bonus and the threshold.

    Args:
      rule: top-k, top-j and normalisation.
      scalars: the bonus of residents and the threshold of foresight.
      logits: of the gate.
      resident: experts that are on the device.
      next_logits: of the next gate by the same hidden states; None: nothing is foreseen.
      interpret: run it without the device.
    """
    return run(
        rule,
        scalars,
        logits,
        resident,
        next_logits,
        rows=min(ROWS, -(-logits.shape[0] // 8) * 8),
        whole=lambda size: size,
        scalar_spec=pl.BlockSpec(memory_space=pltpu.SMEM),
        compiler_params=pltpu.CompilerParams(dimension_semantics=("parallel",)),
        interpret=interpret,
    )
