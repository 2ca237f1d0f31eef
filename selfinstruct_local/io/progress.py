"""The console for progress and messages: spinners, counters, durations.

All output goes to stderr; stdout is only for results. Text from data is never interpreted as markup, and its control
characters are escaped.
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

# Set by --quiet or by the user. An environment variable, so that child processes are quiet too.
QUIET_VARIABLE = "SELFINSTRUCT_QUIET"


class _DataConsole(Console):
    """A console that escapes control characters in text, which may come from names and data."""

    def print(self, *objects: Any, **how: Any) -> None:
        """Print as `Console.print` does, with control characters escaped."""
        super().print(*(shown(each) if isinstance(each, str) else each for each in objects), **how)

    def status(self, status: RenderableType, **how: Any) -> Status:
        """Return a spinner whose text is not interpreted as markup."""
        return super().status(Text(shown(status)) if isinstance(status, str) else status, **how)


def be_quiet() -> None:
    """Silence every console created from now on, in this process and in child processes."""
    os.environ[QUIET_VARIABLE] = "1"
    logging.getLogger("selfinstruct_local").setLevel(logging.ERROR)


def stderr_console() -> Console:
    """Return the console for progress and messages: safe for data, without colors off a terminal and with NO_COLOR.

    It prints nothing after `be_quiet`. Errors and warnings do not use it.
    """
    quiet = bool(os.environ.get(QUIET_VARIABLE))
    return _DataConsole(stderr=True, highlight=False, markup=False, soft_wrap=True, quiet=quiet)


@contextmanager
def waiting(console: Console, what: str) -> Iterator[None]:
    """Show what the block waits for: as a spinner on a terminal, as one line elsewhere."""
    if console.is_terminal:
        with console.status(what):
            yield
    else:
        console.print(what)
        yield


@contextmanager
def counting(console: Console, what: str) -> Iterator[Callable[[int], None]]:
    """Show a counter of rows on a terminal, nothing elsewhere; yield a function that adds a number of rows."""
    columns = (SpinnerColumn(), TextColumn(f"{what} {{task.completed}} rows"), TimeElapsedColumn())
    with Progress(*columns, console=console, disable=not console.is_terminal, transient=True) as progress:
        counter = progress.add_task("", total=None)
        yield lambda rows: progress.advance(counter, rows)


def format_seconds(seconds: float) -> str:
    """Return a duration as text: `47 s`, `3 min 20 s` or `2 h 05 min`."""
    whole = round(seconds)
    if whole < 60:  # noqa: PLR2004 - a minute
        return f"{whole} s"
    minutes, rest = divmod(whole, 60)
    if minutes < 60:  # noqa: PLR2004 - an hour
        return f"{minutes} min {rest:02} s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02} min"
