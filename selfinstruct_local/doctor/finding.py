"""The result of one check."""

from dataclasses import dataclass
from typing import Literal

Status = Literal["ok", "warn", "fail"]


@dataclass(frozen=True, slots=True)
class Finding:
    """The result of one check.

    Attributes:
        check: name of the check, one or two words.
        status: ok; warn if part of the work will fail or be slow; fail if the work cannot succeed.
        detail: what was found.
        mend: the fix; empty if there is nothing to fix.
    """

    check: str
    status: Status
    detail: str
    mend: str = ""

    @classmethod
    def of_error(cls, check: str, error: Exception, status: Status = "fail") -> "Finding":
        """Return a finding from a user-facing error, whose message has the fix after its last semicolon."""
        detail, found, mend = str(error).rpartition("; ")
        return cls(check, status, detail, mend) if found else cls(check, status, mend)
