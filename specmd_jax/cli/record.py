"""`specmd record`: run a model on prompts and keep which experts it chose."""

import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from tyro.conf import FlagCreatePairsOff, Positional, arg

from specmd_jax.cli.flags import Json, option
from specmd_jax.cli.interrupts import checked, heard, keeping, remark, word
from specmd_jax.cli.jit_cache import enable_compilation_cache
from specmd_jax.cli.output import print_json, progress, say, show
from specmd_jax.cli.writable import Force, check_output, check_trace_name, mark
from specmd_jax.core.errors import InputError

if TYPE_CHECKING:
    import numpy as np

    from specmd_jax.models import Checkpoint
    from specmd_jax.runtime.record.record import Continuation
    from specmd_jax.runtime.record.recorder import Recorder


@dataclass(frozen=True, kw_only=True)
class Continued:
    """How the prompts are continued."""

    max_tokens: Annotated[int, option("N", "64")] = 64
    """New tokens of each request; it ends before if the model ends it."""
    batch: Annotated[int, option("B", "1")] = 1
    """Requests that run together."""
    temperature: Annotated[float, option("X", "0, greedy")] = 0.0
    """How freely tokens are drawn; 1 is as the model has it."""
    top_p: Annotated[float, option("P", "1")] = 1.0
    """Draw from the likeliest tokens of this mass."""
    seed: Annotated[int, option("N", "0")] = 0
    """Seed of the draws."""


@dataclass(frozen=True, kw_only=True)
class Record:
    """Run a model on prompts, and write the experts it chose into a specmd.trace/1 file.

    Expert ids and gate weights are always recorded. The whole model must fit the device.

    Ctrl-C keeps the requests that are whole; there is no going on from them.
    """

    model: Annotated[Positional[str], arg(metavar="MODEL")]
    """specmd-tiny (bundled), a folder with config.json and weights, or a Hugging Face id."""
    prompts: Annotated[Path, arg(metavar="F")]
    """Text with a prompt a line, or .jsonl with a field prompt, question or text."""
    output: Annotated[Path, arg(aliases=["-o"], metavar="T")]
    """The trace to write."""
    force: Force = False
    continued: Continued = field(default_factory=Continued)
    scores: Annotated[FlagCreatePairsOff[bool], arg(help_behavior_hint="")] = False
    """Record the gates' scores of all experts too, for routing and miss policies."""
    lookahead: Annotated[int, option("D", "0")] = 0
    """Layers ahead, up to 3, whose choice is foreseen, for next-gate prefetching."""
    dtype: Annotated[Literal["float32", "bfloat16"], option("float32|bfloat16", "float32")] = (
        "float32"
    )
    """What the model is run in."""
    json: Json = False
    """Print one JSON object."""

    def run(self) -> None:
        from specmd_jax.models import open_model, open_tokenizer
        from specmd_jax.runtime.gates.scores import MAX_LOOKAHEAD, RecordOptions
        from specmd_jax.runtime.record.recorder import Recorder
        from specmd_jax.runtime.runs.prompts import context_length, encode, read_prompts

        if not 0 <= self.lookahead <= MAX_LOOKAHEAD:
            raise InputError(f"--lookahead {self.lookahead}: give 0 to {MAX_LOOKAHEAD}")
        check_trace_name(self.output)
        check_output(self.output, self)
        texts = read_prompts(self.prompts)
        checkpoint = open_model(self.model)
        how = self._how(checkpoint)
        context = context_length(checkpoint.folder)
        prompts = encode(open_tokenizer(checkpoint), texts, how.max_tokens, context)
        recorder = Recorder(RecordOptions(self.scores, self.lookahead))
        enable_compilation_cache()
        begun = time.perf_counter()
        with keeping(lambda: recorder.requests > 0):
            expert_bytes, stopped = self._record(checkpoint, recorder, prompts, how)
            seconds = time.perf_counter() - begun
            self._write(checkpoint, recorder, how, expert_bytes, seconds)
            if stopped or heard():
                whole = f"{recorder.requests} of {len(prompts)} requests"
                raise KeyboardInterrupt(f"{word()}: {self.output} holds {whole}")

    def _how(self, checkpoint: "Checkpoint") -> "Continuation":
        from specmd_jax.models import Sampling
        from specmd_jax.runtime.record.record import Continuation
        from specmd_jax.runtime.runs.prompts import stop_tokens

        asked = self.continued
        return Continuation(
            asked.max_tokens,
            asked.batch,
            Sampling(asked.temperature, asked.top_p),
            asked.seed,
            stop_tokens(checkpoint.folder),
        )

    def _record(
        self,
        checkpoint: "Checkpoint",
        recorder: "Recorder",
        prompts: list[list[int]],
        how: "Continuation",
    ) -> "tuple[np.ndarray, bool]":
        """Returns the bytes of an expert by layer, and whether Ctrl-C ended the recording."""
        import jax.numpy as jnp

        from specmd_jax.runtime.record.model import RecordingModel, load_whole
        from specmd_jax.runtime.record.record import record

        dtype = jnp.dtype(self.dtype)
        decoder, experts, expert_bytes = load_whole(checkpoint, dtype)
        model = RecordingModel(decoder, experts, recorder)
        nothing = "before a request was whole: nothing is written"
        try:
            with remark(lambda: nothing), progress(f"recording {len(prompts)} requests") as bar:
                record(model, prompts, how, dtype=dtype, on_progress=checked(bar))
        except KeyboardInterrupt:
            if not recorder.requests:
                raise
            return expert_bytes, True
        return expert_bytes, False

    def _write(
        self,
        checkpoint: "Checkpoint",
        recorder: "Recorder",
        how: "Continuation",
        expert_bytes: "np.ndarray",
        seconds: float,
    ) -> None:
        from specmd_jax.report.tables import show_trace
        from specmd_jax.runtime.record.provenance import describe_recording
        from specmd_jax.traces import write_trace
        from specmd_jax.traces.analysis import describe_trace

        origin = describe_recording(self.model, checkpoint, how, self.dtype, self.prompts.name)
        origin = replace(origin, recorded=f"{origin.recorded}, {mark(self)}")
        trace = recorder.trace(checkpoint.config.spec.num_experts, origin, expert_bytes)
        write_trace(trace, self.output)
        facts: dict[str, Any] = {"output": str(self.output)} | describe_trace(trace)
        speed = {"seconds": seconds, "recorded_tokens_per_s": trace.num_tokens / seconds}
        if self.json:
            print_json(facts | speed | {"label": "MEASURED"})
        else:
            show(show_trace, facts)
            say(
                f"{speed['recorded_tokens_per_s']:,.0f} tokens/s recorded in {seconds:.1f} s, "
                "loading and compiling included: MEASURED"
            )
