"""Advice is tried: what `specmd import` tells to do is done, word for word, and works."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.cli.conftest import Specmd
from tests.traces.samples import SAMPLES

TOKENS, LAYERS, EXPERTS = 40, 4, 16
_FLAG = re.compile(r"(--[a-z-]+) ([\w:,./-]*\w)")


def ids(layers: int = LAYERS) -> np.ndarray:
    rng = np.random.default_rng(3)
    return rng.random((TOKENS, layers, EXPERTS)).argsort(-1)[:, :, :3]


def records(chosen: np.ndarray, numbers: list[int], **facts: Any) -> list[dict[str, Any]]:
    return [
        {"token": token, "layer": layer, "experts": chosen[token, at].tolist()} | facts
        for token in range(len(chosen))
        for at, layer in enumerate(numbers)
    ]


def table(path: Path, rows: list[dict[str, Any]]) -> list[Path]:
    path.write_text("\n".join(map(json.dumps, rows)))
    return [path]


def array(path: Path, chosen: np.ndarray) -> list[Path]:
    np.save(path, chosen.astype(np.int32))
    return [path]


def shared(folder: Path) -> list[Path]:
    fused = np.concatenate([ids(), np.full((TOKENS, LAYERS, 1), EXPERTS)], axis=2)
    return array(folder / "x.npy", fused)


def draft_head(folder: Path) -> list[Path]:
    rows = records(ids(), [0, 1, 2, 3])
    return table(folder / "x.jsonl", [r for r in rows if r["layer"] < 3 or r["token"] % 4 == 1])


def restarting(folder: Path, **facts: Any) -> list[Path]:
    rows = records(ids(), [0, 1, 2, 3], **facts)
    return table(folder / "x.jsonl", [row | {"token": row["token"] % 10} for row in rows])


def out_of_order(folder: Path) -> list[Path]:
    rows = records(ids(), [0])
    return table(folder / "x.jsonl", rows[:3] + rows[1:2] + rows[3:])


def two_models(folder: Path) -> list[Path]:
    both = [records(ids(), [0, 1], model=name) for name in ("org/model-a", "org/model-b")]
    return table(folder / "x.jsonl", [row for rows in both for row in rows])


def overlapping(folder: Path) -> list[Path]:
    one = table(folder / "a.jsonl", records(ids(2), [0, 1]))
    return one + table(folder / "b.jsonl", records(ids(2), [1, 2]))


def layers_first(folder: Path) -> list[Path]:
    parts = [ids()[:9], ids()[:12]]
    arrays = [array(folder / f"{n}.npy", part.swapaxes(0, 1)) for n, part in enumerate(parts)]
    return [path for paths in arrays for path in paths]


ADVISED: dict[str, tuple[Callable[[Path], list[Path]], set[str]]] = {
    "axes": (lambda f: array(f / "x.npy", ids()[:3]), {"--axes layers-first"}),
    "axes of files": (layers_first, {"--axes layers-first"}),
    "ids that count on": (
        lambda f: array(f / "x.npy", ids() + EXPERTS * np.arange(LAYERS)[:, None]),
        {"--ids per-layer"},
    ),
    "a shared expert": (shared, {"--shared-experts 16", "--shared-experts none"}),
    "a draft head": (draft_head, {"--layers 0:3"}),
    "an index that begins anew": (restarting, {"--restarts pass"}),
    "it does so in a request": (lambda f: restarting(f, request=1), {"--restarts request"}),
    "a row given twice": (out_of_order, {"--restarts pass", "--restarts request"}),
    "two models": (two_models, {"--model org/model-a"}),
    "layers that overlap": (overlapping, {"--join requests"}),
}


@pytest.mark.parametrize(("write", "advised"), ADVISED.values(), ids=ADVISED)
def test_what_a_message_tells_to_do_works(
    write: Callable[[Path], list[Path]], advised: set[str], specmd: Specmd, tmp_path: Path
) -> None:
    sources = write(tmp_path)
    first = specmd("import", *sources, "-o", tmp_path / "first.st", "--json")
    said = first.err if first.code else " ".join(first.json["doubts"] + first.json["notes"])
    offered = {" ".join(pair) for pair in _FLAG.findall(said)}
    assert advised <= offered
    for flag in advised:
        output = ("-o", tmp_path / "done.st", "--force", "--json")
        done = specmd("import", *sources, *output, *flag.split(" "))
        assert done.code == 0, done.err
        name = flag.split(" ")[0]
        assert not any(name in doubt for doubt in done.json["doubts"] + done.json["notes"])


def test_stages_of_a_pipeline_are_merged_as_told(specmd: Specmd, tmp_path: Path) -> None:
    text = SAMPLES["megatron"](tmp_path).read_text()
    stage = text.replace('"rank": 0', '"rank": 1')
    for layer in (0, 1):
        stage = stage.replace(f'"layer": {layer},', f'"layer": {layer + 2},')
    (tmp_path / "router_trace_rank1.jsonl").write_text(stage)
    refused = specmd("import", tmp_path, "-o", tmp_path / "out.st")
    assert refused.code == 2 and "give their files, not the folder" in refused.err
    files = sorted(tmp_path.glob("*.jsonl"))
    merged = specmd("import", *files, "-o", tmp_path / "out.st", "--json").json
    assert (merged["layers"], merged["requests"]) == (4, 1)


def test_a_column_that_is_renamed_as_told_is_read(specmd: Specmd, tmp_path: Path) -> None:
    source = tmp_path / "x.csv"
    source.write_text("token,layer,who\n0,0,1\n0,0,2\n")
    refused = specmd("import", source, "-o", tmp_path / "out.st")
    assert refused.code == 2
    (wanted,) = re.findall(r"experts \((\w+)", refused.err)
    source.write_text(source.read_text().replace("who", wanted))
    assert specmd("import", source, "-o", tmp_path / "out.st").code == 0
