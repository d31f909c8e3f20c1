"""Trains the bundled model, specmd-tiny; a stopped run goes on where it was.

  python -m experiments.bundled_model.train --corpus CORPUS --out RUN

RUN holds log.jsonl (one line every few steps), state.safetensors (to go on from) and, at the
end, model/: a checkpoint in the layout of Hugging Face's OLMoE with its tokenizer.
"""

import json
import shutil
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import tyro
from jaxtyping import Int, UInt16
from rich.console import Console
from rich.progress import Progress
from safetensors import safe_open

from experiments.bundled_model import corpus, training
from specmd_jax.core.tensors import write_tensors
from specmd_jax.models import save_olmoe, small_olmoe


@dataclass(frozen=True)
class Options:
    """The model's sizes and how it is trained; the defaults made the one in the package."""

    corpus: Path
    out: Path
    tokens: int = 12_500_000
    layers: int = 8
    experts: int = 32
    top_k: int = 4
    hidden_size: int = 128
    expert_size: int = 64
    heads: int = 2
    length: int = 256  # tokens of a sequence
    batch: int = 16  # sequences of a step
    peak_rate: float = 4e-3
    balance: float = 0.01  # weight of the load-balancing loss, OLMoE's (arXiv 2409.02060, §4.1.5)
    late_balance: float = 0.04  # from `late_step` on: a few experts were nearly idle by then
    late_step: int = 950
    seed: int = 0
    keep_every: int = 50  # steps between two savings of the state
    evaluate_every: int = 250  # steps between two looks at held-out text

    @property
    def steps(self) -> int:
        """Steps of the whole run."""
        return -(-self.tokens // (self.batch * self.length))


def batch_of(tokens: UInt16[np.ndarray, " T"], options: Options, step: int) -> Int[Any, "B S"]:
    """Returns the sequences of a step; each part of the text is seen once before any is again."""
    per_epoch = (len(tokens) - 1) // options.length // options.batch
    order = np.random.default_rng((options.seed, step // per_epoch))
    starts = order.permutation(per_epoch * options.batch).reshape(per_epoch, -1)[step % per_epoch]
    rows = [tokens[s : s + options.length + 1] for s in starts * options.length]
    return jnp.asarray(np.stack(rows).astype(np.int32))


def held_out(model: training.Model, weights: training.Weights, text: corpus.Corpus,
             options: Options) -> dict[str, float]:  # fmt: skip
    """Returns nats a token on each source's held-out text, in sequences of the training length."""
    found = {}
    for name, tokens in text.held_out.items():
        count = (len(tokens) - 1) // options.length
        rows = [tokens[i * options.length :][: options.length + 1] for i in range(count)]
        rows = [rows[i : i + options.batch] for i in range(0, count - options.batch + 1,
                                                           options.batch)]  # fmt: skip
        if rows:
            batches = [jnp.asarray(np.stack(part).astype(np.int32)) for part in rows]
            each = [training.held_out_losses(model, weights, batch).nll for batch in batches]
            found[name] = float(np.mean(each))
    return found


def keep(path: Path, step: int, trained: Any) -> None:
    """Writes the state of a run to a temporary name, then renames it."""
    leaves = {f"{i}": np.asarray(leaf) for i, leaf in enumerate(jax.tree.leaves(trained))}
    write_tensors(leaves, path, {"step": str(step)})


def kept(path: Path, trained: Any) -> tuple[int, Any]:
    """Returns the step and state of a stopped run, or 0 and `trained` as it is."""
    if not path.exists():
        return 0, trained
    with safe_open(path, framework="numpy") as file:
        step = int(file.metadata()["step"])
        leaves = [jnp.asarray(file.get_tensor(f"{i}")) for i in range(len(file.keys()))]
    return step, jax.tree.unflatten(jax.tree.structure(trained), leaves)


def told(log: Path, step: int) -> list[str]:
    """Returns the log's lines of the steps before `step`: later ones will be written again."""
    lines = log.read_text().splitlines() if log.exists() else []
    return [line for line in lines if json.loads(line)["step"] < step]


def describe(each: training.Losses, step: int, options: Options, seconds: float) -> dict[str, Any]:
    """Returns one line of the log."""
    load = np.asarray(each.load)
    return {
        "step": step,
        "tokens": (step + 1) * options.batch * options.length,
        "nll": float(each.nll),
        "balance": float(each.balance),
        "router_z": float(each.router_z),
        "least_load": float(load.min() * load.shape[1]),
        "most_load": float(load.max() * load.shape[1]),
        "seconds_a_step": seconds,
    }


def train(options: Options) -> None:
    """Trains to the end and writes the model."""
    text = corpus.load(options.corpus)
    config = small_olmoe(
        name="specmd-tiny",
        num_hidden_layers=options.layers,
        num_experts=options.experts,
        top_k=options.top_k,
        hidden_size=options.hidden_size,
        moe_intermediate_size=options.expert_size,
        vocab_size=text.tokenizer.get_vocab_size(),
        num_heads=options.heads,
        normalize=True,
    )
    model, weights = training.init(config, options.seed)
    optimize = training.optimizer(options.peak_rate, options.steps)
    options.out.mkdir(parents=True, exist_ok=True)
    state_path, log = options.out / "state.safetensors", options.out / "log.jsonl"
    start, (weights, state) = kept(state_path, (weights, optimize.init(weights)))
    log.write_text("".join(f"{line}\n" for line in told(log, start)))
    with Progress(console=Console(stderr=True)) as progress, log.open("a") as lines:
        bar = progress.add_task("training", total=options.steps, completed=start)
        for step in range(start, options.steps):
            before = time.perf_counter()
            tokens = batch_of(text.train, options, step)
            balance = options.balance if step < options.late_step else options.late_balance
            weights, state, each = training.train_step(
                model, optimize, weights, state, tokens, balance
            )
            jax.block_until_ready(each)
            row = describe(each, step, options, time.perf_counter() - before)
            last = step + 1 == options.steps
            if (step + 1) % options.evaluate_every == 0 or last:
                row["held_out"] = held_out(model, weights, text, options)
            if step % 10 == 0 or "held_out" in row:
                lines.write(json.dumps(row) + "\n")
                lines.flush()
            if (step + 1) % options.keep_every == 0 or last:
                keep(state_path, step + 1, (weights, state))
            progress.update(bar, advance=1, description=f"loss {row['nll']:.3f}")
    folder = options.out / "model"
    save_olmoe(folder, training.decoder_of(model, weights), weights.experts, dtype=jnp.bfloat16,
               max_position_embeddings=4096, eos_token_id=0)  # fmt: skip
    shutil.copy(options.corpus / "tokenizer.json", folder / "tokenizer.json")


if __name__ == "__main__":
    train(tyro.cli(Options))
