"""The token mixers of MoE models: what attention, or what stands in its place, weighs and costs.

Each counts its projections only. Biases and the norms inside the mixer are left out: together
they stay below 0.02 % of any model here.
"""

from dataclasses import dataclass
from typing import Protocol, runtime_checkable


@runtime_checkable
class Mixer(Protocol):
    """One kind of token mixing layer."""

    def num_params(self, hidden_size: int) -> int:
        """Returns the weights of its projections."""
        ...

    def cache_values(self, context: int) -> int:
        """Returns the numbers it keeps of one sequence of `context` tokens."""
        ...

    def score_flops(self, context: float | int) -> float | int:
        """Returns the FLOPs of mixing one new token with `context` others, projections apart."""
        ...


@dataclass(frozen=True)
class GroupedQuery:
    """Softmax attention in which query heads share key and value heads.

    Multi-head attention is the case of as many key-value heads as heads.
    """

    num_heads: int
    num_key_value_heads: int
    head_dim: int
    window: int | None = None  # tokens looked back; None looks at all
    output_gate: bool = False  # a gate as wide as the queries, projected beside them
    key_is_value: bool = False  # one projection makes both
    value_head_dim: int | None = None  # None: as wide as keys

    def num_params(self, hidden_size: int) -> int:
        query = (2 if self.output_gate else 1) * self.num_heads * self.head_dim
        value = 0 if self.key_is_value else self.num_key_value_heads * self._value_dim
        key, out = self.num_key_value_heads * self.head_dim, self.num_heads * self._value_dim
        return hidden_size * (query + key + value + out)

    def cache_values(self, context: int) -> int:
        pair = self.head_dim + self._value_dim
        return self.num_key_value_heads * pair * int(self._seen(context))

    def score_flops(self, context: float | int) -> float | int:
        return 2 * self.num_heads * (self.head_dim + self._value_dim) * self._seen(context)

    @property
    def _value_dim(self) -> int:
        return self.head_dim if self.value_head_dim is None else self.value_head_dim

    def _seen(self, context: float | int) -> float | int:
        return context if self.window is None else min(context, self.window)


@dataclass(frozen=True)
class Latent:
    """Multi-head latent attention: only a low-rank latent and a rotary key are cached.

    Source: DeepSeek-V2 (arXiv 2405.04434, §2.1).
    """

    num_heads: int
    kv_lora_rank: int
    qk_nope_head_dim: int
    qk_rope_head_dim: int
    v_head_dim: int
    q_lora_rank: int = 0  # 0 projects the queries directly

    def num_params(self, hidden_size: int) -> int:
        heads, latent = self.num_heads, self.kv_lora_rank
        query_dim = heads * (self.qk_nope_head_dim + self.qk_rope_head_dim)
        if self.q_lora_rank:
            query = self.q_lora_rank * (hidden_size + query_dim)
        else:
            query = hidden_size * query_dim
        down = hidden_size * (latent + self.qk_rope_head_dim)
        up = latent * heads * (self.qk_nope_head_dim + self.v_head_dim)
        return query + down + up + heads * self.v_head_dim * hidden_size

    def cache_values(self, context: int) -> int:
        return (self.kv_lora_rank + self.qk_rope_head_dim) * context

    def score_flops(self, context: float | int) -> float | int:
        # Keys and values expanded from the latent, as prefill does.
        per_head = self.qk_nope_head_dim + self.qk_rope_head_dim + self.v_head_dim
        return 2 * self.num_heads * per_head * context


@dataclass(frozen=True)
class LowRank:
    """Attention of few keys that are values too, its queries and its output of low rank.

    DeepSeek-V4's: the output's heads are projected in groups, and one key is kept for every
    `ratio` tokens. What compresses them, and what selects among them, is left out: 3 % of it.
    """

    num_heads: int
    num_key_value_heads: int
    head_dim: int
    q_lora_rank: int
    o_lora_rank: int = 0  # 0 projects the output directly
    o_groups: int = 1
    ratio: int = 1
    key_is_value: bool = True

    def num_params(self, hidden_size: int) -> int:
        width = self.num_heads * self.head_dim
        query = self.q_lora_rank * (hidden_size + width)
        if self.o_lora_rank:
            out = self.o_lora_rank * (width + self.o_groups * hidden_size)
        else:
            out = width * hidden_size
        return query + self._key_dim * hidden_size + out

    def cache_values(self, context: int) -> int:
        return self._key_dim * -(-context // self.ratio)

    def score_flops(self, context: float | int) -> float | int:
        return 4 * self.num_heads * self.head_dim * context / self.ratio

    @property
    def _key_dim(self) -> int:
        return (1 if self.key_is_value else 2) * self.num_key_value_heads * self.head_dim


@dataclass(frozen=True)
class StateSpace:
    """Mamba-2's mixer: a state of fixed size for each head, no KV cache.

    Source: arXiv 2405.21060, and the layout of its checkpoints.
    """

    num_heads: int
    head_dim: int
    state_dim: int
    num_groups: int = 1  # of heads that share what writes and reads the state
    conv_kernel: int = 4

    def num_params(self, hidden_size: int) -> int:
        inner = self.num_heads * self.head_dim
        gate_input_and_step = hidden_size * (inner + self._convolved + self.num_heads)
        return gate_input_and_step + self.conv_kernel * self._convolved + inner * hidden_size

    def cache_values(self, context: int) -> int:
        del context  # the state does not grow
        state = self.num_heads * self.head_dim * self.state_dim
        return state + self.conv_kernel * self._convolved

    def score_flops(self, context: float | int) -> float | int:
        del context
        return 3 * 2 * self.num_heads * self.head_dim * self.state_dim  # decay, write, read

    @property
    def _convolved(self) -> int:
        return self.num_heads * self.head_dim + 2 * self.num_groups * self.state_dim


@dataclass(frozen=True)
class ShortConv:
    """LFM2's gated short convolution: three projections in, one out, a few tokens remembered."""

    kernel: int = 3

    def num_params(self, hidden_size: int) -> int:
        return (4 * hidden_size + self.kernel) * hidden_size

    def cache_values(self, context: int) -> int:
        return 0 * context  # some tokens' inputs, which have no size here: a thousandth of weights

    def score_flops(self, context: float | int) -> float | int:
        return 0 * context


@dataclass(frozen=True)
class NoMixer:
    """A layer of a feed-forward block alone (Nemotron-H)."""

    def num_params(self, hidden_size: int) -> int:
        return 0 * hidden_size

    def cache_values(self, context: int) -> int:
        return 0 * context

    def score_flops(self, context: float | int) -> float | int:
        return 0 * context


@dataclass(frozen=True)
class GatedDelta:
    """Gated DeltaNet, the linear attention of Qwen3-Next: a state of fixed size, no KV cache.

    Source: arXiv 2412.06464, and the layout of Qwen3-Next's checkpoint.
    """

    num_key_heads: int
    num_value_heads: int
    key_head_dim: int
    value_head_dim: int
    conv_kernel: int = 4

    def num_params(self, hidden_size: int) -> int:
        keys = self.num_key_heads * self.key_head_dim
        values = self.num_value_heads * self.value_head_dim
        query_key_value_gate = hidden_size * (2 * keys + 2 * values)
        decay_and_rate = hidden_size * 2 * self.num_value_heads
        conv = self.conv_kernel * (2 * keys + values)
        return query_key_value_gate + decay_and_rate + conv + values * hidden_size

    def cache_values(self, context: int) -> int:
        del context  # the state does not grow
        return self.num_value_heads * self.key_head_dim * self.value_head_dim

    def score_flops(self, context: float | int) -> float | int:
        del context
        # Read the state with the key, write the correction, read it with the query.
        return 3 * 2 * self.num_value_heads * self.key_head_dim * self.value_head_dim
