"""Many small arrays as one: what goes into a program or comes out of it costs by the piece.

A jitted call takes some 10 us for each numpy array that it is handed, which is more than the
decisions themselves take.
"""

import math
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int


@dataclass(frozen=True)
class Wire:
    """How a tree of whole numbers and flags lies in a row of int32. Hashable: static to jit."""

    tree: Any
    shapes: tuple[tuple[int, ...], ...]
    dtypes: tuple[np.dtype, ...]

    @classmethod
    def of(cls, tree: Any) -> "Wire":
        """Returns the wire for trees like this one, of arrays or of their shapes."""
        leaves, structure = jax.tree.flatten(tree)
        dtypes = tuple(np.dtype(leaf.dtype) for leaf in leaves)
        return cls(structure, tuple(leaf.shape for leaf in leaves), dtypes)

    def pack(self, tree: Any) -> Int[np.ndarray, " M"]:
        """Returns the row of a tree of numpy arrays."""
        leaves = jax.tree.leaves(tree)
        return np.concatenate([np.ravel(leaf) for leaf in leaves], dtype=np.int32, casting="unsafe")

    def join(self, tree: Any) -> Int[Array, " M"]:
        """Returns the row of a tree; to be traced."""
        leaves = jax.tree.leaves(tree)
        return jnp.concatenate([jnp.ravel(leaf).astype(jnp.int32) for leaf in leaves])

    def unpack(self, row: Any) -> Any:
        """Returns the tree that lies in a row, on the host or traced."""
        leaves, start = [], 0
        for shape, dtype in zip(self.shapes, self.dtypes, strict=True):
            end = start + math.prod(shape)
            leaves.append(row[start:end].reshape(shape).astype(dtype))
            start = end
        return jax.tree.unflatten(self.tree, leaves)
