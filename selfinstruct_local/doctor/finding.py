"""What one check found. Leans on nothing."""

from dataclasses import dataclass
from typing import Literal

Status = Literal["ok", "warn", "fail"]


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the examination.

    Attributes:
        check: what was looked at, a word or two.
        status: ok; warn, where some of the work will not go or not go well; fail, where it would be begun in vain.
        detail: what was seen.
        mend: what to do about it; empty where there is nothing to do.
    """

    check: str
    status: Status
    detail: str
    mend: str = ""

    @classmethod
    def of_error(cls, check: str, error: Exception, status: Status = "fail") -> "Finding":
        """The finding that an error for the user makes: its mend stands behind the last semicolon."""
        detail, found, mend = str(error).rpartition("; ")
        return cls(check, status, detail, mend) if found else cls(check, status, mend)
