"""`specmd generate`: text from a model whose experts stay on the host, under any strategy."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from tyro.conf import Positional, arg

from specmd_jax.cli.flags import Decisions, Json, choice_of, option
from specmd_jax.cli.interrupts import check, heard, keeping, word
from specmd_jax.cli.jit_cache import enable_compilation_cache
from specmd_jax.cli.output import print_json, say, show
from specmd_jax.cli.throttle import Throttle
from specmd_jax.cli.writable import Force, check_output, check_trace_name, mark
from specmd_jax.core.errors import InputError
from specmd_jax.core.printable import printable_prose
from specmd_jax.core.quantities import plural

if TYPE_CHECKING:
    from tokenizers import Tokenizer

    from specmd_jax.models import Checkpoint
    from specmd_jax.runtime.engine import OffloadedModel
    from specmd_jax.runtime.record.recorder import Recorder
    from specmd_jax.runtime.runs.generation import Generation

MOST_TOKENS = 1 << 20


@dataclass(frozen=True, kw_only=True)
class Drawn:
    """How tokens are drawn."""

    max_tokens: Annotated[int, option("N", "64")] = 64
    """New tokens; there are fewer if the model ends the text."""
    temperature: Annotated[float, option("X", "0, greedy")] = 0.0
    """How freely tokens are drawn; 1 is as the model has it."""
    top_p: Annotated[float, option("P", "1")] = 1.0
    """Draw from the likeliest tokens of this mass."""


@dataclass(frozen=True, kw_only=True)
class Generate:
    """Generate text with the experts in host memory, streamed through device slots.

    A warm-up compiles everything first, so that the times are those of a running server.
    """

    model: Annotated[Positional[str], arg(metavar="MODEL")]
    """specmd-tiny (bundled), a folder with config.json and weights, or a Hugging Face id."""
    prompt: Annotated[str, arg(metavar="P")]
    """The text to continue."""
    cache: Decisions = field(default_factory=Decisions)
    drawn: Drawn = field(default_factory=Drawn)
    throttle: Throttle = field(default_factory=Throttle)
    dtype: Annotated[Literal["float32", "bfloat16"], option("float32|bfloat16", "float32")] = (
        "float32"
    )
    """What the model computes in."""
    trace_out: Annotated[Path | None, option("T")] = None
    """Write the routing of this run, to be replayed by every other verb."""
    force: Force = False
    json: Json = False
    """Print one JSON object."""

    def run(self) -> None:
        from specmd_jax.models import open_model, open_tokenizer
        from specmd_jax.runtime.runs.generation import Generation
        from specmd_jax.runtime.runs.offloading import Offloading
        from specmd_jax.runtime.runs.prompts import context_length, encode
        from specmd_jax.study.setup import make_setup

        self._check()
        setup = make_setup(choice_of(self.cache))
        link, recorder = self.throttle.link(), self._recorder(setup.strategy)
        checkpoint = open_model(self.model)
        tokenizer = open_tokenizer(checkpoint)
        context = context_length(checkpoint.folder)
        (prompt,) = encode(tokenizer, [self.prompt], self.drawn.max_tokens, context)
        enable_compilation_cache()
        model = Offloading(checkpoint, self.dtype).model(setup, link=link, recorder=recorder)
        latest: list[Generation] = []
        with keeping(lambda: bool(latest)):
            try:
                stopped = self._follow(model, tokenizer, prompt, checkpoint, latest)
            finally:
                model.close()
            made = latest[0] if latest else Generation([[]])
            self._tell(model, made, tokenizer, checkpoint)
            if stopped or heard():
                raise KeyboardInterrupt(f"{word()} after {plural(len(made.at_s), 'token')}")

    def _check(self) -> None:
        if not 1 <= self.drawn.max_tokens <= MOST_TOKENS:
            raise InputError(
                f"--max-tokens {self.drawn.max_tokens} is out of range: give 1 to {MOST_TOKENS}"
            )
        if not self.prompt.strip():
            raise InputError("--prompt is empty: give some text to continue")
        if self.trace_out is not None:
            check_trace_name(self.trace_out)
            check_output(self.trace_out, self)

    def _recorder(self, strategy: Any) -> "Recorder | None":
        """A trace of this run must hold whatever its own strategy reads."""
        from specmd_jax.policies.base import LOGITS, PREDICTED, PROBS
        from specmd_jax.runtime.gates.scores import RecordOptions
        from specmd_jax.runtime.record.recorder import Recorder

        if self.trace_out is None:
            return None
        ahead = strategy.lookahead if PREDICTED in strategy.reads else 0
        return Recorder(RecordOptions(bool(strategy.reads & {LOGITS, PROBS}), ahead))

    def _follow(
        self,
        model: "OffloadedModel",
        tokenizer: "Tokenizer",
        prompt: list[int],
        checkpoint: "Checkpoint",
        latest: "list[Generation]",
    ) -> bool:
        """Prints and keeps in `latest` what is made; returns whether Ctrl-C ended it."""
        import jax.numpy as jnp

        from specmd_jax.models import Sampling
        from specmd_jax.runtime.runs.generation import follow, warm_up
        from specmd_jax.runtime.runs.prompts import stop_tokens

        drawn = self.drawn
        options: dict[str, Any] = {
            "sampling": Sampling(drawn.temperature, drawn.top_p),
            "seed": self.cache.seed or 0,
            "stop": stop_tokens(checkpoint.folder),
            "dtype": jnp.dtype(self.dtype),
        }
        warm_up(model, [prompt], drawn.max_tokens, **options)
        try:
            with _writing(None if self.json else tokenizer) as write:
                for made in follow(model, [prompt], drawn.max_tokens, **options):
                    latest[:] = [made]
                    write(made.token_ids[0])
                    check()
        except KeyboardInterrupt:
            return True
        return False

    def _tell(
        self,
        model: "OffloadedModel",
        made: "Generation",
        tokenizer: "Tokenizer",
        checkpoint: "Checkpoint",
    ) -> None:
        from specmd_jax.report.run_table import show_run
        from specmd_jax.runtime.runs.generation import summarise_run

        summary = {"model": self.model, "link": self.throttle.rate} | summarise_run(model, made)
        if self.trace_out is not None:
            self._write(model, checkpoint)
            summary["trace_out"] = str(self.trace_out)
        if self.json:
            ids = made.token_ids[0]
            print_json({"text": tokenizer.decode(ids), "token_ids": ids} | summary)
        else:
            show(show_run, summary)

    def _write(self, model: "OffloadedModel", checkpoint: "Checkpoint") -> None:
        from specmd_jax.models import Sampling
        from specmd_jax.runtime.offload.store import AS_STORED
        from specmd_jax.runtime.record.provenance import describe_recording
        from specmd_jax.runtime.record.record import Continuation
        from specmd_jax.traces import write_trace

        recorder, drawn = model.recorder, self.drawn
        assert recorder is not None and self.trace_out is not None
        recorder.finish()
        if not recorder.requests:
            say("nothing was generated, so no trace is written")
            return
        sampling = Sampling(drawn.temperature, drawn.top_p)
        how = Continuation(drawn.max_tokens, 1, sampling, self.cache.seed or 0)
        origin = describe_recording(self.model, checkpoint, how, self.dtype, "--prompt")
        origin = replace(origin, recorded=f"{origin.recorded}, {mark(self)}")
        plain = model.store.precisions == AS_STORED  # else sizes go by precision, not by layer
        sizes = model.store.copy_bytes[:, 0] if plain else None
        write_trace(recorder.trace(model.config.spec.num_experts, origin, sizes), self.trace_out)


@contextmanager
def _writing(tokenizer: "Tokenizer | None") -> "Iterator[Any]":
    """Yields a function that prints what tokens add to the text before them."""
    if tokenizer is None:
        yield lambda ids: None
        return
    shown = ""

    def write(ids: list[int]) -> None:
        nonlocal shown
        text = tokenizer.decode(ids)
        if not text.endswith("\N{REPLACEMENT CHARACTER}"):  # half a character is none yet
            print(printable_prose(text[len(shown) :]), end="", flush=True)
            shown = text

    try:
        yield write
    finally:
        print(flush=True)
