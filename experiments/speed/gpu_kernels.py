"""The kernels on a GPU beside what they are to be measured by.

    python -m experiments.speed.gpu_kernels               # on a GPU: a few minutes
    python -m experiments.speed.gpu_kernels --tiny       # anywhere, to see that it runs

slot_ffn for decode stands beside a copy of as many bytes, for prefill beside one dense product of
as much arithmetic; both beside ragged_dot, torch's grouped product where torch is installed and,
where the copies fit, gather + einsum. cache_sim is counted in accesses a second. Each call of
slot_ffn and of the gate takes what the one before made, many in one program, so that launches from
Python do not count; slots move on from call to call, so that no cache keeps them. Prints one JSON
object and writes gpu_kernels.md and .png.
"""

import json
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import tyro
from jaxtyping import Array

from experiments.shared.recordings import RESULTS, markdown_table, measured_on, write_page
from experiments.speed.kernel_cpu_speed import MOST_COPIED, gather_einsum, ragged_dot
from experiments.speed.kernel_floors import slot_ffn_work
from experiments.speed.roofline_plot import draw_roofline
from experiments.speed.torch_experts import grouped_product_s
from specmd_kernels import CachePolicy, Implementation, cache_sim, gate_topk, slot_ffn
from specmd_kernels.cache_sim import arg_specs as sim_specs
from specmd_kernels.gate_topk import arg_specs as gate_specs
from specmd_kernels.sizes import MODELS, Sizes
from specmd_kernels.slot_ffn import arg_specs as ffn_specs

REPEATS = 16  # calls in one program
LRU = CachePolicy(lambda params: (), None, lambda params, state, view, outcome: state)


@dataclass(frozen=True)
class Options:
    """What is timed."""

    models: tuple[str, ...] = ("olmoe", "qwen3-30b")
    decode: tuple[int, ...] = (1, 8, 32)
    prefill: tuple[int, ...] = (512, 4096)
    configurations: int = 528  # of cache_sim: four for each of an H100's processors
    passes: int = 1000
    turns: int = 20
    tiny: bool = False  # small copies of the models and of all else
    output: Path = RESULTS


def kernel() -> Implementation | None:
    """Returns the implementation to time: on a GPU its kernel, by name, so that none declines."""
    return "pallas_gpu" if jax.default_backend() == "gpu" else None


def best_s(function: Callable[..., Any], turns: int, *args: Any) -> float:
    """Returns the seconds of the best of `turns` runs, after one that compiles."""
    run = jax.jit(function)
    jax.block_until_ready(run(*args))
    times = []
    for _ in range(turns):
        start = time.perf_counter()
        jax.block_until_ready(run(*args))
        times.append(time.perf_counter() - start)
    return min(times)


def copy_bytes_per_s(nbytes: int, turns: int) -> float:
    """Returns what a copy reaches, counted once for reading and once for writing."""
    values = jnp.ones(nbytes // 4, jnp.float32)
    return 2 * values.nbytes / best_s(lambda values: values + 1, turns, values)


def dense_flops_per_s(sizes: Sizes, rows: int, turns: int) -> float:
    """Returns what one product of an expert's width reaches."""
    left = jnp.ones((rows, sizes.hidden), jnp.bfloat16)
    right = jnp.ones((sizes.hidden, 2 * sizes.width), jnp.bfloat16)
    return 2 * rows * right.size / best_s(jnp.matmul, turns, left, right)


def ffn_row(name: str, sizes: Sizes, tokens: int, turns: int) -> dict[str, Any]:
    """Times slot_ffn and its rivals for one number of tokens."""
    args = ffn_specs.draw(ffn_specs.shapes(sizes, tokens, jnp.bfloat16))
    args = args._replace(slots=jnp.maximum(args.slots, 0))
    work = slot_ffn_work(sizes, tokens)
    copied = 2 * 3 * sizes.hidden * sizes.width * args.slots.size

    def each_s(way: Callable[..., Array]) -> float:
        def chain(hidden: Array, slots: Array, *rest: Any) -> Array:
            def call(index: Array, hidden: Array) -> Array:
                out = way(hidden, (slots + index) % sizes.experts, *rest)
                return out.astype(hidden.dtype)

            return jax.lax.fori_loop(0, REPEATS, call, hidden)

        return best_s(chain, turns, *args) / REPEATS

    activation = ffn_specs.activation_of(sizes)
    own = each_s(partial(slot_ffn, activation=activation, implementation=kernel()))
    row = {
        "model": name,
        "tokens": tokens,
        "slot_ffn_us": 1e6 * own,
        "bytes_per_s": work.nbytes / own,
        "flops_per_s": work.flops / own,
        "ragged_dot_us": 1e6 * each_s(ragged_dot),
        "gather_einsum_us": None,
        "torch_us": None,
    }
    grouped = grouped_product_s(sizes, np.asarray(args.slots), REPEATS, turns)
    if grouped is not None:
        row["torch_us"] = 1e6 * grouped
    if copied <= MOST_COPIED:
        row["gather_einsum_us"] = 1e6 * each_s(gather_einsum)
    return row


def gate_row(name: str, tokens: int, turns: int) -> dict[str, Any]:
    """Times the gate in one pass, and by XLA."""
    sizes = gate_specs.REAL[name]
    args = gate_specs.draw(gate_specs.shapes(sizes, tokens, jnp.float32))
    rule = partial(gate_topk, top_k=sizes.top_k, top_j=1, bonus=0.5, threshold=0.02)

    def each_s(implementation: Implementation | None) -> float:
        def chain(logits: Array, *rest: Array) -> Array:
            def call(_: Array, logits: Array) -> Array:
                found = rule(logits, *rest, implementation=implementation)
                return logits + 1e-9 * jnp.sum(found.weights, axis=1, keepdims=True)

            return jax.lax.fori_loop(0, REPEATS, call, logits)

        return best_s(chain, turns, *args) / REPEATS

    return {
        "model": name,
        "tokens": tokens,
        "gate_topk_us": 1e6 * each_s(kernel()),
        "xla_us": 1e6 * each_s("xla"),
    }


def sim_row(name: str, options: Options) -> dict[str, Any]:
    """Counts the accesses a second of LRU at as many capacities as configurations."""
    sizes = sim_specs.REAL[name]
    gate = sim_specs.draw(sizes, options.passes)
    capacities = jnp.linspace(1, sizes.layers * sizes.experts, options.configurations)
    one = partial(cache_sim, LRU, (), implementation=kernel())
    sweep = jax.vmap(one, in_axes=(0, None))
    seconds = best_s(sweep, min(options.turns, 3), capacities.astype(jnp.int32), gate)
    accesses = int(jnp.sum(gate > 0)) * options.configurations
    return {"model": name, "accesses": accesses, "accesses_per_s": accesses / seconds}


def measure(options: Options) -> dict[str, Any]:
    """Returns all that was measured."""
    sizes = ffn_specs.SMALL if options.tiny else MODELS
    models = {name: sizes[name] for name in options.models}
    some = next(iter(models.values()))
    return {
        "label": "MEASURED",
        "device": jax.devices()[0].device_kind,
        "tiny": options.tiny,
        "copy_bytes_per_s": copy_bytes_per_s(1 << (20 if options.tiny else 30), options.turns),
        "dense_flops_per_s": dense_flops_per_s(some, 64 if options.tiny else 8192, options.turns),
        "ffn": [
            ffn_row(name, sizes, tokens, options.turns)
            for name, sizes in models.items()
            for tokens in (*options.decode, *options.prefill)
        ],
        "gate": [gate_row(name, options.decode[-1], options.turns) for name in models],
        "sim": [sim_row(name, options) for name in models],
    }


def _us(value: float | None) -> str:
    return "-" if value is None else f"{value:,.1f}"


def page(found: dict[str, Any]) -> list[str]:
    """Returns the lines of gpu_kernels.md."""
    copy, dense = found["copy_bytes_per_s"], found["dense_flops_per_s"]
    ffn = [
        [
            row["model"],
            str(row["tokens"]),
            f"{row['slot_ffn_us']:,.1f}",
            f"{row['bytes_per_s'] / copy:.0%}",
            f"{row['flops_per_s'] / dense:.0%}",
            f"{row['ragged_dot_us']:,.1f}",
            *(_us(row[rival]) for rival in ("gather_einsum_us", "torch_us")),
        ]
        for row in found["ffn"]
    ]
    head = ["model", "tokens", "slot_ffn, us", "of a copy's bytes/s", "of a dense product's FLOP/s"]
    gate = [[r["model"], f"{r['gate_topk_us']:,.1f}", f"{r['xla_us']:,.1f}"] for r in found["gate"]]
    sim = [[row["model"], f"{row['accesses_per_s'] / 1e6:,.2f}"] for row in found["sim"]]
    small = ": small shapes, which show only that it runs" if found["tiny"] else ""
    return [
        f"# The kernels on a GPU{small}",
        "",
        f"MEASURED {found['date']} on {found['device']}; commit {found['commit']}. By `python -m "
        f"experiments.speed.gpu_kernels`. A copy reaches {copy / 1e9:,.0f} GB/s, a dense bf16 "
        f"product {dense / 1e12:,.2f} TFLOP/s. Best of several runs.",
        "",
        *markdown_table([*head, "ragged_dot, us", "gather + einsum, us", "torch, us"], ffn),
        "",
        "torch: `grouped_mm` on tokens that were sorted ahead, without the sum over a token's "
        "experts.",
        "",
        "![roofline](gpu_kernels.png)",
        "",
        *markdown_table(["gate", "gate_topk, us", "XLA, us"], gate),
        "",
        *markdown_table(["cache_sim, LRU", "million accesses/s"], sim),
    ]


def main(options: Options) -> None:
    """Prints one JSON object, and writes the page."""
    if options.tiny:
        options = replace(options, decode=(1,), prefill=(64,), configurations=2, passes=8, turns=1)
    found = measure(options) | measured_on()
    print(json.dumps(found, indent=1))
    draw_roofline(found, options.output / "gpu_kernels.png")
    write_page(page(found), options.output / "gpu_kernels.md")


if __name__ == "__main__":
    main(tyro.cli(Options))
