"""All routed experts of a model in host memory, each packed so that one copy brings it over.

A transfer costs some 40 us whatever its size, so an expert is one array and not three or five.
The arrays are frozen: on CPU `device_put` shares the memory of an aligned numpy array.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.stages import Wrapped
from jaxtyping import Array, Integer, Shaped

from specmd_jax.hardware.capacity import BASE_PRECISION
from specmd_jax.models import Checkpoint, ExpertWeights
from specmd_jax.models.experts.quantize import PackedExpert, dequantize, quantize

Packed = jax.Array | np.ndarray  # [P], one copy of an expert
AS_STORED = (BASE_PRECISION,)  # one tier: experts as they are given, in whatever precision
SMALL_BYTES = 512 << 10  # the Python of `device_put` takes as long as copying so much


@dataclass(frozen=True)
class Packing:
    """How the weights of an expert lie in a row of P numbers. Hashable: static to jit."""

    shapes: tuple[tuple[int, ...], ...]  # of each array, without "many"
    dtypes: tuple[np.dtype, ...]
    tree: Any  # of `ExpertWeights` or `PackedExpert`
    row: np.dtype  # of the numbers: the arrays' own where one holds for all, else bytes
    compute: np.dtype  # of the weights as they are computed with

    @property
    def nbytes(self) -> int:
        """The bytes of one copy."""
        sizes = zip(self.shapes, self.dtypes, strict=True)
        return sum(int(np.prod(shape)) * dtype.itemsize for shape, dtype in sizes)

    @property
    def size(self) -> int:
        """P, the numbers of one copy."""
        return self.nbytes // self.row.itemsize

    def pack(self, experts: ExpertWeights | PackedExpert) -> Shaped[np.ndarray, "N P"]:
        """Returns experts of a layer, [N, ...], as frozen rows on the host."""
        parts = [np.ascontiguousarray(leaf) for leaf in jax.tree.leaves(experts)]
        many = len(parts[0])
        flat = [part.reshape(many, -1).view(np.uint8) for part in parts]
        rows = np.concatenate(flat, axis=1).view(self.row)
        rows.flags.writeable = False
        return rows

    def parts(self, row: Shaped[Array | np.ndarray, " P"]) -> ExpertWeights | PackedExpert:
        """Returns the arrays that lie in a row, as they are kept; to be traced."""
        leaves, start = [], 0
        for shape, dtype in zip(self.shapes, self.dtypes, strict=True):
            width = int(np.prod(shape)) * dtype.itemsize // self.row.itemsize
            part = jax.lax.slice_in_dim(row, start, start + width)
            if dtype != self.row:
                part = jax.lax.bitcast_convert_type(part.reshape(-1, dtype.itemsize), dtype)
            leaves.append(part.reshape(shape))
            start += width
        return jax.tree.unflatten(self.tree, leaves)

    def empty(self, many: int) -> ExpertWeights | PackedExpert:
        """Returns room for many copies, [many, ...], on the device."""
        sizes = zip(self.shapes, self.dtypes, strict=True)
        leaves = [jnp.zeros((many, *shape), dtype) for shape, dtype in sizes]
        return jax.tree.unflatten(self.tree, leaves)

    def to_compute(self, experts: ExpertWeights | PackedExpert) -> ExpertWeights:
        """Returns the weights to compute with of what is kept; to be traced."""
        return dequantize(experts, self.compute) if isinstance(experts, PackedExpert) else experts


def packing_of(
    experts: ExpertWeights | PackedExpert, compute: Any, *, in_bytes: bool = False
) -> Packing:
    """Returns how experts of these shapes, [N, ...], are packed.

    Args:
      experts: of a layer.
      compute: dtype of the weights as they are computed with.
      in_bytes: whether rows are bytes in any case, as where tiers share memory.
    """
    leaves, tree = jax.tree.flatten(experts)
    dtypes = tuple(np.dtype(leaf.dtype) for leaf in leaves)
    alike = not in_bytes and len(set(dtypes)) == 1
    row = dtypes[0] if alike else np.dtype(np.uint8)
    return Packing(tuple(leaf.shape[1:] for leaf in leaves), dtypes, tree, row, np.dtype(compute))


class ExpertStore:
    """The experts of a model, by precision tier, MoE layer and expert.

    Attributes:
      precisions: of the tiers, best first.
      packings: of the tiers.
      shape: MoE layers and experts of each.
      nbytes: of all of them.
    """

    def __init__(
        self,
        layers: Callable[[int], ExpertWeights],
        num_layers: int,
        precisions: tuple[str, ...] = AS_STORED,
    ):
        """Packs a model layer by layer, so that only one layer is in memory twice.

        Args:
          layers: gives the weights of a MoE layer, [N, ...].
          num_layers: L.
          precisions: best first; bf16 alone keeps the experts as they are given.

        Raises:
          InputError: a precision is unknown, or does not go with the experts' sizes.
        """
        self.precisions = precisions
        self._rows: list[list[list[Packed]]] = [[] for _ in precisions]
        packings: list[Packing] = []
        tiered = precisions != AS_STORED
        for layer in range(num_layers):
            given = layers(layer)
            for tier, precision in enumerate(precisions):
                kept = quantize(given, precision) if tiered else given
                if layer == 0:
                    packings.append(packing_of(kept, given.down.dtype, in_bytes=tiered))
                self._rows[tier].append(_on_host(packings[tier].pack(kept)))
        self.packings = tuple(packings)
        self.shape = num_layers, len(self._rows[0][0])
        self.nbytes = int(np.prod(self.shape)) * sum(one.nbytes for one in packings)

    @classmethod
    def repeated(
        cls, experts: ExpertWeights, num_layers: int, precisions: tuple[str, ...] = AS_STORED
    ) -> "ExpertStore":
        """Returns a store all of whose layers are the same memory: for timing, not for text.

        Args:
          experts: of every layer, [N, ...].
          num_layers: L.
          precisions: see `ExpertStore`.
        """
        store = cls(lambda layer: experts, 1, precisions)
        store._rows = [tier * num_layers for tier in store._rows]
        store.shape = num_layers, store.shape[1]
        store.nbytes *= num_layers
        return store

    def __getitem__(self, place: tuple[int, int, int]) -> Packed:
        """Returns the copy at (tier, layer, expert)."""
        tier, layer, expert = place
        return self._rows[tier][layer][expert]

    @property
    def copy_bytes(self) -> Integer[np.ndarray, "L Q"]:
        """The bytes of one copy, by layer and tier."""
        sizes = [packing.nbytes for packing in self.packings]
        return np.tile(np.asarray(sizes, np.int64), (self.shape[0], 1))


def store_checkpoint(
    checkpoint: Checkpoint,
    dtype: jnp.dtype | type | None = None,
    precisions: tuple[str, ...] = AS_STORED,
) -> ExpertStore:
    """Returns the experts of a checkpoint.

    Args:
      checkpoint: its files.
      dtype: in which they are computed with; None: as they are stored.
      precisions: in which they are kept, see `ExpertStore`.

    Raises:
      InputError: a tensor is missing or has another shape than config.json asks for.
    """
    num_layers = checkpoint.config.spec.num_moe_layers
    return ExpertStore(lambda layer: checkpoint.experts(layer, dtype), num_layers, precisions)


def host_sharding() -> jax.sharding.Sharding | None:
    """Returns pinned host memory, from where copies need no staging; None if there is none."""
    device = jax.local_devices()[0]
    if "pinned_host" not in {memory.kind for memory in device.addressable_memories()}:
        return None
    return jax.sharding.SingleDeviceSharding(device, memory_kind="pinned_host")


def device_sharding() -> jax.sharding.Sharding:
    """Returns the memory of the device that computes."""
    device = jax.local_devices()[0]
    return jax.sharding.SingleDeviceSharding(device, memory_kind=device.default_memory().kind)


def _on_host(rows: Shaped[np.ndarray, "N P"]) -> list[Packed]:
    sharding = host_sharding()
    if sharding is None:
        return list(rows)
    return jax.block_until_ready(jax.device_put(list(rows), sharding))


def to_device(expert: Packed) -> Shaped[Array, " P"]:
    """Begins to copy an expert to the device, and returns it at once.

    Where the device is a CPU, a compiled `device_put` copies a small expert in a tenth of the time
    that `device_put` itself takes to begin. From a large one it would not return at once.
    """
    copied = _copied()
    if copied is None or expert.nbytes > SMALL_BYTES:
        return jax.device_put(expert, device_sharding())
    return copied(expert)


@cache
def _copied() -> Wrapped | None:
    if jax.local_devices()[0].platform != "cpu":
        return None  # elsewhere programs run one after the other: it would wait for what computes
    sharding = device_sharding()
    return jax.jit(lambda row: jax.device_put(row, sharding))
