"""Standard output is for results, standard error for progress."""

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn


class _Results(Console):
    """A console that leaves a closed pipe to `main`: what a reader such as `head` wants is read."""

    def on_broken_pipe(self) -> None:
        raise  # rich calls this while it handles the error


def stdout() -> Console:
    """Returns the console of results."""
    return _Results(highlight=False)


def print_json(result: Mapping[str, Any]) -> None:
    """Prints one JSON object; a number that is none would be a bug."""
    print(json.dumps(result, allow_nan=False), flush=True)


def say(message: str) -> None:
    """Prints a remark beside the result."""
    Console(stderr=True, highlight=False).print(message, style="dim", markup=False, soft_wrap=True)


@contextmanager
def progress(title: str) -> Iterator[Callable[[float], None]]:
    """Yields a function that takes the share of work done; shown only to a terminal."""
    console = Console(stderr=True)
    if not console.is_terminal:
        yield lambda share: None
        return
    columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task(title, total=1.0)
        yield lambda share: bar.update(task, completed=share)
