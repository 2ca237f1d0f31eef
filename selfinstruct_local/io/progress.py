"""The console for progress and messages: what is waited for, counters, durations.

All of it goes to stderr; stdout carries results alone. Text that comes from data is never read as markup, and control
characters in it are shown.
"""

import logging
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from rich.console import Console, RenderableType
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.status import Status
from rich.text import Text

from selfinstruct_local.errors import shown

# Set for quiet, by a person or by --quiet. A variable, so that the processes a command starts are quiet too.
QUIET_VARIABLE = "SELFINSTRUCT_QUIET"


class _DataConsole(Console):
    """Prints no text as it is: names and data may hold what a terminal obeys."""

    def print(self, *objects: Any, **how: Any) -> None:
        """Prints as `Console.print` does."""
        super().print(*(shown(each) if isinstance(each, str) else each for each in objects), **how)

    def status(self, status: RenderableType, **how: Any) -> Status:
        """A spinner with a text, which is no markup."""
        return super().status(Text(shown(status)) if isinstance(status, str) else status, **how)


def be_quiet() -> None:
    """Lets every console that is made from now on, here and in child processes, print nothing."""
    os.environ[QUIET_VARIABLE] = "1"
    logging.getLogger("selfinstruct_local").setLevel(logging.ERROR)


def stderr_console() -> Console:
    """The console for progress and messages; plain off a terminal and under NO_COLOR, and safe to print data on.

    It prints nothing after `be_quiet`. Errors and warnings do not go through it.
    """
    quiet = bool(os.environ.get(QUIET_VARIABLE))
    return _DataConsole(stderr=True, highlight=False, markup=False, soft_wrap=True, quiet=quiet)


@contextmanager
def waiting(console: Console, what: str) -> Iterator[None]:
    """Says what is being waited for: with a spinner on a terminal, as one line elsewhere."""
    if console.is_terminal:
        with console.status(what):
            yield
    else:
        console.print(what)
        yield


@contextmanager
def counting(console: Console, what: str) -> Iterator[Callable[[int], None]]:
    """A counter of rows on a terminal, and nothing elsewhere; yields what to call with each further number of rows."""
    columns = (SpinnerColumn(), TextColumn(f"{what} {{task.completed}} rows"), TimeElapsedColumn())
    with Progress(*columns, console=console, disable=not console.is_terminal, transient=True) as progress:
        counter = progress.add_task("", total=None)
        yield lambda rows: progress.advance(counter, rows)


def format_seconds(seconds: float) -> str:
    """`47 s`, `3 min 20 s` or `2 h 05 min`."""
    whole = round(seconds)
    if whole < 60:  # noqa: PLR2004 - a minute
        return f"{whole} s"
    minutes, rest = divmod(whole, 60)
    if minutes < 60:  # noqa: PLR2004 - an hour
        return f"{minutes} min {rest:02} s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02} min"
