"""`specmd bench`: the simulator beside its peers, or the runtime beside a plain jitted model."""

import os
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from rich.table import Table
from tyro.conf import Positional, arg

from specmd_jax.cli.flags import Json, option
from specmd_jax.cli.jit_cache import enable_compilation_cache
from specmd_jax.cli.output import print_json, say, stdout
from specmd_jax.core.errors import InputError


@dataclass(frozen=True)
class Bench:
    """How fast this machine is: MEASURED, in one run.

    The simulator is timed on one core; some policies have no counterpart among the peers.

    The runtime is timed on the bundled model, beside the same model whole on the device.
    """

    what: Annotated[Positional[Literal["simulator", "runtime"]], arg(metavar="simulator|runtime")]
    """What to measure."""
    policies: Annotated[tuple[str, ...], option("E ...", "the five key ones")] = ()
    """Eviction policies to measure."""
    configs: Annotated[tuple[int, ...], option("N ...", "1 16 256 4096")] = ()
    """Numbers of configurations to replay at once."""
    json: Json = False
    """Print one JSON object."""

    def run(self) -> None:
        if self.what == "runtime":
            self._run_runtime()
        else:
            self._run_simulator()

    def _run_runtime(self) -> None:
        if self.policies or self.configs:
            raise InputError("--policies and --configs are of bench simulator: leave them out")
        from specmd_jax.bench.runtime import bench_runtime
        from specmd_jax.models import open_model
        from specmd_jax.models.checkpoints.library import BUNDLED

        enable_compilation_cache()
        found = bench_runtime(open_model(BUNDLED), tell=say)
        rows = [row._asdict() for row in found.rows]
        if self.json:
            print_json({"label": "MEASURED", "model": BUNDLED} | found._asdict() | {"rows": rows})
            return
        stdout().print(_runtime_table(rows))
        say(
            f"every expert in a slot: {found.all_resident_ratio:.2f} x the plain jitted TPOT; "
            f"layer by layer: {1e6 * found.overhead_per_layer_s:.0f} us a layer on top"
        )

    def _run_simulator(self) -> None:
        core = keep_to_one_core()  # before JAX counts the cores
        from specmd_jax.bench import peers
        from specmd_jax.bench.simulator import CONFIGS, POLICIES, Row, bench_simulator

        def tell(row: Row) -> None:
            say(f"{row.engine} {row.policy} x{row.configs}: {row.accesses_per_s / 1e6:.2f} M/s")

        rows = bench_simulator(self.policies or POLICIES, self.configs or CONFIGS, tell)
        if absent := peers.missing():
            say(f"not installed, so not measured: {', '.join(absent)} (extra: bench)")
        if self.json:
            print_json({"label": "MEASURED", "core": core, "rows": [row._asdict() for row in rows]})
        else:
            stdout().print(_table([row._asdict() for row in rows]))


def keep_to_one_core() -> int | None:
    """Pins this process, where the system can, and returns the core."""
    if not hasattr(os, "sched_setaffinity"):
        return None
    core = min(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {core})
    os.environ["NPROC"] = "1"
    return core


def _table(rows: list[dict[str, Any]]) -> Table:
    table = Table(title="Simulator speed, one core  [dim]MEASURED[/dim]", box=None, pad_edge=False)
    for name in ("engine", "policy"):
        table.add_column(name)
    for name in ("configs", "M accesses/s", "compile s"):
        table.add_column(name, justify="right")
    for row in rows:
        compile_s = f"{row['compile_s']:.1f}" if row["compile_s"] else "-"
        rate = f"{row['accesses_per_s'] / 1e6:.2f}"
        table.add_row(row["engine"], row["policy"], str(row["configs"]), rate, compile_s)
    return table


def _runtime_table(rows: list[dict[str, Any]]) -> Table:
    table = Table(title="Runtime, specmd-tiny  [dim]MEASURED[/dim]", box=None, pad_edge=False)
    table.add_column("way")
    for name in ("capacity", "hit rate", "TTFT ms", "TPOT ms"):
        table.add_column(name, justify="right")
    for row in rows:
        hits = "-" if row["hit_rate"] is None else f"{100 * row['hit_rate']:.1f} %"
        times = (f"{1e3 * row[name]:.2f}" for name in ("ttft_s", "tpot_s"))
        table.add_row(row["way"], row["capacity"], hits, *times)
    return table
