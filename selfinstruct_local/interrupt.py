"""SIGINT and SIGTERM: the first asks the loop to end after the commit in hand, the second ends at once."""

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

SIGNAL_EXIT = 128


class Interrupt:
    """Which signal asked for an end, if any.

    Attributes:
        signum: its number; None while the run may go on.
    """

    def __init__(self) -> None:
        self.signum: int | None = None

    def handle(self, signum: int, _frame: FrameType | None) -> None:
        """Notes the first signal; exits on the second, with nothing left to lose but what is in flight."""
        if self.signum is not None:
            os._exit(SIGNAL_EXIT + signum)
        self.signum = signum


@contextmanager
def interruptible() -> Iterator[Interrupt]:
    """Handles the two signals inside the block and puts the old handlers back after it."""
    interrupt = Interrupt()
    old = {signum: signal.signal(signum, interrupt.handle) for signum in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield interrupt
    finally:
        for signum, handler in old.items():
            signal.signal(signum, handler)
