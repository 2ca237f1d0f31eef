"""What to learn from: files of every common format and run folders, as samples, each source with a weight.

A record is told by its fields: `messages` or `conversations` make it a conversation, `prompt` and `completion` a text
that goes on, and all else is a task in Alpaca's format or the seeds'. Leans on the reader of `taskfiles.py`.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any, TypeVar

from selfinstruct_local.engine.base import Turn
from selfinstruct_local.errors import WrongUseError
from selfinstruct_local.store import DATABASE, RunStore
from selfinstruct_local.taskfiles import BadRecordError, place, read_values, task_from_record
from selfinstruct_local.tasks import Task

ReadT = TypeVar("ReadT")
# What the common formats call those who speak; ShareGPT's names are LLaMA-Factory's (data/README.md).
_ROLES = {"system": "system", "user": "user", "human": "user", "assistant": "assistant", "gpt": "assistant"}


@dataclass(frozen=True, slots=True)
class Sample:
    """A conversation that ends with the assistant, each of whose turns is to be learnt.

    Attributes:
        turns: at least a user's and an assistant's.
        input: of a task, apart from its instruction, which is the user's turn.
        verbatim: the user's turn is the very text that the response follows; no template goes around it.
    """

    turns: tuple[Turn, ...]
    input: str = ""
    verbatim: bool = False


@dataclass(frozen=True, slots=True)
class Source:
    """A file or run folder, and how often its samples are taken: 0.5 is half of them, 2 is each twice."""

    path: Path
    weight: float = 1.0

    @classmethod
    def parse(cls, text: str) -> "Source":
        """Reads `PATH` or `PATH:WEIGHT`.

        Raises:
            WrongUseError: the weight is no positive number.
        """
        path, colon, weight = text.rpartition(":")
        if not colon or Path(text).exists():
            return cls(Path(text))
        try:
            value = float(weight)
        except ValueError:
            return cls(Path(text))
        if not (math.isfinite(value) and value > 0):
            message = f"--data {text}: the weight must be more than 0"
            raise WrongUseError(message)
        return cls(Path(path), value)


def read_sources(sources: Sequence[Source], seed: int) -> list[Sample]:
    """The samples of all sources, one source after the other, each as often as its weight says.

    Args:
        sources: what to read.
        seed: of the draw where a weight is no whole number.

    Raises:
        WrongUseError: a source is missing or empty.
        BadRecordError: a record cannot be read; the text names the place.
    """
    samples = []
    for number, source in enumerate(sources):
        found = list(read_samples(source.path))
        if not found:
            message = f"--data {source.path}: holds no task"
            raise WrongUseError(message)
        samples += _weigh(found, source.weight, Random(f"{seed} {number}"))  # noqa: S311 - a draw of data
    return samples


def read_samples(path: Path) -> Iterator[Sample]:
    """The samples of a file, or the accepted tasks of a run folder. Raises as `read_sources` does."""
    return read_each(path, samples_of_task, samples_of_record)


def read_each(
    path: Path, of_task: Callable[[Task], Iterable[ReadT]], of_record: Callable[[Any], Iterable[ReadT]]
) -> Iterator[ReadT]:
    """What the accepted tasks of a run folder, or the records of a file, come to.

    Args:
        path: a run folder, or a file.
        of_task: what an accepted task comes to.
        of_record: what a parsed JSON value comes to; it raises ValueError for one that cannot be read.

    Raises:
        WrongUseError: the file is missing.
        BadRecordError: a record cannot be read; the text names the place.
    """
    if path.is_dir() and (path / DATABASE).exists():
        with RunStore(path, read_only=True) as store:
            for task in store.accepted():
                yield from of_task(task)
        return
    for number, record in read_values(path):
        try:
            yield from of_record(record)
        except ValueError as error:
            message = f"{place(path, number)}: {error}"
            raise BadRecordError(message) from error


def samples_of_task(task: Task) -> Iterator[Sample]:
    """One sample an instance."""
    for each in task.instances:
        yield Sample((Turn("user", task.instruction), Turn("assistant", each.output)), each.input)


def samples_of_record(record: Any) -> Iterator[Sample]:
    """The samples of a parsed JSON value.

    Raises:
        ValueError: a field is missing or has the wrong type; the text names it.
    """
    if isinstance(record, dict):
        for name, read in _CONVERSATIONS.items():
            if name in record:
                yield read(record)
                return
    yield from samples_of_task(task_from_record(record))


def _messages(record: dict[str, Any]) -> Sample:
    return Sample(_turns(record["messages"], "messages", "role", "content"))


def _conversations(record: dict[str, Any]) -> Sample:
    turns = _turns(record["conversations"], "conversations", "from", "value")
    system = record.get("system")
    if isinstance(system, str) and system and turns[0].role != "system":
        turns = (Turn("system", system), *turns)
    return Sample(turns)


def _prompt_completion(record: dict[str, Any]) -> Sample:
    prompt, completion = record.get("prompt"), record["completion"]
    if isinstance(prompt, list) and isinstance(completion, list):
        return Sample(_turns([*prompt, *completion], "prompt", "role", "content"))
    if not (isinstance(prompt, str) and isinstance(completion, str)):
        message = "'prompt' and 'completion' must be two texts or two lists of messages"
        raise ValueError(message)  # noqa: TRY004 - a fault of the data, as the others
    return Sample((Turn("user", prompt), Turn("assistant", completion)), verbatim=True)


_CONVERSATIONS: dict[str, Callable[[dict[str, Any]], Sample]] = {
    "messages": _messages,
    "conversations": _conversations,
    "completion": _prompt_completion,
}


def _turns(told: Any, field: str, role_field: str, content_field: str) -> tuple[Turn, ...]:
    turns = []
    for number, each in enumerate(told if isinstance(told, list) else [], start=1):
        role = _ROLES.get(str(each.get(role_field))) if isinstance(each, dict) else None
        content = each.get(content_field) if isinstance(each, dict) else None
        if role is None or not isinstance(content, str):
            known = ", ".join(_ROLES)
            message = f"field '{field}', turn {number}: needs a text in '{content_field}', a '{role_field}' of {known}"
            raise ValueError(message)
        turns.append(Turn(role, content))
    if len(turns) < 2 or turns[-1].role != "assistant":  # noqa: PLR2004 - a question and its answer
        message = f"field '{field}': must be a list of turns that ends with the assistant's"
        raise ValueError(message)
    return tuple(turns)


def _weigh(samples: list[Sample], weight: float, stream: Random) -> list[Sample]:
    whole = int(weight)
    part = round((weight - whole) * len(samples))
    # In the order of the file, so that what a run learns from does not hang on the draw's order.
    drawn = sorted(stream.sample(range(len(samples)), part))
    return samples * whole + [samples[index] for index in drawn]
