"""SIGINT and SIGTERM: the first ends the loop after the current commit, the second exits immediately."""

import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

SIGNAL_EXIT = 128


class Interrupt:
    """The first signal that was received, if any.

    Attributes:
        signum: number of the signal; None if there was none.
    """

    def __init__(self, echo_seconds: float = 0.0) -> None:
        """Create it with the time in seconds after the first signal in which the same signal is ignored as its echo."""
        self.signum: int | None = None
        self._echo_seconds = echo_seconds
        self._came = 0.0

    def note(self, signum: int) -> None:
        """Record a signal as the first one; it can also come from another process of the same training."""
        self._came = time.monotonic()
        self.signum = signum

    def handle(self, signum: int, _frame: FrameType | None) -> None:
        """Record the first signal; exit on the second, which loses only what is in flight."""
        if self.signum is None:
            self.note(signum)
        elif signum != self.signum or time.monotonic() - self._came >= self._echo_seconds:
            os._exit(SIGNAL_EXIT + signum)


@contextmanager
def interruptible(echo_seconds: float = 0.0) -> Iterator[Interrupt]:
    """Handle both signals inside the block, and restore the old handlers after it.

    Args:
        echo_seconds: time after the first signal in which the same signal is ignored. A process started by a launcher
            gets a signal twice: from the system, which signals the whole process group, and from its launcher.
    """
    interrupt = Interrupt(echo_seconds)
    old = {signum: signal.signal(signum, interrupt.handle) for signum in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield interrupt
    finally:
        for signum, handler in old.items():
            signal.signal(signum, handler)
