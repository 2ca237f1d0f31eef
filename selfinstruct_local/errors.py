"""The errors meant for the person at the terminal: one line that names the thing and the mend.

A text may quote data and names of files; as a string it is one line that a terminal shows and does not obey.

Everything below the command line raises these; `cli.py` alone turns them into a message and an exit
code. Anything else that escapes is a defect of this program and keeps its traceback.
"""

from selfinstruct_local.terminal import one_line

#: What is true of a run whose work was broken off.
COMMITTED_STANDS = "what was committed stands, and the same command goes on from there"


class UserFacingError(Exception):
    """An error whose text is written for the user."""

    exit_code = 1

    def __str__(self) -> str:
        """The text on one line, with escapes for control characters."""
        return one_line(super().__str__())


class WrongUseError(UserFacingError):
    """Bad input, refused before any work: a file, a flag, a model folder."""

    exit_code = 2


class JobFailedError(UserFacingError):
    """The work was begun and could not be finished; what was committed stands."""

    exit_code = 1


class EngineDeadError(JobFailedError):
    """The engine stopped answering."""


class OutOfMemoryError(JobFailedError):
    """The model or its work does not fit the memory; trying again would end the same way."""


class PartlyDoneError(UserFacingError):
    """The work ended early with some of it done, and the same command goes on from there."""

    exit_code = 3
