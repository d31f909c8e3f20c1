"""Static arguments of programs that are called often."""

from collections.abc import Hashable
from typing import Generic, TypeVar

Value = TypeVar("Value", bound=Hashable)


class Static(Generic[Value]):
    """A value whose hash is remembered, and which is compared by identity first.

    A jitted call looks its static arguments up: hashing and comparing a nested one takes longer
    than a small program.
    """

    __slots__ = ("_hash", "value")

    def __init__(self, value: Value):
        self.value = value
        self._hash = hash(value)

    def __hash__(self) -> int:
        return self._hash

    def __eq__(self, other: object) -> bool:
        if self is other:
            return True
        if not isinstance(other, Static) or self._hash != other._hash:
            return False
        return self.value == other.value
