"""One reader of JSON that a user hands in: bounded, strict, and one line for what is wrong."""

import os
from pathlib import Path

import pytest

from specmd_jax.core.errors import InputError
from specmd_jax.core.json_files import MAX_DEPTH, parse_object, read_object


def nested(levels: int) -> str:
    return '{"a":' * levels + "1" + "}" * levels


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        (b"", "it is empty"),
        (b"{", "Expecting property name"),
        (b"[1]", "holds no JSON object"),
        (b"\xff\xfe{}", "byte 0 is not UTF-8"),
        (b'{"a": 1' + b"0" * 400 + b"}", "beyond 64 bits"),
        (b'{"a": ' + b"1" * 5000 + b"}", "beyond 64 bits"),  # more digits than int() takes
        (b'{"a": 1, "b": 2, "a": 3}', "the key 'a' is given twice"),
        (b'{"a": {"b": 1, "b": 1}}', "the key 'b' is given twice"),
        (rb'{"a": ["\ud800"]}', "half of a surrogate pair"),
        (rb'{"\udfff": 1}', "half of a surrogate pair"),
        (nested(MAX_DEPTH + 1).encode(), "nests deeper than 64 levels"),
        (b"[" * 100_000, "nests deeper than 64 levels"),
    ],
)
def test_what_is_not_strict_json_is_refused_in_one_line(text: bytes, complaint: str):
    with pytest.raises(InputError) as error:
        parse_object(text, "x.json", "give another")
    assert complaint in str(error.value) and "\n" not in str(error.value)
    assert str(error.value).startswith("x.json") and str(error.value).endswith("give another")


def test_strict_json_is_read():
    assert parse_object(b'\xef\xbb\xbf{"a": [1, 2.5, "\xc3\xa9", null]}', "x", "") == {
        "a": [1, 2.5, "é", None]
    }
    assert parse_object(nested(MAX_DEPTH), "x", "")
    assert parse_object('{"most": 9223372036854775807}', "x", "") == {"most": 2**63 - 1}


@pytest.mark.parametrize(
    ("path", "complaint"),
    [("/dev/zero", "it is a device"), (".", "folder|directory"), ("absent.json", "No such file")],
)
def test_what_is_no_file_is_refused_at_once(path: str, complaint: str):
    with pytest.raises(InputError, match=f"(?i)cannot be read .*({complaint})"):
        read_object(Path(path), "give another")


def test_a_pipe_is_read_and_one_without_a_writer_is_not_waited_for(tmp_path: Path):
    silent = tmp_path / "fifo"
    os.mkfifo(silent)
    with pytest.raises(InputError, match="it is empty"):
        read_object(silent, "give another")
    reader, writer = os.pipe()
    os.write(writer, b'{"a": 1}')
    os.close(writer)
    assert read_object(Path(f"/dev/fd/{reader}"), "give another") == {"a": 1}
    os.close(reader)


def test_a_long_file_is_refused_before_it_is_parsed(tmp_path: Path):
    long = tmp_path / "long.json"
    long.write_bytes(b'{"a": "' + b"x" * (2 << 20) + b'"}')
    assert read_object(long, "give another")
    with pytest.raises(InputError, match="longer than 1 MiB"):
        read_object(long, "give another", max_bytes=1 << 20)
