"""The gate on GPU, by Triton: a few tokens a program, widths that are powers of two.

Not by Mosaic GPU, which knows no layout for a row's maximum beside the row itself.
"""

from jax.experimental import pallas as pl
from jax.experimental.pallas import triton as pltriton
from jaxtyping import Array, Bool, Float

from specmd_kernels.gate_topk.kernel import run
from specmd_kernels.gate_topk.types import GateChoice, GateRule

ROWS = 8  # tokens of a program


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
        rows=ROWS,
        whole=pl.next_power_of_2,
        scalar_spec=pl.BlockSpec(memory_space=pl.ANY),
        compiler_params=pltriton.CompilerParams(num_warps=4, num_stages=1),
        interpret=interpret,
    )
