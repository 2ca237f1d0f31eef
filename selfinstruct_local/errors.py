"""The errors meant for the person at the terminal: one line that names the thing and the mend.

A text may quote data and names of files; as a string it is one line that a terminal shows and does not obey.

Everything below the command line raises these; `cli.py` alone turns them into a message and an exit
code. Anything else that escapes is a defect of this program and keeps its traceback.
"""

import re

# Control characters but line feed and tab, what turns the direction of writing, and what cannot be encoded.
_OBEYED = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
#: What is true of a run whose work was broken off.
COMMITTED_STANDS = "what was committed stands, and the same command goes on from there"


class UserFacingError(Exception):
    """An error whose text is written for the user."""

    exit_code = 1

    def __str__(self) -> str:
        """The text on one line, with escapes for control characters."""
        return one_line(super().__str__())


class UsageError(UserFacingError):
    """Bad input, refused before any work: a file, a flag, a model folder."""

    exit_code = 2


class RunError(UserFacingError):
    """The work was begun and could not be finished; what was committed stands."""

    exit_code = 1


class EngineDeadError(RunError):
    """The engine stopped answering."""


class OutOfMemoryError(RunError):
    """The model or its work does not fit the memory; trying again would end the same way."""


class PartlyDoneError(UserFacingError):
    """The work ended early with some of it done, and the same command goes on from there."""

    exit_code = 3


def shown(text: str) -> str:
    """The text, whose lines stay, with escapes for what a terminal would obey."""
    return _OBEYED.sub(lambda found: _escape(found[0]), text)


def one_line(text: str) -> str:
    """The same with escapes for line feeds and tabs too."""
    return shown(text).replace("\n", "\\n").replace("\t", "\\t")


def _escape(character: str) -> str:
    return character.encode("unicode_escape").decode()
