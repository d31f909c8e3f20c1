"""`specmd quality`: what a cache costs in quality, measured inside the model."""

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from tyro.conf import Positional, arg

from specmd_jax.cli.flags import Decisions, Json, choice_of, option
from specmd_jax.cli.jit_cache import enable_compilation_cache
from specmd_jax.cli.output import print_json, progress, show
from specmd_jax.core.errors import InputError

if TYPE_CHECKING:
    import numpy as np

    from specmd_jax.models import Checkpoint
    from specmd_jax.study.setup import Setup

MOST_TOKENS = 1 << 20
MOST_LENGTH = 1 << 14


@dataclass(frozen=True, kw_only=True)
class Quality:
    """Read a text through a cache, token by token, and compare with the exact model.

    Closed loop: whatever a lossy cache does to one layer changes the states that follow.

    Several capacities go apart by commas (quotas joined by +).
    """

    model: Annotated[Positional[str], arg(metavar="MODEL")]
    """specmd-tiny (bundled), a folder with config.json and weights, or a Hugging Face id."""
    text: Annotated[Path, arg(metavar="F")]
    """Text that the model has not been trained on; or its tokens, as a one-dimensional .npy."""
    cache: Decisions = field(default_factory=Decisions)
    tokens: Annotated[int, option("N", "2048")] = 2048
    """Tokens to read, at most."""
    length: Annotated[int, option("N", "128")] = 128
    """Tokens of a request: attention begins anew after them, the cache goes on."""
    json: Json = False
    """Print one JSON object."""

    def run(self) -> None:
        from specmd_jax.models import open_model
        from specmd_jax.report.quality_table import show_quality
        from specmd_jax.runtime.quality.measure import cut, measure, read_exactly, summarise_quality

        for name, most in (("tokens", MOST_TOKENS), ("length", MOST_LENGTH)):
            if not 2 <= getattr(self, name) <= most:
                raise InputError(f"--{name} {getattr(self, name)} is out of range: 2 to {most}")
        checkpoint = open_model(self.model)
        setups = self._setups(checkpoint)
        texts = cut(self._read(checkpoint), self.length, self.tokens)
        enable_compilation_cache()
        reading = read_exactly(checkpoint, texts)
        with progress(f"reading {texts.shape[0]} texts {len(setups)} times") as on_progress:
            found = measure(reading, setups, on_progress)
        seed = self.cache.seed or 0
        rows = [summarise_quality(one, seed) for one in found]
        if self.json:
            print_json({"model": self.model, "text": str(self.text), "rows": rows})
        else:
            show(show_quality, rows)

    def _setups(self, checkpoint: "Checkpoint") -> "list[Setup]":
        from specmd_jax.runtime.quality.measure import check_quality
        from specmd_jax.study.setup import make_setup

        setup = make_setup(choice_of(self.cache))
        capacities = [part.strip().replace("+", ",") for part in self.cache.capacity.split(",")]
        setups = [replace(setup, capacity=capacity) for capacity in capacities]
        for one in setups:
            check_quality(one, checkpoint.config)
        return setups

    def _read(self, checkpoint: "Checkpoint") -> "np.ndarray":
        from specmd_jax.models import open_tokenizer
        from specmd_jax.runtime.runs.prompts import read_tokens

        if self.text.suffix == ".npy":
            return read_tokens(self.text)
        tokenizer: Any = open_tokenizer(checkpoint)
        return read_tokens(self.text, tokenizer)
