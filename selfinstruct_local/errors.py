"""The errors meant for the person at the terminal: one line that names the thing and the mend.

Everything below the command line raises these; `cli.py` alone turns them into a message and an exit
code. Anything else that escapes is a defect of this program and keeps its traceback.
"""


class UserFacingError(Exception):
    """An error whose text is written for the user."""

    exit_code = 1


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
