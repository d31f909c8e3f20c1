"""Mutations that know the format: bytes, lines, cells, archives, array headers, pickles."""

import io
import json
import pickletools
import re
import struct
import zipfile
from collections.abc import Callable
from random import Random

from tests.fuzz.trees import RAW, mutated_json

Mutation = Callable[[bytes, Random], bytes]

CELLS = [
    b"", b"-1", b"-7", b"0", b"3", b"8", b"4096", b"99999", b"2147483648", b"9" * 25, b"9" * 5000,
    b"1e999", b"NaN", b"nan", b"Infinity", b"-inf", b"null", b"true", b'""', b"{}", b"[]",
    b"[" * 3000, b",", b"\t", b"\t\t", b"\n", b"\r\n", b"\r", b"\x00", b"\xff\xfe", b"\xef\xbb\xbf",
    b"\xf0\x9f", b"\xed\xa0\x80", b"#", b'"', b"}", b"]", b":", b"=", b"0.5", b"-0.5", b"prefill",
    b"\x80\x04", b"cos\nsystem\n", b"\x1b[31m", b" " * 3000, b"1 2 3 4 5 6 7 8", b"a" * 70_000,
]  # fmt: skip
_NUMBER = re.compile(rb"-?\d+(\.\d+)?")
_SHAPE = re.compile(rb"\(([0-9, ]*)\)")
_TYPES = [
    b"|O",
    b"<i8",
    b">i8",
    b"<u8",
    b"<f2",
    b"|b1",
    b"<U16",
    b"|u1",
    b"<c16",
    b"<M8[ns]",
    b"V9",
]
_OPCODES = [
    b"]", b"}", b")", b"(", b"\x85", b"\x86", b"N", b"\x88", b"K\x05", b"J\xff\xff\xff\xff",
    b"q\x00", b"q\xff", b"h\x00", b"\x94", b"e", b"a", b"s", b"u", b"t", b"R", b"Q", b"0", b".",
    b"cos\nsystem\n", b"ctorch\nIntStorage\n", b"\x8a\xff" + b"\x7f" * 255, b"i", b"\x8f",
    b"X\x02\x00\x00\x00ab", b"G" + b"\x7f" * 8, b"X\xff\xff\xff\x7f", b"r\xff\xff\xff\x7f",
    b"j\x00\x00\x00\x00",
]  # fmt: skip


def mutated_bytes(data: bytes, rng: Random) -> bytes:
    """One thing changed anywhere: a bit, a piece, a number, a line."""
    at = rng.randint(0, len(data))
    end = min(at + rng.randint(1, 16), len(data))
    match rng.choice(("flip", "flip", "cut", "double", "end", "insert", "number", "line")):
        case "flip":
            changed = bytes([data[at] ^ (1 << rng.randrange(8))]) if at < len(data) else b""
            return data[:at] + changed + data[at + 1 :]
        case "cut":
            return data[:at] + data[end:]
        case "double":
            return data[:end] + data[at:]
        case "end":
            return data[:at]
        case "insert":
            return data[:at] + rng.choice(CELLS) + data[at:]
        case "number" if found := list(_NUMBER.finditer(data)):
            match = rng.choice(found)
            return data[: match.start()] + rng.choice(CELLS) + data[match.end() :]
    lines = data.split(b"\n")
    i, j = rng.randrange(len(lines)), rng.randrange(len(lines))
    match rng.choice(("drop", "double", "swap")):
        case "drop":
            del lines[i]
        case "double":
            lines.insert(j, lines[i])
        case "swap":
            lines[i], lines[j] = lines[j], lines[i]
    return b"\n".join(lines)


def mutated_cells(data: bytes, rng: Random) -> bytes:
    """A cell of a table replaced, doubled or dropped; now and then a whole column, or the text."""
    lines = data.split(b"\n")
    gap = next((gap for gap in (b"\t", b",", b" ") if gap in data), b",")
    number = rng.randrange(len(lines))
    rows = range(len(lines)) if rng.random() < 0.2 else [number]
    cells = lines[number].split(gap)
    place = rng.randrange(len(cells))
    kind, new = rng.choice(("replace", "replace", "drop", "double")), rng.choice(CELLS)
    for row in rows:
        cells = lines[row].split(gap)
        if place < len(cells):
            put = {"replace": [new], "drop": [], "double": [cells[place]] * 2}[kind]
            lines[row] = gap.join(cells[:place] + put + cells[place + 1 :])
    text = b"\n".join(lines)
    return text.decode("utf-8", "replace").encode("utf-16") if rng.random() < 0.01 else text


def mutated_tree(keys: list[str]) -> Mutation:
    """Mutates JSON as `mutated_json` does."""

    def mutate(data: bytes, rng: Random) -> bytes:
        text = mutated_json(data.decode("utf-8", "replace"), rng, keys)
        return text.encode("utf-8", "surrogatepass")

    return mutate


def mutated_array(data: bytes, rng: Random) -> bytes:
    """The type or the shape in the header of a .npy file, or its bytes."""
    kind = rng.choice(("size", "size", "type", "order", "bytes"))
    if kind == "size" and (match := _SHAPE.search(data)):
        sizes = match[1].split(b",")
        sizes[rng.randrange(len(sizes))] = rng.choice(
            (b" 0", b" 1", b" -1", b" 2", b"", b" 4294967296", b" 1152921504606846976", b" 9" * 30)
        )
        return data[: match.start(1)] + b",".join(sizes) + data[match.end(1) :]
    if kind == "type":
        return re.sub(rb"'descr': '[^']*'", b"'descr': '%b'" % rng.choice(_TYPES), data)
    if kind == "order":
        return data.replace(b"False", b"True")
    return mutated_bytes(data, rng)


def mutated_pickle(data: bytes, rng: Random) -> bytes:
    """An opcode dropped, doubled, moved or put in, one or a thousand times."""
    try:
        starts = [at for _, _, at in pickletools.genops(data) if at is not None]
    except Exception:  # what genops says of damaged input
        return mutated_bytes(data, rng)
    pieces = [data[a:b] for a, b in zip(starts, [*starts[1:], len(data)], strict=True)]
    at = rng.randrange(len(pieces))
    match rng.choice(("drop", "double", "swap", "insert", "insert", "laugh", "bytes")):
        case "drop":
            del pieces[at]
        case "double":
            pieces.insert(at, pieces[at])
        case "swap":
            other = rng.randrange(len(pieces))
            pieces[at], pieces[other] = pieces[other], pieces[at]
        case "insert":
            pieces.insert(at, rng.choice(_OPCODES) * rng.choice((1, 1, 2, 1000)))
        case "laugh":
            pieces.insert(at, b"]" + b"\x94h\x05\x86" * rng.choice((3, 60)))
        case _:
            return mutated_bytes(data, rng)
    return b"".join(pieces)


def mutated_archive(of_member: Callable[[str], Mutation]) -> Mutation:
    """A member mutated, dropped, renamed, doubled or packed anew; checksums are right again."""

    def mutate(data: bytes, rng: Random) -> bytes:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            members = [(name, archive.read(name)) for name in archive.namelist()]
        at = rng.randrange(len(members))
        name, content = members[at]
        packing = zipfile.ZIP_STORED
        match rng.choice(("inside",) * 8 + ("drop", "name", "double", "pack", "bomb", "bytes")):
            case "inside":
                members[at] = name, of_member(name)(content, rng)
            case "drop":
                del members[at]
            case "name":
                members[at] = rng.choice(members)[0] + rng.choice(("", "x", "/../../y")), content
            case "double":
                members.append(rng.choice(members))
            case "pack":
                packing = rng.choice((zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2))
            case "bomb":
                members[at] = name, content + bytes(1 << 21)
                packing = zipfile.ZIP_DEFLATED
            case _:
                return mutated_bytes(data, rng)
        return _zipped(members, packing)

    return mutate


def mutated_safetensors(data: bytes, rng: Random) -> bytes:
    """The JSON header mutated and its length mended, the length alone, or the bytes."""
    size = int.from_bytes(data[:8], "little")
    kind = rng.choice(("tree", "tree", "tree", "number", "length", "bytes"))
    if kind == "bytes" or size > len(data):
        return mutated_bytes(data, rng)
    if kind == "length":
        claimed = rng.choice((0, 1, size - 1, size + 1, len(data), 1 << 40, (1 << 64) - 1))
        return struct.pack("<Q", claimed) + data[8:]
    header = data[8 : 8 + size]
    if kind == "tree":
        header = mutated_tree(["__metadata__", "dtype", "experts", "weights"])(header, rng)
    elif found := list(_NUMBER.finditer(header)):
        match = rng.choice(found)
        number = rng.choice(("0", "1", "-1", "64", str(1 << 61), rng.choice(RAW))).encode()
        header = header[: match.start()] + number + header[match.end() :]
    return struct.pack("<Q", len(header)) + header + data[8 + size :]


def mutated_metadata(data: bytes, rng: Random) -> bytes:
    """JSON inside the texts of a safetensors header: what our own traces say of themselves."""
    size = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + size])
    texts = header["__metadata__"]
    name = rng.choice(sorted(texts))
    texts[name] = mutated_json(texts[name], rng, ["num_experts", "model", "notes", "layers"])
    written = json.dumps(header).encode()
    return struct.pack("<Q", len(written)) + written + data[8 + size :]


def _zipped(members: list[tuple[str, bytes]], packing: int) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", packing) as archive:
        for name, content in members:
            archive.writestr(zipfile.ZipInfo(name), content, packing)
    return buffer.getvalue()
