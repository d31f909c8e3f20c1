"""`specmd demo`: the bundled model with its experts on the host, strategies side by side."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from tyro.conf import arg

from specmd_jax.cli.flags import Json, option
from specmd_jax.cli.jit_cache import enable_compilation_cache
from specmd_jax.cli.output import print_json, progress, say, stdout
from specmd_jax.cli.writable import Force, check_output, mark
from specmd_jax.core.errors import InputError

MOST_TOKENS = 256  # of each run: some minutes


@dataclass(frozen=True, kw_only=True)
class Demo:
    """Run the bundled model under the paper's strategies: nothing to download.

    Its experts are in host memory and come over a throttled link; all figures are MEASURED.
    """

    tokens: Annotated[int, option("N", "24")] = 24
    """Tokens that each strategy writes."""
    output: Annotated[Path | None, arg(aliases=["-o"], metavar="R.html")] = None
    """Write a report, too: a page with a picture and the texts."""
    force: Force = False
    json: Json = False
    """Print one JSON object."""

    def run(self) -> None:
        from specmd_jax.report.demo_page import write_demo_page
        from specmd_jax.report.demo_table import show_demo
        from specmd_jax.runtime.runs.demo import demonstrate

        if not 2 <= self.tokens <= MOST_TOKENS:
            raise InputError(f"--tokens {self.tokens} is out of range: give 2 to {MOST_TOKENS}")
        if self.output is not None:
            check_output(self.output, self)
            if self.output.suffix.lower() not in (".html", ".htm"):
                raise InputError(f"{self.output} is no .html: a report is a page for a browser")
        enable_compilation_cache()
        with progress("six strategies, two capacities") as on_progress:
            shown = demonstrate(self.tokens, on_progress)
        if self.json:
            print_json(shown._asdict())
        else:
            show_demo(shown._asdict(), stdout())
        if self.output is not None:
            write_demo_page(shown._asdict(), self.output, mark(self))
            say(f"report: {self.output}")
