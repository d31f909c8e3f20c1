"""The verbs that are disturbed: commands that work for some seconds, and what they must leave."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from specmd_jax.core.files import PREFIX
from specmd_jax.core.types import ModelShape
from specmd_jax.traces import write_trace
from specmd_jax.traces.synthetic.generator import SyntheticSpec, generate

SIGTERM_BIT = 1 << 14  # of the signals that a process catches; Python itself catches no SIGTERM
MOST_S = 60.0  # of any command
SHAPE = ModelShape(num_layers=16, num_experts=64, top_k=8)  # OLMoE's, so that it can be timed


class Verb(NamedTuple):
    """One command; `{out}` stands for the file it writes."""

    name: str
    arguments: tuple[str, ...]
    suffix: str = ""  # of its output; "" where it has none

    def command(self, output: Path) -> list[str]:
        words = [word.format(out=output) for word in self.arguments]
        return [sys.executable, "-m", "specmd_jax.cli", self.name, *words]


def prepare(folder: Path) -> dict[str, Verb]:
    """Writes the inputs into `folder` and returns the verbs."""
    trace, prompts = folder / "trace.st", folder / "prompts.txt"
    write_trace(generate(SyntheticSpec(SHAPE, requests=4, tokens=60)), trace)
    prompts.write_text("The cache\nOnce upon a time\nExperts are\nWhat is a link?\n")
    timed = ("--model", "olmoe-1b-7b-0924", "--hardware", "rtx-4090")
    grid = ("--eviction", "lru,lfu,fifo,least-stale", "--capacity", "5%,10%,20%")
    guarded = ("--eviction", "linear", "--evaluations", "16", "--starts", "2")
    verbs = (
        Verb("import", (str(trace), "-o", "{out}"), ".st"),
        Verb("simulate", (str(trace), *timed)),
        Verb("sweep", (str(trace), *grid, "-o", "{out}"), ".parquet"),
        Verb("tune", (str(trace), *timed, *guarded, "-o", "{out}"), ".json"),
        Verb("generate", ("specmd-tiny", "--prompt", "The", "--capacity", "25%")),
        Verb("record", ("specmd-tiny", "--prompts", str(prompts), "-o", "{out}"), ".st"),
    )
    return {verb.name: verb for verb in verbs}


def environment(folder: Path) -> Mapping[str, str]:
    """Returns the environment of the commands, with a compilation cache of their own."""
    return os.environ | {"SPECMD_CACHE": str(folder / "cache"), "NO_COLOR": "1"}


def start(verb: Verb, output: Path, folder: Path) -> "subprocess.Popen[str]":
    """Starts a command and waits for its first line: before it, the interpreter is on its own."""
    _hear()
    process = subprocess.Popen(
        verb.command(output),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(folder),
    )
    status = Path(f"/proc/{process.pid}/status")
    while process.poll() is None:
        (caught,) = (line for line in status.read_text().splitlines() if line.startswith("SigCgt"))
        if int(caught.split()[1], 16) & SIGTERM_BIT:
            break
        time.sleep(0.001)
    return process


def _hear() -> None:
    """Has a command hear Ctrl-C even where these trials run in the background of a script.

    A program that is started ignores what its parent ignores.
    """
    if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def undisturbed(verb: Verb, output: Path, folder: Path) -> float:
    """Runs a command to its end and returns how long it took in seconds."""
    begun = time.monotonic()
    process = start(verb, output, folder)
    _, error = process.communicate(timeout=10 * MOST_S)
    assert process.returncode == 0, f"{verb.name} cannot be tried: {error}"
    return time.monotonic() - begun


def left_over(folder: Path) -> list[str]:
    """Returns the names of what was being written in `folder`."""
    return [path.name for path in folder.iterdir() if path.name.startswith(PREFIX)]
