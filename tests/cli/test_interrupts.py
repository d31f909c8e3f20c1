"""Ctrl-C and SIGTERM, in processes of their own: from the first line to the last."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.faults import interrupts
from tests.faults.verbs import start

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")

SIGNALS = [(signal.SIGINT, 130, "interrupted"), (signal.SIGTERM, 143, "terminated")]
AS_PROCESS = """
import sys
from specmd_jax import cli
from specmd_jax.cli import interrupts
def work():
    {work}
cli._dispatch = lambda arguments: work()
sys.exit(cli.main())
"""
COMPILED = "import hashlib; hello(); hashlib.pbkdf2_hmac('sha256', b'', b'', (1 << 31) - 1)"
FINISHED = "import atexit, time; atexit.register(lambda: [hello(), time.sleep(60)])"
SWALLOWED = """
    while True:
        try:
            hello()
            while True: pass
        except BaseException: pass"""
KEPT = """
    with interrupts.keeping(lambda: True):
        hello()
        try:
            while True: interrupts.check()
        except KeyboardInterrupt:
            print("kept", flush=True)
        {then}"""
WRITING = """
    from pathlib import Path
    from specmd_jax.core.files import replace_file
    with replace_file(Path("out")) as half:
        half.write_text("half")
        hello()
        import time
        time.sleep(60)"""


def process(work: str, folder: Path) -> "subprocess.Popen[str]":
    """Starts a command line that does `work` and waits until it says hello."""
    work = work.replace("hello()", 'print("hello", flush=True)')
    command = [sys.executable, "-c", AS_PROCESS.format(work=work)]
    pipe = subprocess.PIPE
    started = subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, text=True, cwd=folder)
    assert started.stdout is not None and started.stdout.readline() == "hello\n"
    return started


@pytest.mark.parametrize(("number", "code", "word"), SIGNALS)
@pytest.mark.parametrize("work", [COMPILED, FINISHED, SWALLOWED, WRITING])
def test_it_ends_wherever_it_is(
    tmp_path: Path, work: str, number: signal.Signals, code: int, word: str
) -> None:
    with process(work, tmp_path) as running:
        running.send_signal(number)
        out, error = running.communicate(timeout=30)
    assert (running.returncode, out, error) == (code, "", f"specmd: {word}\n")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("number", "code", "word"), SIGNALS)
def test_what_is_worth_it_is_kept(
    tmp_path: Path, number: signal.Signals, code: int, word: str
) -> None:
    with process(KEPT.format(then=""), tmp_path) as running:
        running.send_signal(number)
        out, error = running.communicate(timeout=30)
    assert (running.returncode, out, error) == (code, "kept\n", f"specmd: {word}\n")


def test_a_second_signal_ends_that_too(tmp_path: Path) -> None:
    with process(KEPT.format(then="while True: pass"), tmp_path) as running:
        running.send_signal(signal.SIGINT)
        assert running.stdout is not None and running.stdout.readline() == "kept\n"
        running.send_signal(signal.SIGINT)
        _, error = running.communicate(timeout=30)
    assert (running.returncode, error) == (130, "specmd: interrupted\n")


def test_what_is_to_be_ignored_stays_ignored(tmp_path: Path) -> None:
    """As under nohup, or in the background of a script."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with process("hello(); sys.stdin.read()", tmp_path) as running:
            running.send_signal(signal.SIGINT)
            running.communicate("", timeout=30)
    finally:
        signal.signal(signal.SIGINT, before)
    assert running.returncode == 0


def test_random_moments(tmp_path: Path) -> None:
    """A small part of `python -m tests.faults.interrupts`."""
    options = interrupts.Options(count=3, verbs=("import",))
    assert interrupts.run(options, tmp_path) == 0


def test_before_anything_is_imported(tmp_path: Path) -> None:
    verb = interrupts.prepare(tmp_path)["simulate"]
    running = start(verb, tmp_path / "none", tmp_path)
    running.send_signal(signal.SIGINT)
    _, error = running.communicate(timeout=30)
    assert (running.returncode, error) == (130, "specmd: interrupted\n")
