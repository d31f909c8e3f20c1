"""Standard output is for results, standard error for progress."""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from rich.console import Console, ConsoleOptions, RenderableType
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.segment import Segment

from specmd_jax.core.printable import printable, printable_record

_IN_ASCII = str.maketrans("█▓▒░·…", "#=-...")  # what our own pages draw with


class _Plain(Console):
    """A console on which no text can act, whatever file it comes from.

    It leaves a closed pipe to `main`: what a reader such as `head` wants is read.
    """

    def render(
        self, renderable: RenderableType, options: ConsoleOptions | None = None
    ) -> Iterable[Segment]:
        drawn_with = _IN_ASCII if self.options.ascii_only else {}
        for segment in super().render(renderable, options):
            if segment.control:
                yield segment
            else:
                text = printable(segment.text, keep="\n").translate(drawn_with)
                yield Segment(text, segment.style)

    def on_broken_pipe(self) -> None:
        raise  # rich calls this while it handles the error


def show(page: Callable[..., None], record: Any, *rest: Any) -> None:
    """Prints a result as `page` lays it out, every text in it as it may be shown."""
    page(printable_record(record), stdout(), *rest)


def stdout() -> Console:
    """Returns the console of results."""
    return _Plain(highlight=False)


def print_json(result: Mapping[str, Any]) -> None:
    """Prints one JSON object in ASCII; a number that is none would be a bug."""
    print(json.dumps(result, allow_nan=False).replace("\x7f", "\\u007f"), flush=True)


def say(message: str) -> None:
    """Prints a remark beside the result."""
    _Plain(stderr=True, highlight=False).print(
        printable(message), style="dim", markup=False, soft_wrap=True
    )


@contextmanager
def progress(title: str) -> Iterator[Callable[[float], None]]:
    """Yields a function that takes the share of work done; shown only to a terminal."""
    console = _Plain(stderr=True)
    if not console.is_terminal or console.is_dumb_terminal:
        yield lambda share: None
        return
    words = TextColumn("{task.description}", markup=False)
    columns = (SpinnerColumn(), words, BarColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task(printable(title), total=1.0)
        yield lambda share: bar.update(task, completed=share)
