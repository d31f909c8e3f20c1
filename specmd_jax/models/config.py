"""How a decoder computes: what its sizes alone, a `ModelSpec`, do not say."""

from dataclasses import dataclass, field
from itertools import pairwise
from typing import Literal

from specmd_jax.core.errors import InputError
from specmd_jax.model_zoo import GroupedQuery, Latent, ModelSpec
from specmd_kernels import SWIGLU, Activation

QkNorm = Literal["none", "full", "head"]  # over all heads together (OLMoE), each alone (Qwen3)
RouterKind = Literal["softmax", "top_k_softmax", "sigmoid", "sparsemixer"]


@dataclass(frozen=True)
class Rope:
    """Rotary position embedding, with whatever context extension already worked in."""

    theta: float  # base of the frequencies before any extension
    frequencies: tuple[float, ...]  # radians a position, of each pair of dimensions
    magnitude: float = 1.0  # of cosine and sine, YaRN's and LongRoPE's attention factor
    interleaved: bool = False  # pairs are (0, 1), (2, 3), ... and not (0, D/2), (1, D/2 + 1), ...

    @classmethod
    def plain(cls, theta: float, dim: int) -> "Rope":
        """Returns the embedding of RoFormer (arXiv 2104.09864, §3.2) for `dim` dimensions."""
        return cls(theta, tuple(theta ** (-i / dim) for i in range(0, dim, 2)))


@dataclass(frozen=True)
class Attention:
    """What attention does beside its sizes."""

    scale: float  # of the scores
    qkv_bias: bool = False
    out_bias: bool = False
    qk_norm: QkNorm = "none"
    clip: float | None = None  # bound of queries, keys and values (OLMoE)
    sinks: bool = False  # a learned score a head that only takes part in the sum (gpt-oss)


@dataclass(frozen=True)
class Router:
    """How gate logits become experts and weights, see `models.layers.router`."""

    kind: RouterKind = "softmax"
    normalize: bool = False  # weights of a token sum to 1
    scale: float = 1.0
    bias: bool = False  # of the gate's projection (gpt-oss)
    groups: int = 1  # of experts; only the best `kept_groups` are chosen from (DeepSeek)
    kept_groups: int = 1
    jitter: float = 0.01  # SparseMixer's threshold (Phi-3.5-MoE)


@dataclass(frozen=True)
class DecoderConfig:
    """One decoder of any supported family. Hashable: jitted functions take it as static.

    Raises:
      InputError: the parts contradict each other.
    """

    spec: ModelSpec
    rope: Rope
    attention: Attention
    family: str = "olmoe"  # Hugging Face's model_type: names the tensors of a checkpoint
    router: Router = field(default_factory=Router)
    activation: Activation = SWIGLU
    layer_norm: bool = False  # norms subtract the mean and have a bias (Phi-3.5-MoE)
    norm_eps: float = 1e-5
    shared_gate: bool = False  # a sigmoid weighs the shared experts (Qwen)
    embedding_multiplier: float = 1.0  # Granite's
    residual_multiplier: float = 1.0
    logits_divisor: float = 1.0
    head_bias: bool = False

    def __post_init__(self) -> None:
        for mixer in self.spec.mixers:
            if not isinstance(mixer, GroupedQuery | Latent):
                raise InputError(
                    f"{self.spec.name} has {type(mixer).__name__} layers: "
                    "grouped-query and latent attention are supported"
                )
        groups, experts = self.router.groups, self.spec.num_experts
        if experts % groups or not 1 <= self.router.kept_groups <= groups:
            raise InputError(
                f"{self.spec.name}: {experts} experts in {groups} groups of which "
                f"{self.router.kept_groups} are kept: groups must be equal, and hold those kept"
            )

    @property
    def moe_layers(self) -> tuple[int, ...]:
        """The decoder layers that have routed experts, ascending."""
        dense = set(self.spec.dense_layers)
        return tuple(i for i in range(self.spec.num_hidden_layers) if i not in dense)

    @property
    def segments(self) -> tuple[slice, ...]:
        """The decoder layers up to and with each gate, then those behind the last: maybe none."""
        stops = [0, *(index + 1 for index in self.moe_layers), self.spec.num_hidden_layers]
        return tuple(slice(*pair) for pair in pairwise(stops))


def small_olmoe(
    *,
    num_hidden_layers: int,
    num_experts: int,
    top_k: int,
    hidden_size: int,
    moe_intermediate_size: int,
    vocab_size: int,
    num_heads: int,
    normalize: bool = False,
    rope_theta: float = 10_000.0,
    name: str = "olmoe",
) -> DecoderConfig:
    """Returns a decoder of OLMoE's architecture (arXiv 2409.02060) in sizes of one's own.

    Args:
      num_hidden_layers: all of them with experts.
      num_experts: of a layer.
      top_k: experts a token.
      hidden_size: of the residual stream.
      moe_intermediate_size: width of one expert.
      vocab_size: tokens it knows.
      num_heads: of attention, each with keys and values of its own.
      normalize: whether the weights of a token sum to 1.
      rope_theta: base of the rotary frequencies.
      name: of the model.
    """
    head_dim = hidden_size // num_heads
    if hidden_size % num_heads or head_dim % 2:
        raise InputError(
            f"hidden size {hidden_size} over {num_heads} heads: each needs an even share"
        )
    spec = ModelSpec(
        name=name,
        hf_id=name,
        num_hidden_layers=num_hidden_layers,
        num_experts=num_experts,
        top_k=top_k,
        hidden_size=hidden_size,
        moe_intermediate_size=moe_intermediate_size,
        vocab_size=vocab_size,
        mixers=(GroupedQuery(num_heads, num_heads, head_dim),),
    )
    rope = Rope.plain(rope_theta, head_dim)
    attention = Attention(scale=head_dim**-0.5, qk_norm="full")
    return DecoderConfig(spec, rope, attention, router=Router(normalize=normalize))
