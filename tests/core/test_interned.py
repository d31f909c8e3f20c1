"""Static arguments: of equal values there is one object."""

import gc
import weakref

from specmd_jax.core.interned import Interned


class Other(Interned[tuple[int, str]]):
    """A class of its own."""


def test_equal_values_are_one_object() -> None:
    assert Interned((1, "a")) is Interned((1, "a"))
    assert Interned((1, "a")) != Interned((2, "a"))


def test_classes_are_kept_apart() -> None:
    assert Other((1, "a")) is Other((1, "a"))
    assert Other((1, "a")) != Interned((1, "a"))


def test_what_nobody_holds_is_forgotten() -> None:
    gone = weakref.ref(Interned((3, "b")))
    gc.collect()
    assert gone() is None
