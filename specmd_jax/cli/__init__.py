"""`specmd`: one verb a module, one line for whatever is wrong with the input.

Exit codes: 0; 2 for bad input (one line on standard error); 130 after Ctrl-C and 143 after SIGTERM
(one line too). An exception with a traceback is a bug, and ends with 1.
"""

import os
import sys
from collections.abc import Sequence
from importlib import import_module
from io import TextIOWrapper

from specmd_jax.cli import interrupts
from specmd_jax.core.errors import InputError

OK, BAD_INPUT = 0, 2


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line and returns its exit code.

    Args:
      arguments: without the name of the program. None: those of the process, which then is this
        command line's own: its signals are taken over, and the code is what it will return.
    """
    if arguments is not None:
        return _run(list(arguments))
    interrupts.take_over()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):  # what its encoding lacks is written out
            stream.reconfigure(errors="backslashreplace")
    code = _run(sys.argv[1:])
    interrupts.leave_with(code)
    return code


def _run(arguments: list[str]) -> int:
    try:
        _dispatch(arguments)
        print(end="", flush=True)  # a full disk is told below
    except InputError as error:
        _complain(str(error))
        return BAD_INPUT
    except KeyboardInterrupt as interrupt:
        _complain(str(interrupt) or interrupts.word())
        return interrupts.exit_code()
    except OSError as error:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # what is left to flush
        if not isinstance(error, BrokenPipeError):  # a reader such as `head` has seen enough
            _complain(f"the output cannot be written ({error.strerror}): make room for it")
            return BAD_INPUT
    return OK


def _dispatch(arguments: list[str]) -> None:
    # Late: signals are heard, and slips told, before what takes its time is imported.
    from specmd_jax.cli.parse import parse
    from specmd_jax.cli.verbs import VERBS, show_help
    from specmd_jax.core.names import find_name

    verb, rest = (arguments[0], arguments[1:]) if arguments else ("", [])
    if verb in ("-h", "--help", "help"):
        show_help()
    elif verb == "--version":
        from importlib.metadata import version

        print(f"specmd {version('specmd-jax')}")
    elif verb:
        verb = find_name(verb, VERBS, f"no verb is called {verb!r}", ", or see specmd --help")
        flags = getattr(import_module(VERBS[verb].module), VERBS[verb].flags)
        command = parse(flags, f"specmd {verb}", rest)
        if command is not None:
            command.run()
    else:
        raise InputError(
            f"no verb is given: choose one of {', '.join(VERBS)}, or see specmd --help"
        )


def _complain(message: str) -> None:
    from specmd_jax.core.printable import printable

    print(f"specmd: {printable(' '.join(message.split()))}", file=sys.stderr)
