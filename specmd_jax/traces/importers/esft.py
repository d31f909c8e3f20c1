"""ESFT's expert_weights_{layer}.txt: one file a layer, one line a document.

A line is the ids of all its tokens, tab-separated, two tabs, then their weights. Top-k is not
written down: see `_topk`. Documents were fed whole; routing is causal, so each token routes as it
would in decode, and it is replayed so. Learned from recorded files of deepseek-ai/ESFT.
A folder of such files is a trace; one file alone is a trace of one layer.
"""

import re
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Shaped

from specmd_jax.core.errors import InputError
from specmd_jax.traces.importers._finish import finish
from specmd_jax.traces.importers._lines import at_line, first_line, numbered_lines
from specmd_jax.traces.importers._options import ImportOptions
from specmd_jax.traces.importers._topk import settle_top_k
from specmd_jax.traces.importers._values import integer, reals
from specmd_jax.traces.trace import Provenance, Trace

NAME = "esft"
DESCRIPTION = "expert_weights_{layer}.txt, one a layer: ids, two tabs, weights (a folder or a file)"

_FILE = re.compile(r"expert_weights_(\d{1,6})\.txt")
_LINE = re.compile(r"\d+(\t\d+)*\t\t[-\d.eE+naif]+(\t|$)")


class _Document(NamedTuple):
    experts: list[int]
    weights: list[float]


def detect(head: bytes, path: Path) -> bool:
    if path.is_dir():
        return bool(_files(path))
    line = first_line(head)
    return bool(_LINE.match(line) or ("\t" in line and not line.strip("0123456789\t")))


def load(path: Path, options: ImportOptions) -> Trace:
    """Reads every layer; all must have the same documents."""
    files = _files(path) if path.is_dir() else {_number(path): path}
    if not files:
        raise InputError("no file named expert_weights_{layer}.txt is in the folder")
    layers = [_documents(file) for file in files.values()]
    sizes = [[len(doc.experts) for doc in layer] for layer in layers]
    if any(size != sizes[0] for size in sizes):
        raise InputError("the files differ in documents or tokens: record all layers in one run")
    groups = [doc.experts for layer in layers for doc in layer]
    top_k, notes = settle_top_k(groups, options.known_top_k)
    tokens = sum(sizes[0]) // top_k
    return finish(
        _stacked([[doc.experts for doc in layer] for layer in layers], top_k, np.int64),
        step=np.arange(tokens),
        request=np.repeat(np.arange(len(sizes[0])), np.array(sizes[0]) // top_k),
        phase=np.zeros(tokens, np.uint8),
        weights=_stacked([[doc.weights for doc in layer] for layer in layers], top_k, np.float64),
        options=options,
        provenance=Provenance(
            producer="esft",
            source=path.name,
            recorded="teacher-forced, replayed as decode",
            layers=tuple(layer for layer in files if layer is not None),
        ),
        notes=notes,
    )


def _number(file: Path) -> int | None:
    match = _FILE.fullmatch(file.name)
    return int(match[1]) if match else None


def _files(folder: Path) -> dict[int, Path]:
    """The files by layer, in order."""
    found = {_FILE.fullmatch(item.name): item for item in folder.iterdir()}
    by_layer = {int(match[1]): item for match, item in found.items() if match}
    return dict(sorted(by_layer.items()))


def _documents(file: Path) -> list[_Document]:
    documents = []
    for number, line in numbered_lines(file):
        with at_line(number):
            documents.append(_document(line))
    if not documents:
        raise InputError(f"{file.name} is empty: record at least one document")
    return documents


def _document(line: str) -> _Document:
    ids, gap, scores = line.partition("\t\t")
    if not gap:
        raise InputError("expected ids, two tabs, weights: was the line cut off?")
    experts = [integer(cell, "an expert id") for cell in ids.split("\t")]
    weights = reals(scores.split("\t"), "a weight")
    if len(experts) != len(weights):
        raise InputError(f"{len(experts)} ids and {len(weights)} weights: was the line cut off?")
    return _Document(experts, weights)


def _stacked(layers: list[list[list]], top_k: int, dtype: type) -> Shaped[np.ndarray, "T L K"]:
    columns = [np.concatenate([np.array(doc, dtype) for doc in layer]) for layer in layers]
    return np.stack([column.reshape(-1, top_k) for column in columns], axis=1)
