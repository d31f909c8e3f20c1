"""The training text of the bundled model: cleaned, split by document, encoded by an own BPE.

  python -m experiments.bundled_model.corpus --small-files FOLDER --out CORPUS

Writes tokenizer.json, one array of tokens for training and one a source that is held out, and
corpus.json with what each source gave. Training needs nothing else.
"""

import json
import random
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import tyro
from jaxtyping import UInt16
from rich.console import Console
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from experiments.bundled_model.text import SOURCES, Source

END = "<|endoftext|>"  # token 0, between documents
HELD_OUT = 20  # every so many documents one is held out ...
HELD_OUT_CHARS = 150_000  # ... until a source has given so much
PIECE = 20_000  # characters: longer documents are cut before they are shuffled


@dataclass(frozen=True)
class Options:
    """What to build and where."""

    small_files: Path
    out: Path
    vocab_size: int = 4096
    seed: int = 0


class Split(NamedTuple):
    """The documents of one source."""

    source: Source
    train: list[str]
    held_out: list[str]


class Corpus(NamedTuple):
    """What training reads."""

    tokenizer: Tokenizer
    train: UInt16[np.ndarray, " T"]
    held_out: dict[str, UInt16[np.ndarray, " t"]]


def split(source: Source, folder: Path, seed: int) -> Split:
    """Returns a source's documents, shuffled, so that a cap takes some of everything."""
    documents = [text for text in source.read(folder) if len(text) > 100]
    random.Random(f"{seed} {source.name}").shuffle(documents)
    train, held_out, used = [], [], 0
    for index, text in enumerate(documents):
        if used > source.megabytes * 1e6:
            break
        if index % HELD_OUT == 0 and sum(map(len, held_out)) < HELD_OUT_CHARS:
            held_out.append(text[:PIECE])
        else:
            train.append(text)
            used += len(text)
    return Split(source, train, held_out)


def train_tokenizer(splits: list[Split], vocab_size: int) -> Tokenizer:
    """Returns a byte-level BPE (GPT-2's) learned from the training documents."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[END],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator((text for part in splits for text in part.train), trainer)
    return tokenizer


def encode(tokenizer: Tokenizer, documents: list[str]) -> UInt16[np.ndarray, " T"]:
    """Returns all documents as one array, each ended by `END`."""
    end = tokenizer.token_to_id(END)
    ids = ([*encoding.ids, end] for encoding in tokenizer.encode_batch(documents))
    return np.concatenate([np.asarray(row, np.uint16) for row in ids])


def build(options: Options) -> None:
    """Writes the corpus; see the module."""
    console = Console(stderr=True)
    splits = []
    for source in SOURCES:
        with console.status(f"reading {source.name}"):
            splits.append(split(source, options.small_files, options.seed))
    with console.status("learning the tokenizer"):
        tokenizer = train_tokenizer(splits, options.vocab_size)
    pieces = [
        text[start : start + PIECE]
        for part in splits
        for text in part.train * part.source.repeats
        for start in range(0, len(text), PIECE)
    ]
    random.Random(options.seed).shuffle(pieces)
    options.out.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(options.out / "tokenizer.json"))
    with console.status("encoding"):
        np.save(options.out / "train.npy", encode(tokenizer, pieces))
    described = []
    for part in splits:
        held_out = encode(tokenizer, part.held_out)
        np.save(options.out / f"held-out-{part.source.name}.npy", held_out)
        row = {
            "source": part.source.name,
            "kind": part.source.kind,
            "licence": part.source.licence,
            "repeats": part.source.repeats,
            "documents": len(part.train),
            "characters": sum(map(len, part.train)),
            "held_out_characters": sum(map(len, part.held_out)),
            "held_out_tokens": len(held_out),
        }
        described.append(row)
        console.print(row)
    (options.out / "corpus.json").write_text(json.dumps(described, indent=2) + "\n")
    total = len(np.load(options.out / "train.npy", mmap_mode="r"))
    console.print(f"{total:,} training tokens in {options.out}")


def load(folder: Path) -> Corpus:
    """Returns the corpus that `build` wrote."""
    held_out = {path.stem.removeprefix("held-out-"): np.load(path)
                for path in sorted(folder.glob("held-out-*.npy"))}  # fmt: skip
    train = np.load(folder / "train.npy", mmap_mode="r")
    return Corpus(Tokenizer.from_file(str(folder / "tokenizer.json")), train, held_out)


if __name__ == "__main__":
    build(tyro.cli(Options))
