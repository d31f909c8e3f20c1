"""`specmd list`: what there is to choose from."""

from dataclasses import dataclass
from typing import Annotated

from tyro.conf import Positional, arg

from specmd_jax.cli.flags import Json
from specmd_jax.cli.output import print_json, stdout
from specmd_jax.core.names import find_name


@dataclass(frozen=True, kw_only=True)
class List:
    """List what there is to choose from."""

    what: Annotated[Positional[str], arg(metavar="strategies|policies|models|hardware|formats")]
    """Which list."""
    json: Json = False
    """Print one JSON object."""

    def run(self) -> None:
        from specmd_jax.report.listings import LISTINGS

        what = find_name(self.what, LISTINGS, f"no list is called {self.what!r}")
        records, show = LISTINGS[what]
        if self.json:
            print_json({what: records()})
        else:
            show(stdout())
