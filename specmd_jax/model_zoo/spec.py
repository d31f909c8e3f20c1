"""What a MoE model is made of, as far as caching its experts needs to know."""

from dataclasses import dataclass

from specmd_jax.core.errors import InputError
from specmd_jax.core.types import ModelShape
from specmd_jax.model_zoo.mixers import Mixer
from specmd_jax.model_zoo.precision import weight_bytes

MAX_PARAMS = 10**15  # so that its bytes, and sums of them, are exact in 64 bits


@dataclass(frozen=True)
class ModelSpec:
    """The sizes of one model. All counts are exact up to biases and norms inside attention.

    Raises:
      InputError: the sizes contradict each other.
    """

    name: str
    hf_id: str
    num_hidden_layers: int  # decoder layers, dense ones included
    num_experts: int  # routed, of one MoE layer
    top_k: int
    hidden_size: int
    moe_intermediate_size: int  # of one routed expert
    vocab_size: int
    mixers: tuple[Mixer, ...]  # repeated over the layers, so one is enough where all are alike
    dense_layers: tuple[int, ...] = ()  # decoder layers without experts, ascending
    dense_intermediate_size: int = 0
    shared_intermediate_size: int = 0  # all shared experts of a layer taken together
    tie_embeddings: bool = False
    gated: bool = True  # SwiGLU and its kin: three matrices; else two
    expert_bias: bool = False
    source: str = ""
    bare_layers: tuple[int, ...] = ()  # decoder layers of a mixer alone, ascending (Nemotron-H)
    expert_precision: str = "bf16"  # in which the checkpoint stores its routed experts
    non_expert_precision: str = "bf16"  # of the other projections: attention, shared and dense
    notes: tuple[str, ...] = ()  # what is priced roughly, or was not understood

    def __post_init__(self) -> None:
        if not 1 <= self.top_k <= self.num_experts:
            raise InputError(
                f"{self.name}: top-k {self.top_k} of {self.num_experts} experts: "
                "it must lie between 1 and their number"
            )
        if not self.mixers or self.num_moe_layers < 1:
            raise InputError(f"{self.name}: a MoE model needs a mixer and a layer with experts")
        if self.dense_layers and not self.dense_intermediate_size:
            raise InputError(f"{self.name}: give the intermediate size of the dense layers")
        if self.total_params > MAX_PARAMS:
            raise InputError(
                f"{self.name}: {self.total_params:.3g} parameters are more than any model has: "
                "check its sizes"
            )

    @property
    def num_moe_layers(self) -> int:
        return self.num_hidden_layers - len(self.dense_layers) - len(self.bare_layers)

    @property
    def shape(self) -> ModelShape:
        """The shape that traces, caches and policies speak of."""
        return ModelShape(self.num_moe_layers, self.num_experts, self.top_k)

    @property
    def expert_params(self) -> int:
        """Parameters of one routed expert, biases included."""
        return self._mlp_params(self.moe_intermediate_size) + self._expert_biases

    @property
    def routed_params(self) -> int:
        return self.num_moe_layers * self.num_experts * self.expert_params

    @property
    def attention_params(self) -> int:
        """Projections of the mixers of all decoder layers."""
        return sum(mixer.num_params(self.hidden_size) for mixer in self.layer_mixers)

    @property
    def norm_params(self) -> int:
        """Two norms a layer and the last one."""
        return (2 * self.num_hidden_layers + 1) * self.hidden_size

    @property
    def router_params(self) -> int:
        """Gates of all MoE layers."""
        return self.num_moe_layers * self.hidden_size * self.num_experts

    @property
    def shared_params(self) -> int:
        """Shared experts of all MoE layers."""
        return self.num_moe_layers * self._mlp_params(self.shared_intermediate_size)

    @property
    def dense_params(self) -> int:
        """Feed-forward blocks of all dense layers."""
        return len(self.dense_layers) * self._mlp_params(self.dense_intermediate_size)

    @property
    def head_params(self) -> int:
        """The matrix from hidden states to logits, which may also be the embedding."""
        return self.vocab_size * self.hidden_size

    @property
    def non_expert_params(self) -> int:
        """Everything that stays on the device: all but the routed experts."""
        layers = self.attention_params + self.norm_params + self.router_params
        embeddings = (1 if self.tie_embeddings else 2) * self.head_params
        return layers + self.shared_params + self.dense_params + embeddings

    @property
    def projection_params(self) -> int:
        """What a quantiser may store in fewer bits, routed experts apart."""
        return self.attention_params + self.shared_params + self.dense_params

    @property
    def total_params(self) -> int:
        return self.non_expert_params + self.routed_params

    @property
    def active_params(self) -> int:
        """Parameters that one token uses, embeddings counted whole (as SpecMD's Table 3)."""
        return self.non_expert_params + self.num_moe_layers * self.top_k * self.expert_params

    @property
    def layer_mixers(self) -> tuple[Mixer, ...]:
        """The mixer of each decoder layer, in order."""
        return tuple(self.mixers[i % len(self.mixers)] for i in range(self.num_hidden_layers))

    def expert_bytes(self, precision: str = "bf16", *, with_scales: bool = False) -> int:
        """Returns the bytes of one routed expert, see `weight_bytes`.

        Biases are small and quantisers leave them alone: they never take less than 16 bits.
        """
        weights = self._mlp_params(self.moe_intermediate_size)
        bias_precision = "fp32" if precision == "fp32" else "bf16"
        biases = weight_bytes(self._expert_biases, bias_precision)
        return weight_bytes(weights, precision, with_scales=with_scales) + biases

    def routed_bytes(self, precision: str = "bf16", *, with_scales: bool = False) -> int:
        """Returns the bytes of all routed experts: what a capacity in percent is a part of."""
        one = self.expert_bytes(precision, with_scales=with_scales)
        return self.num_moe_layers * self.num_experts * one

    def non_expert_bytes(self) -> int:
        """Returns the bytes that are resident before the first expert is cached.

        Projections are held in `non_expert_precision`; quantisers leave embeddings, head, router
        and norms in 16 bits.
        """
        rest = self.non_expert_params - self.projection_params
        return self.projection_bytes(self.projection_params) + weight_bytes(rest, "bf16")

    def projection_bytes(self, num_weights: int) -> int:
        """Returns the bytes of so many weights of attention, shared experts or dense blocks."""
        return weight_bytes(num_weights, self.non_expert_precision)

    def cache_bytes(self, context: int, precision: str = "bf16") -> int:
        """Returns the bytes that one sequence of `context` tokens keeps (its KV cache)."""
        values = sum(mixer.cache_values(context) for mixer in self.layer_mixers)
        return weight_bytes(values, precision)

    def _mlp_params(self, width: int) -> int:
        return (3 if self.gated else 2) * self.hidden_size * width

    @property
    def _expert_biases(self) -> int:
        inner = (2 if self.gated else 1) * self.moe_intermediate_size
        return inner + self.hidden_size if self.expert_bias else 0
