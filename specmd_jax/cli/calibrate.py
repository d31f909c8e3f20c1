"""`specmd calibrate`: this machine as a hardware profile."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from tyro.conf import arg

from specmd_jax.cli.flags import Json
from specmd_jax.cli.output import print_json, progress, stdout
from specmd_jax.cli.writable import Force, check_output, mark
from specmd_jax.core.errors import InputError

if TYPE_CHECKING:
    from specmd_jax.hardware.profiles import HardwareProfile

MEASURED = "MEASURED"


@dataclass(frozen=True, kw_only=True)
class Calibrate:
    """Measure this machine, in under a minute, and write a profile for --hardware.

    Leave the machine alone meanwhile: other load makes every figure worse.
    """

    output: Annotated[Path, arg(aliases=["-o"], metavar="H.json")]
    """The profile to write."""
    force: Force = False
    json: Json = False
    """Print one JSON object."""

    def run(self) -> None:
        if self.output.suffix != ".json":
            raise InputError(f"{self.output} is no .json: --hardware knows a profile by its ending")
        check_output(self.output, self)
        from specmd_jax.hardware.probe import measure
        from specmd_jax.hardware.profiles import write_profile

        with progress("measuring this machine") as on_progress:
            profile, about = measure(on_progress=on_progress)
        write_profile(profile, self.output, about | {"settings": mark(self)})
        if self.json:
            record = {"output": str(self.output), "label": MEASURED} | asdict(profile)
            print_json(record | {"measured": about})
        else:
            _show(profile, about, self.output)


def _show(profile: "HardwareProfile", about: dict[str, Any], output: Path) -> None:
    from rich.padding import Padding
    from rich.table import Table
    from rich.text import Text

    from specmd_jax.core.quantities import nbytes, seconds

    table = Table.grid(padding=(0, 2))
    for link in about["links"]:
        rate = f"{nbytes(link['bytes_per_s'])}/s"
        table.add_row(f"link from {link['source']}", rate, f"{seconds(link['latency_s'])} a copy")
    for kind, rate in about["matmul_flops_per_s"].items():
        table.add_row(f"matmul {kind}", f"{rate / 1e12:.3g} TFLOP/s", "")
    table.add_row("device memory", f"{nbytes(profile.hbm_bytes_per_s)}/s",
                  nbytes(profile.device_memory_bytes))  # fmt: skip
    table.add_row("host", f"{nbytes(profile.host_memory_bytes_per_s)}/s",
                  f"{profile.host_flops_per_s / 1e12:.3g} TFLOP/s")  # fmt: skip
    parts = f"a call {seconds(about['call_s'])}, a hop {seconds(about['hop_s'])}"
    table.add_row("dispatch of a layer", seconds(profile.dispatch_s), parts)
    console = stdout()
    title = Text.assemble("  ", (profile.name, "bold"), "   ", (MEASURED, "bold black on green"))
    console.print()
    console.print(title)
    console.print(Padding(table, (1, 0, 1, 2), expand=False))
    console.print(Text(f"  {output}, {about['seconds']:.1f} s", "dim"))
