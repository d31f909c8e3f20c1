"""Traces of other programs: one producer a module, recognised by what the file holds."""

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol, runtime_checkable

from specmd_jax.core.errors import InputError
from specmd_jax.core.inputs import open_input, spooled
from specmd_jax.core.names import find_name
from specmd_jax.traces.importers import (
    bigmoe,
    cache_lab,
    colibri,
    esft,
    grouped_nf4,
    llama_cpp,
    megatron,
    npz,
    nvmoe,
    policylang,
    sglang,
    specmd,
    swarm,
    table,
    vllm,
)
from specmd_jax.traces.importers._columns import COUNTS, holds_counts, key_names
from specmd_jax.traces.importers._join import join_files, part_options
from specmd_jax.traces.importers._lines import first_line, json_value
from specmd_jax.traces.importers._options import ImportOptions
from specmd_jax.traces.trace import Trace

__all__ = ["IMPORTERS", "ImportOptions", "Importer", "import_trace", "import_traces"]

_PICKLE = "a Python pickle, which is never read: save arrays or JSON"
_HEAD = 1 << 16  # bytes that recognition may look at
_FIRST_LINE = 1 << 24  # and more where the first line is longer


@runtime_checkable
class Importer(Protocol):
    """What a module of this folder offers."""

    @property
    def NAME(self) -> str:
        """What `ImportOptions.format` calls it."""
        ...

    @property
    def DESCRIPTION(self) -> str:
        """One line, for `specmd list formats`."""
        ...

    def detect(self, head: bytes, path: Path) -> bool:
        """Whether the file is of this format; `head` is its beginning, b"" for a folder."""
        ...

    def load(self, path: Path, options: ImportOptions) -> Trace:
        """Reads the file; raises `InputError` for whatever is wrong with it."""
        ...


# In this order: a format that says its name goes before one that is known by its looks.
_MODULES: tuple[Importer, ...] = (
    specmd,
    npz,
    bigmoe,
    cache_lab,
    policylang,
    megatron,
    swarm,
    grouped_nf4,
    nvmoe,
    esft,
    vllm,
    sglang,
    llama_cpp,
    colibri,
    table,
)
IMPORTERS: dict[str, Importer] = {module.NAME: module for module in _MODULES}


def import_trace(path: str | Path, options: ImportOptions | None = None) -> Trace:
    """Reads a trace of any known format, recognised by content.

    Args:
      path: a file, a pipe such as /dev/stdin, or a folder where the format is one.
      options: what the file does not say; `options.format` names the format outright.

    Raises:
      InputError: the file cannot be read, is of no known format, or is damaged.
    """
    path, options = Path(path), options or ImportOptions()
    try:
        with spooled(path) as source:
            return _importer(source, options.format).load(source, options)
    except InputError as error:
        raise InputError(f"{path.name or path}: {_one_line(error)}") from error
    except OSError as error:
        raise InputError(
            f"{path}: cannot be read ({error.strerror or _one_line(error)})"
        ) from error


def import_traces(paths: Sequence[str | Path], options: ImportOptions | None = None) -> Trace:
    """Reads one trace from several files, see `import_trace` and `_join`.

    Raises:
      InputError: a file cannot be read, they do not go together, or contradict the options.
    """
    options = options or ImportOptions()
    if len(paths) == 1:
        return import_trace(paths[0], options)
    part = part_options(options)
    return join_files([import_trace(path, part) for path in paths], options)


def _one_line(error: Exception) -> str:
    """The message without line breaks, and short even where it quotes the file."""
    message = " ".join(str(error).split())
    return message if len(message) <= 300 else f"{message[:297]}..."


def _importer(path: Path, name: str | None) -> Importer:
    head = _head(path)
    if name is not None:
        return IMPORTERS[find_name(name, IMPORTERS, f"no format {name!r}")]
    for importer in IMPORTERS.values():
        if importer.detect(head, path):
            return importer
    raise InputError(_unknown(head, path))


def _head(path: Path) -> bytes:
    if path.is_dir():
        return b""
    with open_input(path) as file:
        head = file.read(_HEAD)
        return head if b"\n" in head else head + file.readline(_FIRST_LINE)


def _unknown(head: bytes, path: Path) -> str:
    """Why nothing recognises the file, as near as its first bytes tell."""
    if path.is_dir():
        return "a folder without trace files of any known format: name the file itself"
    if not head:
        return "the file is empty: record at least one pass"
    for start, reason in (
        (b"\x1f\x8b", "gzip: unpack it first"),
        (b"\xff\xfe", "UTF-16 text: convert it to UTF-8"),
        (b"\xfe\xff", "UTF-16 text: convert it to UTF-8"),
        *((bytes([0x80, protocol]), _PICKLE) for protocol in range(2, 6)),
        (b"PK\x03\x04", "a zip archive of no known kind: give trace.npz or a recorder's .pt"),
    ):
        if head.startswith(start):
            return reason
    if b"\0" in head[:2]:
        return "binary data, or UTF-16 text: convert it to UTF-8"
    if head.lstrip()[:1] in (b"{", b"[") and holds_counts(key_names(head)):
        return COUNTS
    try:
        if first_line(head).startswith(("{", "[")):
            json_value(first_line(head))
    except InputError as error:
        return f"its first line is {error}"
    return (
        f"no format of {len(IMPORTERS)} recognises it (it begins {head[:24]!r}): "
        "name one, see `specmd list formats`"
    )
