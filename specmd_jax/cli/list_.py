"""`specmd list`: what there is to choose from."""

from dataclasses import dataclass
from typing import Annotated, Literal

from tyro.conf import Positional, arg

from specmd_jax.cli.flags import Json
from specmd_jax.cli.output import print_json, stdout


@dataclass(frozen=True, kw_only=True)
class List:
    """List what there is to choose from."""

    what: Annotated[
        Positional[Literal["strategies", "policies", "models", "hardware", "formats"]],
        arg(metavar="strategies|policies|models|hardware|formats"),
    ]
    """Which list."""
    json: Json = False
    """Print one JSON object."""

    def run(self) -> None:
        from specmd_jax.report.listings import LISTINGS

        records, show = LISTINGS[self.what]
        if self.json:
            print_json({self.what: records()})
        else:
            show(stdout())
