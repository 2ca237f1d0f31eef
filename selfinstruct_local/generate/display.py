"""The display of a run: a live table on a terminal, or a line every 15 seconds; and the summary of a session."""

import logging
import time
from collections import Counter
from collections.abc import Sequence
from typing import Self

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from selfinstruct_local.engines.base import Completion
from selfinstruct_local.generate.metrics import RunMetrics
from selfinstruct_local.io.progress import format_seconds
from selfinstruct_local.runs.store import DecidedJob, Totals

ENGINE_LOG = logging.getLogger("selfinstruct_local.engines")

LINE_EVERY_SECONDS = 15.0
REFRESHES_A_SECOND = 4
# From this many tasks, the nearest-neighbor search takes a second or more.
MANY_TO_SCORE = 10_000


class RunDisplay:
    """An observer that shows accepted and target tasks, requests, tokens/s, rejections by reason, and the time left.

    Log messages of the engine (a restart, an unreachable server) are printed above it.
    """

    def __init__(self, console: Console, totals: Totals, wanted: int, starting: str = "starting the engine") -> None:
        self._console = console
        self._wanted = wanted
        self._accepted = self._accepted_before = totals.accepted
        self._requests = totals.completions
        self._tokens = 0
        self._rejected = Counter(totals.rejected)
        self._started = self._last_line = time.monotonic()
        self._starting = starting
        self._handler = _ConsoleHandler(console)
        self._status = console.status(starting)
        self._live = Live(
            get_renderable=self._render,
            console=console,
            refresh_per_second=REFRESHES_A_SECOND,
            transient=True,
        )

    def __enter__(self) -> Self:
        ENGINE_LOG.addHandler(self._handler)
        ENGINE_LOG.setLevel(logging.INFO)
        ENGINE_LOG.propagate = False
        return self

    def __exit__(self, *_: object) -> None:
        self._status.stop()
        self._live.stop()
        ENGINE_LOG.removeHandler(self._handler)
        ENGINE_LOG.propagate = True

    def starting(self) -> None:
        """Show that the engine starts."""
        if self._console.is_terminal:
            self._status.start()
        else:
            self._console.print(self._starting)

    def started(self) -> None:
        """Start the live table and the clock."""
        self._status.stop()
        self._started = self._last_line = time.monotonic()
        if self._console.is_terminal:
            self._live.start()

    def received(self, completions: Sequence[Completion]) -> None:
        """Count completions and their tokens."""
        self._requests += len(completions)
        self._tokens += sum(completion.completion_tokens for completion in completions)
        self._maybe_line()

    def decided(self, jobs: Sequence[DecidedJob]) -> None:
        """Count accepted tasks, and rejected ones by rule."""
        for job in jobs:
            for candidate in job.candidates:
                if candidate.verdict.keep:
                    self._accepted += 1
                else:
                    self._rejected[candidate.verdict.rule] += 1
        self._maybe_line()

    def scoring(self, tasks: int) -> None:
        """Show that tasks are being scored; without a terminal only if it takes long."""
        if self._console.is_terminal:
            self._live.stop()
            self._status.update(f"scoring {tasks} tasks")
            self._status.start()
        elif tasks >= MANY_TO_SCORE:
            self._console.print(f"scoring {tasks} tasks")

    def _maybe_line(self) -> None:
        now = time.monotonic()
        if not self._console.is_terminal and now - self._last_line >= LINE_EVERY_SECONDS:
            self._last_line = now
            self._console.print(self._line())

    def _line(self) -> str:
        reasons = ", ".join(f"{count} {rule}" for rule, count in self._rejected.most_common(4))
        return (
            f"accepted {self._accepted}/{self._wanted}  requests {self._requests}  "
            f"{self._tokens_per_second():.0f} tokens/s  left {self._time_left()}  rejected: {reasons or 'none'}"
        )

    def _tokens_per_second(self) -> float:
        return self._tokens / max(time.monotonic() - self._started, 1e-9)

    def _time_left(self) -> str:
        done = self._accepted - self._accepted_before
        if done <= 0:
            return "unknown"
        seconds = (self._wanted - self._accepted) * (time.monotonic() - self._started) / done
        return format_seconds(max(0.0, seconds))

    def _render(self) -> RenderableType:
        numbers = Table.grid(padding=(0, 2))
        numbers.add_row(
            Text(f"accepted {self._accepted}/{self._wanted}", style="bold"),
            ProgressBar(total=self._wanted, completed=min(self._accepted, self._wanted), width=30),
            f"requests {self._requests}",
            f"{self._tokens_per_second():.0f} tokens/s",
            f"left {self._time_left()}",
        )
        reasons = Table.grid(padding=(0, 2))
        for rule, count in self._rejected.most_common(8):
            reasons.add_row(Text(f"{count:>6}", style="dim"), Text(rule, style="dim"))
        return Group(numbers, reasons)


class _ConsoleHandler(logging.Handler):
    """Prints log records to the console, prefixed with the program name."""

    def __init__(self, console: Console) -> None:
        super().__init__()
        self._console = console

    def emit(self, record: logging.LogRecord) -> None:
        self._console.print(f"selfinstruct: {record.getMessage()}")


def describe_session(accepted: int, meter: RunMetrics) -> str:
    """Return a summary of a session: accepted tasks, tokens, engine utilization, and time per part of the loop."""
    seconds = max(meter.elapsed, 1e-9)
    stages = meter.stages.values()
    prompt_tokens = sum(counts.prompt_tokens for counts in stages)
    cached = sum(counts.cached_tokens for counts in stages) / max(prompt_tokens, 1)
    parts = ", ".join(f"{part} {max(0.0, spent) / seconds:.0%}" for part, spent in meter.seconds.items())
    pace = f"{meter.completion_tokens} tokens generated, {meter.completion_tokens / seconds:.0f} tokens/s"
    prompts = f"{cached:.0%} of {prompt_tokens} prompt tokens from the prefix cache"
    lines = [
        f"{accepted} tasks in {format_seconds(seconds)}, {pace}",
        f"engine: {meter.idle_share:.0%} of its {meter.capacity} slots idle, {prompts}; time: {parts}",
    ]
    if len(meter.stages) > 1:
        each = (
            f"{stage} {counts.requests} requests and {counts.completion_tokens} tokens"
            for stage, counts in meter.stages.items()
        )
        lines.append(f"stages: {', '.join(each)}")
    return "\n".join(lines)
