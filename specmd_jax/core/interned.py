"""Static arguments of programs that are called often."""

from collections.abc import Hashable
from typing import Any, Generic, TypeVar
from weakref import WeakValueDictionary

Value = TypeVar("Value", bound=Hashable)

_known: WeakValueDictionary[tuple[type, Hashable], "Interned[Any]"] = WeakValueDictionary()


class Interned(Generic[Value]):
    """A value of which there is one object, compared by identity: equal ones are made the same.

    A jitted call looks its static arguments up: hashing and comparing a nested one takes longer
    than a small program, even if the hash is remembered.
    """

    __slots__ = ("__weakref__", "value")

    value: Value

    def __new__(cls, value: Value):
        """Returns the object of this class that holds an equal value, if there is one."""
        known = _known.get((cls, value))
        if known is None:
            made = super().__new__(cls)
            made.value = value
            known = _known.setdefault((cls, value), made)
        assert isinstance(known, cls)
        return known
