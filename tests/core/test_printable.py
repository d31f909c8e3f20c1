"""What may be shown is all that is shown."""

import os
import sys
import unicodedata

import pytest

from specmd_jax.core.printable import printable, printable_prose, printable_record


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain, naïve, 模型, 🙂", "plain, naïve, 模型, 🙂"),
        ("\x1b]0;PWN\x07\x1b[2J", r"\x1b]0;PWN\x07\x1b[2J"),
        ("a\r\nb\tc\x7f\x9b31m", r"a\r\nb\tc\x7f\x9b31m"),
        ("evil\u202egnp.exe\u2066", r"evil\u202egnp.exe\u2066"),
        ("zero\u200bwidth\ufeff", r"zero\u200bwidth\ufeff"),
        ("x\ud800y", r"x\ud800y"),
        (os.fsdecode(b"\xff\xfename"), r"\xff\xfename"),
        ("\U000e0041", r"\U000e0041"),
    ],
)
def test_what_acts_is_written_out(text: str, shown: str) -> None:
    assert printable(text) == shown
    assert printable(shown) == shown, "once is enough"


def test_every_character_that_acts_is_known() -> None:
    everything = "".join(map(chr, range(sys.maxunicode + 1)))
    left = {unicodedata.category(char) for char in printable(everything)}
    assert not left & {"Cc", "Cf", "Cs", "Zl", "Zp"}


def test_prose_keeps_its_lines_and_joiners() -> None:
    family = "\N{MAN}\u200d\N{WOMAN}\u200d\N{GIRL}"
    assert printable_prose(f"one\n\ttwo {family}\x1b[2J") == f"one\n\ttwo {family}\\x1b[2J"


def test_a_record_is_shown_whole() -> None:
    record = {"a\x1b": ["b\x07", ("c\u202e", 1)], "d": None}
    assert printable_record(record) == {r"a\x1b": [r"b\x07", [r"c\u202e", 1]], "d": None}
