"""Plain text from where it is published: the sources of the bundled model's training text.

Most come as Debian packages (names as of Debian 12):
  apt install python3.11-doc debian-handbook rust-doc linux-doc-6.1 dict-gcide bible-kjv
The rest are four small files in one folder: WikiText-2's validation part, Tiny Shakespeare,
GSM8K's training part and MT-Bench's questions.
"""

import gzip
import json
import re
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from html.parser import HTMLParser
from pathlib import Path

DOC = Path("/usr/share/doc")
PYTHON = Path("/usr/lib/python3.11")

Reader = Callable[[Path], Iterator[str]]  # from the folder of small files to documents


@dataclass(frozen=True)
class Source:
    """One kind of text."""

    name: str
    kind: str  # prose, dialogue, code, manual, dictionary
    licence: str
    read: Reader
    megabytes: float  # at most this much is used
    repeats: int = 1  # times that training sees it


class _Text(HTMLParser):
    """Keeps what a reader of a page reads: no navigation, no scripts, blocks on own lines."""

    BLOCKS = frozenset({
        "p", "div", "h1", "h2", "h3", "h4", "h5", "h6", "li", "pre", "tr", "dt", "dd", "section",
        "table", "br",
    })  # fmt: skip
    HIDDEN = frozenset(["script", "style", "nav", "head", "footer", "button", "svg", "select"])

    def __init__(self) -> None:
        super().__init__()
        self.parts: list[str] = []
        self.hidden = self.literal = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.hidden += tag in self.HIDDEN
        self.literal += tag == "pre"
        if tag in self.BLOCKS:
            self.parts.append("\n")

    def handle_endtag(self, tag: str) -> None:
        self.hidden -= tag in self.HIDDEN and self.hidden > 0
        self.literal -= tag == "pre" and self.literal > 0
        if tag in self.BLOCKS:
            self.parts.append("\n")

    def handle_data(self, data: str) -> None:
        if not self.hidden:
            self.parts.append(data if self.literal else re.sub(r"\s+", " ", data))


def _page(path: Path) -> str:
    parser = _Text()
    parser.feed(_read(path))
    return "".join(parser.parts).replace("¶", "")


def _read(path: Path) -> str:
    packed = path.suffix in {".gz", ".dz"}
    raw = gzip.decompress(path.read_bytes()) if packed else path.read_bytes()
    return raw.decode("utf-8", errors="ignore")


def _tidy(text: str) -> str:
    lines = [line.rstrip() for line in text.replace("\t", "    ").splitlines()]
    return re.sub(r"\n{3,}", "\n\n", "\n".join(lines)).strip()


def _files(root: Path, pattern: str, read: Callable[[Path], str], skip: str = "$^") -> Reader:
    def documents(_: Path) -> Iterator[str]:
        for path in sorted(root.rglob(pattern)):
            if not re.search(skip, str(path)) and path.is_file():
                yield _tidy(read(path))

    return documents


def _wikipedia(folder: Path) -> Iterator[str]:
    """WikiText-2 marks titles by equals signs and leaves blanks around punctuation."""
    text = (folder / "wikitext2_valid.txt").read_text(encoding="utf-8")
    text = re.sub(r" @(.)@ ", r"\1", text).replace("<unk>", "")
    text = re.sub(r" ([.,;:!?)\]%]|'s|n't)", r"\1", re.sub(r"([(\[]) ", r"\1", text))
    text = re.sub(r'" ([^"\n]*?) "', r'"\1"', text)
    for article in re.split(r"\n(?= = [^=])", text):
        titled = re.sub(r"^ (?:= )+(.*?)(?: =)+ *$", r"\n\1\n", article, flags=re.MULTILINE)
        yield _tidy(re.sub(r" {2,}", " ", "\n".join(x.strip() for x in titled.splitlines())))


def _shakespeare(folder: Path) -> Iterator[str]:
    speeches = (folder / "tinyshakespeare.txt").read_text(encoding="utf-8").split("\n\n")
    for start in range(0, len(speeches), 60):
        yield "\n\n".join(speeches[start : start + 60])


def _sums(folder: Path) -> Iterator[str]:
    """GSM8K as a dialogue; what its solutions note for a calculator is left out."""
    for line in (folder / "gsm8k_train.jsonl").read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        answer = re.sub(r"<<.*?>>", "", row["answer"]).replace("#### ", "The answer is ")
        yield f"User: {row['question'].strip()}\nAssistant: {answer.strip()}"


def _questions(folder: Path) -> Iterator[str]:
    for line in (folder / "mt_bench_questions.jsonl").read_text(encoding="utf-8").splitlines():
        yield "\n".join(f"User: {turn.strip()}" for turn in json.loads(line)["turns"])


def _bible(_: Path) -> Iterator[str]:
    verses = subprocess.run(
        ["bible", "-f", "Gen1:1-Rev22:21"], capture_output=True, text=True, check=True
    ).stdout.splitlines()
    chapters: dict[str, list[str]] = {}
    for verse in verses:
        place, words = verse.split(" ", 1)
        chapters.setdefault(place.split(":")[0], []).append(words)
    yield from ("\n".join(words) for words in chapters.values())


def _dictionary(_: Path) -> Iterator[str]:
    text = _read(Path("/usr/share/dictd/gcide.dict.dz"))
    text = re.sub(r"\n *\[(?:1913 Webster|PJC|WordNet).*?\]", "", text)
    text = re.sub(r" \\.*?\\,", ",", re.sub(r"[{}]", "", text))
    entries = re.split(r"\n\n(?=\S)", text)
    for start in range(0, len(entries), 40):
        yield _tidy(re.sub(r"\n +", " ", "\n\n".join(entries[start : start + 40])))


RUST = r"/(src|implementors|std|core|alloc|test|proc_macro|rustc|clippy)/|print\.html|search"
SOURCES = (
    Source("wikipedia", "prose", "CC BY-SA 3.0", _wikipedia, 2, 3),
    Source("shakespeare", "dialogue", "public domain", _shakespeare, 2, 2),
    Source("gsm8k", "dialogue", "MIT", _sums, 5, 2),
    Source("mt-bench", "dialogue", "Apache-2.0", _questions, 1, 2),
    Source("bible", "prose", "public domain", _bible, 5, 2),
    Source("handbook", "manual", "CC BY-SA 3.0 or GPL-2+",
           _files(DOC / "debian-handbook/html/en-US", "*.html", _page), 3, 2),
    Source("python-doc", "manual", "PSF-2.0",
           _files(DOC / "python3.11/html", "*.html", _page, r"genindex|contents|changelog|_static"),
           7),
    Source("rust-doc", "manual", "MIT or Apache-2.0",
           _files(DOC / "rust-doc/html", "*.html", _page, RUST), 4),
    Source("linux-doc", "manual", "GPL-2",
           _files(DOC / "linux-doc-6.1/Documentation", "*.rst*", _read, "translations"), 5),
    Source("dictionary", "dictionary", "GPL-3+", _dictionary, 6),
    Source("python", "code", "PSF-2.0",
           _files(PYTHON, "*.py", _read, r"/(test|idlelib|lib2to3|encodings)/"), 4),
)  # fmt: skip
