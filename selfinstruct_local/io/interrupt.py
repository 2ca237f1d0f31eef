"""SIGINT and SIGTERM: the first asks the loop to end after the commit in hand, the second ends at once."""

import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

SIGNAL_EXIT = 128


class Interrupt:
    """Which signal asked for an end, if any.

    Attributes:
        signum: its number; None while the run may go on.
    """

    def __init__(self, echo_seconds: float = 0.0) -> None:
        """Takes how long after the first signal the same one is taken for its echo."""
        self.signum: int | None = None
        self._echo_seconds = echo_seconds
        self._came = 0.0

    def note(self, signum: int) -> None:
        """Takes a signal for the first that came, be it to another process that works on the same."""
        self._came = time.monotonic()
        self.signum = signum

    def handle(self, signum: int, _frame: FrameType | None) -> None:
        """Notes the first signal; exits on the second, with nothing left to lose but what is in flight."""
        if self.signum is None:
            self.note(signum)
        elif signum != self.signum or time.monotonic() - self._came >= self._echo_seconds:
            os._exit(SIGNAL_EXIT + signum)


@contextmanager
def interruptible(echo_seconds: float = 0.0) -> Iterator[Interrupt]:
    """Handles the two signals inside the block and puts the old handlers back after it.

    Args:
        echo_seconds: how long after the first signal the same one is no second one. A process that a launcher started
            gets one from the system, which signals the whole group, and the same from its launcher.
    """
    interrupt = Interrupt(echo_seconds)
    old = {signum: signal.signal(signum, interrupt.handle) for signum in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield interrupt
    finally:
        for signum, handler in old.items():
            signal.signal(signum, handler)
