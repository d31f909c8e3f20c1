"""Compiled programs are forgotten before they hold all that a process may map."""

from pathlib import Path

import jax
import jax.numpy as jnp
import pytest

from specmd_jax.core import jit
from specmd_jax.core.jit import make_room_for_programs, quick_options
from tests.helpers.compiles import compiles

linux = pytest.mark.skipif(not jit.MAPPINGS.exists(), reason="Linux alone counts mappings")


def held() -> int:
    return len(jit.MAPPINGS.read_text().splitlines())


def allow(monkeypatch: pytest.MonkeyPatch, folder: Path, most: int) -> None:
    allowed = folder / "max_map_count"
    allowed.write_text(f"{most}\n")
    monkeypatch.setattr(jit, "MOST_MAPPINGS", allowed)


def compile_another(size: int) -> None:
    jax.jit(lambda x: jnp.sort(x) * 2)(jnp.zeros(size)).block_until_ready()


@linux
def test_many_programs_stay_within_what_may_be_mapped(monkeypatch, tmp_path):
    jax.clear_caches()
    most = held() + 100
    allow(monkeypatch, tmp_path, 2 * most)
    highest = 0
    for size in range(3, 83):
        make_room_for_programs()
        compile_another(size)
        highest = max(highest, held())
    assert highest > most, "the programs never filled the room: the test shows nothing"
    assert highest < most + 100


def forgets_a_program() -> bool:
    """Whether making room has a program compiled anew."""
    doubled = jax.jit(lambda x: x * 2)
    values = jnp.zeros(3)
    with compiles() as first:
        doubled(values)
    make_room_for_programs()
    with compiles() as again:
        doubled(values)
    assert first
    return bool(again)


@linux
def test_programs_are_kept_while_there_is_room():
    assert not forgets_a_program()


def test_where_nothing_is_counted_nothing_is_forgotten(monkeypatch, tmp_path):
    monkeypatch.setattr(jit, "MOST_MAPPINGS", tmp_path / "missing")
    assert not forgets_a_program()


def test_quick_options_change_no_result():
    def step(x):
        return jnp.where(x % 3 == 0, x // 2, 3 * x + 1).cumsum()

    quick = jax.jit(step, compiler_options=quick_options())
    values = jnp.arange(100, dtype=jnp.int32)
    assert (quick(values) == jax.jit(step)(values)).all()
