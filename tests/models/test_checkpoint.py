"""Checkpoints: what is saved is loaded, and every defect is told in one line.

Takes about 5 s.
"""

import json
import shutil
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from safetensors.numpy import load_file, save_file

from specmd_jax.core.errors import InputError
from specmd_jax.models import Checkpoint, save_olmoe
from tests.models.small import CONFIG, small_decoder

INDEX = "model.safetensors.index.json"
FUSED = "model.layers.1.mlp.experts.down_proj"
GATE_UP = "model.layers.1.mlp.experts.2.up_proj.weight"


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    folder = tmp_path_factory.mktemp("checkpoint")
    save_olmoe(folder, *small_decoder())
    return folder


@pytest.fixture
def folder(saved, tmp_path):
    """A copy of the checkpoint, to be damaged."""
    return shutil.copytree(saved, tmp_path / "copy")


def shard(folder, parts: int = 3) -> None:
    """Cuts the one file into several with an index, as large checkpoints are."""
    tensors = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    names, weight_map = sorted(tensors), {}
    for part in range(parts):
        file = f"model-{part + 1:05}-of-{parts:05}.safetensors"
        mine = names[part::parts]
        save_file({name: tensors[name] for name in mine}, folder / file)
        weight_map |= dict.fromkeys(mine, file)
    index = json.dumps({"weight_map": weight_map})
    (folder / INDEX).write_text(index)


@pytest.mark.parametrize("sharded", [False, True])
def test_what_is_saved_is_loaded(folder, sharded):
    if sharded:
        shard(folder)
    checkpoint = Checkpoint(folder)
    decoder, experts = small_decoder()
    assert checkpoint.config.attention == CONFIG.attention
    assert checkpoint.config.router == CONFIG.router
    jax.tree.map(np.testing.assert_array_equal, nnx.state(checkpoint.decoder()), nnx.state(decoder))
    jax.tree.map(np.testing.assert_array_equal, checkpoint.all_experts(), experts)


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
def test_half_precision_is_stored_and_read_as_it_is(tmp_path, dtype):
    decoder, experts = small_decoder()
    save_olmoe(tmp_path, decoder, experts, dtype=dtype)
    checkpoint = Checkpoint(tmp_path)
    halves = jax.tree.map(lambda leaf: leaf.astype(dtype), experts[0])
    stored = checkpoint.experts(0)
    jax.tree.map(np.testing.assert_array_equal, stored, halves)
    assert stored.down.dtype == dtype
    assert checkpoint.experts(0, jnp.float32).down.dtype == np.float32
    np.testing.assert_array_equal(
        checkpoint.decoder().embedding.embedding[...],
        decoder.embedding.embedding[...].astype(dtype).astype(jnp.float32),
    )


def test_host_experts_are_frozen(saved):
    experts = Checkpoint(saved).experts(0)
    with pytest.raises(ValueError, match="read-only"):
        experts.down[0] = 0


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16, jnp.float16])
@pytest.mark.parametrize("sharded", [False, True])
def test_fused_experts_are_read_as_separate_ones(tmp_path, dtype, sharded):
    save_olmoe(tmp_path, *small_decoder(), dtype=dtype)
    separate = Checkpoint(tmp_path).experts(1)
    fuse(tmp_path)
    if sharded:
        shard(tmp_path)
    fused = Checkpoint(tmp_path).experts(1)
    assert fused.down.dtype == dtype
    jax.tree.map(np.testing.assert_array_equal, fused, separate)


def fuse(folder) -> None:
    """Stores the experts as newer versions of transformers do: two tensors a layer."""

    def change(tensors):
        for layer in range(CONFIG.spec.num_hidden_layers):
            base = f"model.layers.{layer}.mlp.experts."
            gate, up, down = (
                np.stack([tensors.pop(f"{base}{expert}.{part}_proj.weight") for expert in range(8)])
                for part in ("gate", "up", "down")
            )
            tensors[f"{base}gate_up_proj"] = np.concatenate([gate, up], axis=1)
            tensors[f"{base}down_proj"] = down

    rewrite(folder, change)


def test_a_tensor_that_the_index_leaves_out_is_found_in_its_shard(folder):
    shard(folder)
    edit_index(folder, lambda weight_map: weight_map.pop(GATE_UP))
    stored = Checkpoint(folder).experts(1)
    jax.tree.map(np.testing.assert_array_equal, stored, small_decoder()[1][1])


def edit_index(folder, change) -> None:
    file = folder / INDEX
    index = json.loads(file.read_text())
    change(index["weight_map"])
    file.write_text(json.dumps(index))


def rewrite(folder, change) -> None:
    tensors = load_file(folder / "model.safetensors")
    change(tensors)
    save_file(tensors, folder / "model.safetensors")


def lose(name):
    return lambda folder: rewrite(folder, lambda tensors: tensors.pop(name))


def reshape(name):
    def change(tensors):
        tensors[name] = tensors[name][:-1]

    return lambda folder: rewrite(folder, change)


def recast(folder):
    def change(tensors):
        tensors[GATE_UP] = tensors[GATE_UP].astype(np.int8)

    rewrite(folder, change)


def cut(bytes_left):
    def change(folder):
        file = folder / "model.safetensors"
        file.write_bytes(file.read_bytes()[:bytes_left])

    return change


def lose_a_shard(folder):
    shard(folder)
    (folder / "model-00002-of-00003.safetensors").unlink()


def cut_a_shard(folder):
    shard(folder)
    file = folder / "model-00002-of-00003.safetensors"
    file.write_bytes(file.read_bytes()[:-10])


def double_a_shard(folder):
    file = folder / "model.safetensors"
    file.with_name("copy.safetensors").write_bytes(file.read_bytes())


def leave_out_a_shard(folder):
    """The index knows nothing of a shard that is there."""
    shard(folder)

    def change(weight_map):
        lost = weight_map[GATE_UP]
        for name in [name for name, file in weight_map.items() if file == lost]:
            del weight_map[name]

    edit_index(folder, change)


def fused_without(name):
    def change(folder):
        fuse(folder)
        lose(name)(folder)

    return change


def fused_too_short(folder):
    fuse(folder)
    reshape(FUSED)(folder)


def edit_header(change):
    """Changes what the file says of one tensor, and leaves the data alone."""

    def edit(folder):
        file = folder / "model.safetensors"
        data = file.read_bytes()
        length = int.from_bytes(data[:8], "little")
        header = json.loads(data[8 : 8 + length])
        change(header[GATE_UP])
        text = json.dumps(header).encode()
        file.write_bytes(len(text).to_bytes(8, "little") + text + data[8 + length :])

    return edit


def overwrite(name, text):
    return lambda folder: (folder / name).write_text(text)


def edit_config(**changes):
    def change(folder):
        file = folder / "config.json"
        file.write_text(json.dumps(json.loads(file.read_text()) | changes))

    return change


DEFECTS = {
    "an expert's matrix is missing": (lose(GATE_UP), GATE_UP),
    "a norm is missing": (lose("model.norm.weight"), "model.norm.weight"),
    "a matrix is too short": (reshape(GATE_UP), r"up_proj.weight has shape \[15, 32\].*\[16, 32\]"),
    "the embedding is too short": (reshape("model.embed_tokens.weight"), r"embed.*\[63, 32\]"),
    "a matrix is quantised": (recast, "I8"),
    "the file is cut short": (cut(-100), "cut short"),
    "the header is cut short": (cut(100), "cut short"),
    "the file is empty": (cut(0), "cut short"),
    "a shard is missing": (lose_a_shard, "model-00002-of-00003.safetensors, which its index"),
    "a shard is cut short": (cut_a_shard, "model-00002-of-00003.safetensors is cut short"),
    "a tensor is in two files": (double_a_shard, "twice, in copy.safetensors and model.safet"),
    "the index leaves out a shard": (leave_out_a_shard, "lacks the tensor model"),
    "the index is no index": (
        overwrite(INDEX, "[]"),
        "index.json holds no JSON object: it is not a checkpoint's index",
    ),
    "the index is cut short": (overwrite(INDEX, '{"weight_map": {'), "not a checkpoint's index"),
    "the index names no files": (
        overwrite(INDEX, '{"weight_map": {"a": 1}}'),
        "not a checkpoint's index",
    ),
    "the index leads out of its folder": (
        overwrite(INDEX, '{"weight_map": {"a": "../model.safetensors"}}'),
        "not a checkpoint's index",
    ),
    "the index names what no file is called": (
        overwrite(INDEX, json.dumps({"weight_map": {"a": "x" * 300 + ".safetensors"}})),
        "not a checkpoint's index",
    ),
    "the index is nested too deep": (overwrite(INDEX, "[" * 10**5), "not a checkpoint's index"),
    "fused experts lack one tensor": (fused_without(FUSED), f"lacks the tensor {FUSED}"),
    "fused experts lack the other": (
        fused_without(FUSED.replace("down", "gate_up")),
        "lacks the tensor model.layers.1.mlp.experts.gate_up_proj",
    ),
    "fused experts are too few": (fused_too_short, r"down_proj has shape \[7, 32, 16\].*\[8, 32"),
    "the header is no JSON": (overwrite("model.safetensors", "A" * 100), "no safetensors header"),
    "the header's shape is no shape": (
        edit_header(lambda entry: entry.update(shape=["16", 32])),
        "no safetensors header",
    ),
    "the header's sizes differ": (
        edit_header(lambda entry: entry.update(shape=[16, 31])),
        r"of type \w+ and shape \[16, 31\] in bytes",
    ),
    "the header's offsets are negative": (
        edit_header(lambda entry: entry.update(data_offsets=[-2048, 0])),
        "no safetensors header",
    ),
    "the config is cut short": (overwrite("config.json", '{"model_type": '), "config.json"),
    "the config is a list": (overwrite("config.json", "[]"), "config.json"),
    "there are no weights": (
        lambda folder: (folder / "model.safetensors").unlink(),
        "no .*safetensors",
    ),
    "there is no config": (lambda folder: (folder / "config.json").unlink(), "config.json"),
    "the family is unknown": (edit_config(model_type="gpt2"), "'gpt2' is not supported.*olmoe"),
    "the activation is unknown": (edit_config(hidden_act="gelu"), "'gelu'"),
    "the rope is unknown": (edit_config(rope_scaling={"rope_type": "su"}), "'su'"),
}


@pytest.mark.parametrize("defect", DEFECTS)
def test_a_defect_is_told_in_one_line(folder, defect):
    damage, message = DEFECTS[defect]
    damage(folder)
    with pytest.raises(InputError, match=message) as raised:
        checkpoint = Checkpoint(folder)
        checkpoint.decoder()
        checkpoint.all_experts()
    assert "\n" not in str(raised.value)


def test_files_are_as_open_as_the_umask_lets_them_be(saved, tmp_path):
    plain = tmp_path / "plain"
    plain.touch()
    for file in saved.iterdir():
        assert file.stat().st_mode == plain.stat().st_mode, file.name


def test_no_folder_is_told(tmp_path):
    with pytest.raises(InputError, match="not a folder"):
        Checkpoint(tmp_path / "nowhere")


def test_only_olmoes_architecture_is_written(tmp_path):
    decoder, experts = small_decoder()
    decoder.config = replace(CONFIG, residual_multiplier=0.5)
    with pytest.raises(InputError, match="OLMoE"):
        save_olmoe(tmp_path, decoder, experts)
    assert not list(tmp_path.iterdir())
