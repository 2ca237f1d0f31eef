"""The review scores of a run, in a file next to its database: readers' answers about a sample of its accepted tasks."""

from pathlib import Path
from typing import Any, NamedTuple

import orjson

from selfinstruct_local.errors import UsageError
from selfinstruct_local.io.files import replace_atomically
from selfinstruct_local.io.reader import reading

REVIEW = "review.json"
_FORMAT = {"format": "selfinstruct-review", "version": 1}


class ReviewShare(NamedTuple):
    """The number of tasks with a yes, the number of tasks, and the 95 % interval of the share, in [0, 1]."""

    yes: int
    tasks: int
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.yes} of {self.tasks} ({self.yes / self.tasks:.0%}; {self.low:.0%} to {self.high:.0%})"


class RunReview(NamedTuple):
    """The review scores of a sample of a run's accepted tasks.

    Attributes:
        sample: checksum of the sample.
        readers: number of readers; a task counts as yes if all of them say yes.
        tasks: number of tasks of this run that all readers have finished.
        of: number of accepted tasks of the run when the sample was drawn.
        instruction: is the instruction a valid task?
        input: is the input appropriate? None if only bare instructions were read.
        output: is the output a correct and acceptable response? None as for `input`.
        all: yes to all questions.
        kappa: Cohen's kappa of two readers on yes to all questions; None if it is undefined.
    """

    sample: str
    readers: int
    tasks: int
    of: int
    instruction: ReviewShare
    input: ReviewShare | None
    output: ReviewShare | None
    all: ReviewShare
    kappa: float | None

    def record(self) -> dict[str, Any]:
        """Return the scores as JSON values."""
        return {
            name: each._asdict() if isinstance(each, ReviewShare) else each for name, each in self._asdict().items()
        }

    def rows(self) -> list[tuple[str, str]]:
        """Return the scores as names and values for a table."""
        asked = [
            ("valid instruction", self.instruction),
            ("appropriate input", self.input),
            ("correct output", self.output),
            ("all of them", self.all),
        ]
        rows = [("tasks read", f"{self.tasks:,} of {self.of:,}"), ("readers", str(self.readers))]
        rows += [(name, str(share)) for name, share in asked if share]
        return [*rows, *([("Cohen's kappa on all of them", f"{self.kappa:.2f}")] if self.kappa is not None else [])]


def write_review(folder: Path, review: RunReview) -> None:
    """Write the review of the run in `folder`, replacing an earlier one."""
    with replace_atomically(folder / REVIEW) as stream:
        record = {**_FORMAT, **review.record()}
        stream.write(orjson.dumps(record, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE))


def read_review(folder: Path) -> RunReview | None:
    """Return the review of the run in `folder`, or None if there is none.

    Raises:
        UsageError: the file cannot be read or is invalid.
    """
    path = folder / REVIEW
    if not path.exists():
        return None
    with reading(path):
        data = path.read_bytes()
    try:
        return _parse(orjson.loads(data))
    except (LookupError, TypeError, ValueError) as error:
        message = f"{path}: not a file of review scores; rewrite it with 'selfinstruct review score', or delete it"
        raise UsageError(message) from error


def _parse(value: Any) -> RunReview:
    """Return the review in a JSON value; raise LookupError, TypeError or ValueError if it is invalid."""
    if {name: value[name] for name in _FORMAT} != _FORMAT or not isinstance(value["sample"], str):
        raise ValueError(_FORMAT["format"])
    kappa = value["kappa"]
    return RunReview(
        sample=value["sample"],
        readers=_whole(value["readers"]),
        tasks=_whole(value["tasks"]),
        of=_whole(value["of"]),
        instruction=_share(value["instruction"]),
        input=None if value["input"] is None else _share(value["input"]),
        output=None if value["output"] is None else _share(value["output"]),
        all=_share(value["all"]),
        kappa=None if kappa is None else float(kappa),
    )


def _share(value: Any) -> ReviewShare:
    tasks = _whole(value["tasks"])
    return ReviewShare(_whole(value["yes"], least=0, most=tasks), tasks, float(value["low"]), float(value["high"]))


def _whole(value: Any, least: int = 1, most: int | None = None) -> int:
    if type(value) is not int or value < least or (most is not None and value > most):
        raise ValueError(value)
    return value
