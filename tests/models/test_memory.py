"""Loading experts takes little more memory than they have bytes, mapped files counted.

Peaks are read from Linux's /proc in a process of its own. Takes about 20 s, and 40 s more with
`slow`, which needs 2 GB of memory and of disk.
"""

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import save_file

RESET = Path("/proc/self/clear_refs")  # "5" makes the peak what is resident now
pytestmark = pytest.mark.skipif(not RESET.exists(), reason="peaks are read from /proc")

CHILD = """
import json, re, sys
from pathlib import Path

import jax
import jax.numpy as jnp

from specmd_jax.models import Checkpoint


def memory(kind):
    return int(re.search(kind + r":\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1]) * 1024


folder, where = sys.argv[1:]
checkpoint = Checkpoint(folder)
jax.device_put(0.0).block_until_ready()  # what the backend takes is not the experts'
Path("/proc/self/clear_refs").write_text("5")
before = memory("VmRSS")
if where == "device":
    experts = checkpoint.all_experts(jnp.bfloat16)
else:
    experts = [checkpoint.experts(layer) for layer in range(len(checkpoint.config.moe_layers))]
jax.block_until_ready(experts)
held = sum(leaf.nbytes for leaf in jax.tree.leaves(experts))
print(json.dumps({"bytes": held, "peak": memory("VmHWM") - before}))
"""


class Sizes(NamedTuple):
    """Of the experts of a checkpoint."""

    layers: int
    experts: int
    hidden: int
    width: int

    @property
    def nbytes(self) -> int:
        """Of all experts, in bf16."""
        return self.layers * self.experts * 3 * self.hidden * self.width * 2


SMALL = Sizes(layers=2, experts=16, hidden=1024, width=512)  # 100 MB
OLMOE = Sizes(layers=2, experts=64, hidden=2048, width=1024)  # 1.6 GB


def write(folder: Path, sizes: Sizes, layout: str) -> None:
    """Writes the experts of an OLMoE in bf16, a shard a layer, with an index."""
    folder.mkdir()
    config = {
        "model_type": "olmoe",
        "num_hidden_layers": sizes.layers,
        "num_experts": sizes.experts,
        "num_experts_per_tok": 8,
        "hidden_size": sizes.hidden,
        "intermediate_size": sizes.width,
        "num_attention_heads": 16,
        "vocab_size": 64,
    }
    (folder / "config.json").write_text(json.dumps(config))
    rng, weight_map = np.random.default_rng(0), {}
    for layer in range(sizes.layers):
        tensors = {name: drawn(rng, shape) for name, shape in shapes(sizes, layer, layout).items()}
        file = f"model-{layer + 1:05}-of-{sizes.layers:05}.safetensors"
        save_file(tensors, folder / file)
        weight_map |= dict.fromkeys(tensors, file)
    index = json.dumps({"weight_map": weight_map})
    (folder / "model.safetensors.index.json").write_text(index)


def shapes(sizes: Sizes, layer: int, layout: str) -> dict[str, tuple[int, ...]]:
    _, experts, hidden, width = sizes
    base = f"model.layers.{layer}.mlp.experts."
    if layout == "fused":
        return {
            f"{base}gate_up_proj": (experts, 2 * width, hidden),
            f"{base}down_proj": (experts, hidden, width),
        }
    parts = {"gate": (width, hidden), "up": (width, hidden), "down": (hidden, width)}
    return {
        f"{base}{expert}.{part}_proj.weight": shape
        for expert in range(experts)
        for part, shape in parts.items()
    }


def drawn(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Returns random bits that are finite bf16 numbers."""
    return rng.integers(0, 0x4000, shape, np.uint16).view(ml_dtypes.bfloat16)


def peak(folder: Path, sizes: Sizes, where: str) -> int:
    """Returns the bytes that loading all experts of a checkpoint takes, in another process."""
    command = [sys.executable, "-c", CHILD, str(folder), where]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    measured = json.loads(done.stdout)
    assert measured["bytes"] == sizes.nbytes
    return measured["peak"]


@pytest.mark.parametrize("where", ["host", "device"])
@pytest.mark.parametrize("layout", ["separate", "fused"])
@pytest.mark.parametrize("sizes", [SMALL, pytest.param(OLMOE, marks=pytest.mark.slow)])
def test_loading_takes_little_more_than_the_experts(tmp_path, sizes, layout, where):
    folder = tmp_path / "checkpoint"
    write(folder, sizes, layout)
    taken = peak(folder, sizes, where)
    shutil.rmtree(folder)  # pytest would keep it
    assert 0.9 * sizes.nbytes < taken < 1.25 * sizes.nbytes
