"""What the tests of the command line share: a small trace and a way to call `specmd`."""

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from specmd_jax.cli import main
from specmd_jax.core.tensors import write_tensors
from specmd_jax.core.types import ModelShape
from specmd_jax.model_zoo import bundled_folder
from specmd_jax.models.checkpoints import library
from specmd_jax.models.checkpoints.tensor_files import TensorFiles
from specmd_jax.traces import write_trace
from specmd_jax.traces.synthetic.generator import SyntheticSpec, generate

SHAPE = ModelShape(num_layers=4, num_experts=8, top_k=2)


class Result(NamedTuple):
    """What one call printed, and how it ended."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> dict[str, Any]:
        """The one object on standard output."""
        (line,) = self.out.splitlines()
        return json.loads(line)


Specmd = Callable[..., Result]


@pytest.fixture(autouse=True)
def _plain(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPECMD_CACHE", "off")
    monkeypatch.setenv("COLUMNS", "100")
    for name in ("NO_COLOR", "FORCE_COLOR"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def specmd(capsys: pytest.CaptureFixture[str]) -> Specmd:
    """Calls the command line in this process."""

    def call(*arguments: str | Path) -> Result:
        code = main([str(argument) for argument in arguments])
        printed = capsys.readouterr()
        return Result(code, printed.out, printed.err)

    return call


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Holds `full.st`, which records all that a policy may read, and `bare.st`, which does not."""
    folder = tmp_path_factory.mktemp("traces")
    full = SyntheticSpec(SHAPE, requests=2, tokens=20, lookahead=1, record_logits=True)
    write_trace(generate(full), folder / "full.st")
    bare = SyntheticSpec(SHAPE, requests=2, tokens=20, record_weights=False)
    write_trace(generate(bare), folder / "bare.st")
    olmoe = SyntheticSpec(ModelShape(16, 64, 8), tokens=6)
    write_trace(generate(olmoe), folder / "olmoe.st")
    return folder


@pytest.fixture(scope="session")
def shallow_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bundled model's first two layers: a quarter of what there is to compile."""
    whole, folder = bundled_folder(), tmp_path_factory.mktemp("shallow")
    config = json.loads((whole / "config.json").read_text()) | {"num_hidden_layers": 2}
    (folder / "config.json").write_text(json.dumps(config))
    shutil.copy(whole / "tokenizer.json", folder)
    tensors = TensorFiles(whole)
    kept = [name for name in tensors if not re.search(r"layers\.[2-7]\.", name)]
    write_tensors({name: tensors[name] for name in kept}, folder / "model.safetensors", {})
    return folder


@pytest.fixture
def shallow(shallow_model: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Has `specmd-tiny` mean the shallow model."""
    monkeypatch.setattr(library, "bundled_folder", lambda: shallow_model)
    return shallow_model
