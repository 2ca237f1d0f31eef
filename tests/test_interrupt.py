"""What the first signal does, and what the next."""

import os
import signal

import pytest

from selfinstruct_local.io.interrupt import Interrupt, interruptible


@pytest.fixture
def exits(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The exit codes with which the process would have ended."""
    codes: list[int] = []
    monkeypatch.setattr(os, "_exit", codes.append)
    return codes


def test_the_second_signal_ends_at_once(exits: list[int]) -> None:
    interrupt = Interrupt()
    interrupt.handle(signal.SIGTERM, None)
    assert (interrupt.signum, exits) == (signal.SIGTERM, [])
    interrupt.handle(signal.SIGTERM, None)
    assert exits == [143]


def test_an_echo_is_no_second_signal(exits: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    """A supervisor signals the launcher and what it started, and the launcher passes its own on."""
    clock = 100.0
    monkeypatch.setattr("selfinstruct_local.io.interrupt.time.monotonic", lambda: clock)
    interrupt = Interrupt(echo_seconds=5)
    interrupt.handle(signal.SIGTERM, None)
    clock = 104.0
    interrupt.handle(signal.SIGTERM, None)
    assert exits == []
    interrupt.handle(signal.SIGINT, None)
    assert exits == [130], "another signal is from another hand"
    clock = 106.0
    interrupt.handle(signal.SIGTERM, None)
    assert exits == [130, 143]


def test_what_another_process_was_sent_counts_as_the_first(exits: list[int]) -> None:
    interrupt = Interrupt(echo_seconds=60)
    interrupt.note(signal.SIGTERM)
    interrupt.handle(signal.SIGTERM, None)
    assert (interrupt.signum, exits) == (signal.SIGTERM, [])


def test_the_old_handlers_come_back() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with interruptible() as interrupt:
        os.kill(os.getpid(), signal.SIGTERM)
        assert interrupt.signum == signal.SIGTERM
    assert signal.getsignal(signal.SIGTERM) is before
