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
class TreeLayout:
    """How a tree of arrays lies in a row of int32. Hashable: static to jit.

    Numbers of 32 bits keep their bits, flags and smaller integers their value.
    """

    tree: Any
    shapes: tuple[tuple[int, ...], ...]
    dtypes: tuple[np.dtype, ...]

    @classmethod
    def of(cls, tree: Any, skip: int = 0) -> "TreeLayout":
        """Returns the layout of trees like this one, of arrays or of their shapes.

        Args:
          skip: leading axes that the tree has and one row has not.
        """
        leaves, structure = jax.tree.flatten(tree)
        dtypes = tuple(np.dtype(leaf.dtype) for leaf in leaves)
        return cls(structure, tuple(leaf.shape[skip:] for leaf in leaves), dtypes)

    def pack(self, tree: Any) -> Int[np.ndarray, " M"]:
        """Returns the row of a tree of numpy arrays."""
        parts = [np.ravel(leaf) for leaf in jax.tree.leaves(tree)]
        whole = [part.view(np.int32) if _is_wide(part.dtype) else part for part in parts]
        return np.concatenate(whole, dtype=np.int32, casting="unsafe")

    def join(self, tree: Any) -> Int[Array, " M"]:
        """Returns the row of a tree; to be traced."""
        parts = [jnp.ravel(leaf) for leaf in jax.tree.leaves(tree)]
        return jnp.concatenate(
            [
                jax.lax.bitcast_convert_type(part, jnp.int32)
                if _is_wide(part.dtype)
                else part.astype(jnp.int32)
                for part in parts
            ]
        )

    def unpack(self, row: Any) -> Any:
        """Returns the tree that lies in a row, on the host or traced."""
        leaves, start = [], 0
        for shape, dtype in zip(self.shapes, self.dtypes, strict=True):
            end = start + math.prod(shape)
            leaves.append(_read(row[start:end].reshape(shape), dtype))
            start = end
        return jax.tree.unflatten(self.tree, leaves)


def _is_wide(dtype: Any) -> bool:
    return dtype in (np.float32, np.uint32)


def _read(values: Any, dtype: np.dtype) -> Any:
    if not _is_wide(dtype):
        return values.astype(dtype)
    if isinstance(values, np.ndarray):
        return values.view(dtype)
    return jax.lax.bitcast_convert_type(values, dtype)
