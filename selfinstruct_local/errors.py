"""The errors for the user: one line that names what is wrong, where, and the fix.

    UserFacingError
    ├── UsageError          exit code 2
    ├── RunError            exit code 1
    │   ├── EngineDeadError
    │   └── OutOfMemoryError
    └── PartlyDoneError     exit code 3

A message can quote data and file names; as a string it is one line without control characters.

All code below the command line raises these errors; only `cli/__init__.py` turns them into a message and an exit code.
Any other exception is a bug of this program and keeps its traceback.
"""

import re

# Control characters except line feed and tab, bidirectional controls, and surrogates, which cannot be encoded.
_OBEYED = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
#: End of the message of a run that was interrupted.
COMMITTED_STANDS = "committed work is kept, re-run the same command to resume"


class UserFacingError(Exception):
    """An error whose message is written for the user."""

    exit_code = 1

    def __str__(self) -> str:
        """Return the message on one line, with control characters escaped."""
        return one_line(super().__str__())


class UsageError(UserFacingError):
    """Invalid input, rejected before any work: a file, a flag, a model folder."""

    exit_code = 2


class RunError(UserFacingError):
    """The work was started and could not be finished; committed work is kept."""

    exit_code = 1


class EngineDeadError(RunError):
    """The engine died or stopped responding."""


class OutOfMemoryError(RunError):
    """The model or a step needs more memory than there is; a retry would fail too."""


class PartlyDoneError(UserFacingError):
    """The work ended early and is partly done; re-running the same command resumes it."""

    exit_code = 3


def shown(text: str) -> str:
    """Return the text with control characters escaped, except line feeds and tabs."""
    return _OBEYED.sub(lambda found: _escape(found[0]), text)


def one_line(text: str) -> str:
    """Return the text with control characters escaped, line feeds and tabs included."""
    return shown(text).replace("\n", "\\n").replace("\t", "\\t")


def _escape(character: str) -> str:
    return character.encode("unicode_escape").decode()
