"""`specmd bench simulator`: accesses a second on one core, beside the peers installed."""

import os
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from rich.table import Table
from tyro.conf import Positional, arg

from specmd_jax.cli.flags import Json, option
from specmd_jax.cli.output import print_json, say, stdout


@dataclass(frozen=True)
class Bench:
    """How fast the simulator is on this machine: MEASURED, on one core, in one run.

    Least-Stale, FLD and score-based eviction have no counterpart among the peers.
    """

    what: Annotated[Positional[Literal["simulator"]], arg(metavar="simulator")]
    """What to measure."""
    policies: Annotated[tuple[str, ...], option("E ...", "the five key ones")] = ()
    """Eviction policies to measure."""
    configs: Annotated[tuple[int, ...], option("N ...", "1 16 256 4096")] = ()
    """Numbers of configurations to replay at once."""
    json: Json = False
    """Print one JSON object."""

    def run(self) -> None:
        core = _keep_to_one_core()  # before JAX counts the cores
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


def _keep_to_one_core() -> int | None:
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
