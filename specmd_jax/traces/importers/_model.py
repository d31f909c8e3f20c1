"""Whether what was read can be of the model that the user names."""

from specmd_jax.core.errors import InputError
from specmd_jax.core.types import ModelShape


def check_shape(found: ModelShape, model: ModelShape, name: str) -> None:
    """Raises InputError if what was read cannot be of the model that the user names.

    A model of 0 layers stands for a part of one.
    """
    if found.num_experts != model.num_experts or model.num_layers not in (0, found.num_layers):
        more = found.num_layers > model.num_layers > 0
        raise InputError(
            f"model {name} has {model.num_layers or 'such'} MoE layers of {model.num_experts} "
            f"experts, the trace {found.num_layers} of {found.num_experts}: give the model that "
            "was recorded, or leave it out"
            + ("; what is no layer of the model is left out by --layers" if more else "")
        )
    if found.top_k != model.top_k:
        raise InputError(
            f"model {name} chooses {model.top_k} experts a token, the trace has {found.top_k}: "
            "give the model that was recorded, or leave it out"
        )
