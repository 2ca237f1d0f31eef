"""Training samples from weighted sources: files in all common formats and run folders.

The fields of a record determine its format: `messages` or `conversations` mark a conversation, `prompt` and
`completion` a text and its continuation; everything else is a task. A conversation that cannot be used is dropped with
a reason, since every dump of conversations has some. A task that cannot be read is an error.
"""

import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any, TypeVar

from selfinstruct_local.errors import UsageError
from selfinstruct_local.io.reader import (
    BadRecordError,
    place,
    read_values,
    task_from_record,
    unread_output,
    warn_of_unread,
)
from selfinstruct_local.runs.store import DATABASE, RunStore
from selfinstruct_local.task import Task
from selfinstruct_local.templates.turns import Turn

ReadT = TypeVar("ReadT")
# Role names in the common formats. The first ones are those of LLaMA-Factory (data/README.md), Axolotl and TRL; the
# others come from dumps of ShareGPT, OpenAssistant and other chats. OpenAI's "developer" replaces its "system".
_ROLES = {
    **dict.fromkeys(("system", "developer"), "system"),
    **dict.fromkeys(("user", "human", "prompter"), "user"),
    **dict.fromkeys(("assistant", "gpt", "gpt4", "gpt_4", "chatgpt", "bing", "bard", "claude", "gemini"), "assistant"),
    **dict.fromkeys(("model", "bot", "ai", "chatbot"), "assistant"),
    **dict.fromkeys(("tool", "tools", "tool_call", "tool_calls", "tool_response", "tool_result"), "tool"),
    **dict.fromkeys(("function", "function_call", "function_response", "observation", "ipython"), "tool"),
}
_CALLS = ("tool_calls", "function_call")
# Types of content parts that are text, in OpenAI's APIs.
_TEXT_PARTS = frozenset({"text", "input_text", "output_text"})

NO_CASE = "a task without instances"
NO_TURNS = "a conversation without turns"
NO_TURN = "a conversation with a turn that is not an object"
UNKNOWN_ROLE = "a conversation with a role other than system, user and assistant"
TOOLS = "a conversation with tool calls"
NO_TEXT = "a conversation with a turn without text"
NOT_TEXT = "a conversation with content other than text"
NO_USER = "a conversation without a user turn"
NO_ANSWER = "a conversation that does not end with an assistant turn"
NO_PAIR = "a prompt and completion that are neither two texts nor two lists of messages"


@dataclass(frozen=True, slots=True)
class TrainingSample:
    """A conversation that ends with an assistant turn; all assistant turns are trained.

    Attributes:
        turns: at least a user turn and an assistant turn.
        input: input of a task; its instruction is the user turn.
        verbatim: whether the user turn is the prompt text itself, without a template.
    """

    turns: tuple[Turn, ...]
    input: str = ""
    verbatim: bool = False


@dataclass(frozen=True, slots=True)
class Dropped:
    """A record that cannot be used, with the reason."""

    reason: str


@dataclass(frozen=True, slots=True)
class DataSource:
    """A file or run folder and its weight: 0.5 takes half of its samples, 2 takes each twice."""

    path: Path
    weight: float = 1.0

    @classmethod
    def parse(cls, text: str) -> "DataSource":
        """Return the source for `PATH` or `PATH:WEIGHT`.

        Raises:
            UsageError: the weight is not a positive number.
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
            raise UsageError(message)
        return cls(Path(path), value)


def read_sources(sources: Sequence[DataSource], seed: int) -> list[TrainingSample | Dropped]:
    """Return the samples and dropped records of all sources in order, each as often as its source's weight says.

    Args:
        sources: sources to read.
        seed: random seed of the draw for fractional weights.

    Raises:
        UsageError: a source is missing or empty.
        BadRecordError: a task cannot be read; the message names file and line.
    """
    samples = []
    for number, source in enumerate(sources):
        found = list(read_samples(source.path))
        if not found:
            message = f"--data {source.path}: has no tasks"
            raise UsageError(message)
        samples += _weigh(found, source.weight, Random(f"{seed} {number}"))  # noqa: S311 - not for cryptography
    return samples


def read_samples(path: Path) -> Iterator[TrainingSample | Dropped]:
    """Yield the samples and dropped records of a file or a run folder; raises as `read_sources` does."""
    return read_each(path, samples_of_task, samples_of_record)


def read_each(
    path: Path, of_task: Callable[[Task], Iterable[ReadT]], of_record: Callable[[Any], Iterable[ReadT]]
) -> Iterator[ReadT]:
    """Yield the converted accepted tasks of a run folder, or the converted records of a file.

    Warns at the end of a file about fields that may be outputs and are not read.

    Args:
        path: a run folder or a file.
        of_task: converts an accepted task.
        of_record: converts a parsed JSON value; raises ValueError if it cannot be read.

    Raises:
        UsageError: the file is missing.
        BadRecordError: a record cannot be read; the message names file and line.
    """
    if path.is_dir() and (path / DATABASE).exists():
        with RunStore(path, read_only=True) as store:
            for task in store.accepted():
                yield from of_task(task)
        return
    unread = Counter[str]()
    for number, record in read_values(path):
        try:
            yield from of_record(record)
        except ValueError as error:
            message = f"{place(path, number)}: {error}"
            raise BadRecordError(message) from error
        if _conversation_field(record) is None and (name := unread_output(record)):
            unread[name] += 1
    warn_of_unread(path, unread)


def samples_of_task(task: Task) -> Iterator[TrainingSample]:
    """Yield one sample per instance."""
    for each in task.instances:
        yield TrainingSample((Turn("user", task.instruction), Turn("assistant", each.output)), each.input)


def samples_of_record(record: Any) -> Iterator[TrainingSample | Dropped]:
    """Yield the samples of a parsed JSON value, or the reason why it is dropped.

    Raises:
        ValueError: a field of a task is missing or has the wrong type; the message names it.
    """
    field = _conversation_field(record)
    if field is None:
        task = task_from_record(record)
        yield from samples_of_task(task) if task.instances else [Dropped(NO_CASE)]
        return
    try:
        yield _CONVERSATIONS[field](record)
    except _UnfitError as error:
        yield Dropped(str(error))


class _UnfitError(Exception):
    """Raised for a conversation that cannot be used; the message is the reason."""


def _conversation_field(record: Any) -> str | None:
    """Return the field that marks a record as a conversation, or None; a null counts if there is no instruction."""
    if not isinstance(record, dict):
        return None
    is_task = record.get("instruction") is not None
    named = [name for name in _CONVERSATIONS if name in record]
    if is_task and record.get("prompt") is None:
        named = [name for name in named if name != "completion"]
    return next((name for name in named if record[name] is not None), None if is_task or not named else named[0])


def _messages(record: dict[str, Any]) -> TrainingSample:
    return _conversation(record, record["messages"])


def _conversations(record: dict[str, Any]) -> TrainingSample:
    return _conversation(record, record["conversations"])


def _conversation(record: dict[str, Any], told: Any) -> TrainingSample:
    turns = _turns(told)
    system = record.get("system")
    if isinstance(system, str) and system and turns[0].role != "system":
        turns = (Turn("system", system), *turns)
    return TrainingSample(turns)


def _prompt_completion(record: dict[str, Any]) -> TrainingSample:
    prompt, completion = record.get("prompt"), record["completion"]
    if isinstance(prompt, list) and isinstance(completion, list):
        return TrainingSample(_turns([*prompt, *completion]))
    if not (isinstance(prompt, str) and isinstance(completion, str)):
        raise _UnfitError(NO_PAIR)
    return TrainingSample((Turn("user", prompt), Turn("assistant", completion)), verbatim=True)


_CONVERSATIONS: dict[str, Callable[[dict[str, Any]], TrainingSample]] = {
    "messages": _messages,
    "conversations": _conversations,
    "completion": _prompt_completion,
}


def _turns(told: Any) -> tuple[Turn, ...]:
    """Return the turns of a list of objects with `role` and `content`, or ShareGPT's `from` and `value`.

    Raises:
        _UnfitError: the conversation cannot be used; the message is the reason.
    """
    if not isinstance(told, list) or not told:
        raise _UnfitError(NO_TURNS)
    turns = tuple(map(_turn, told))
    if not any(turn.role == "user" for turn in turns):
        raise _UnfitError(NO_USER)
    if turns[-1].role != "assistant":
        raise _UnfitError(NO_ANSWER)
    return turns


def _turn(told: Any) -> Turn:
    if not isinstance(told, dict):
        raise _UnfitError(NO_TURN)
    name, content = (
        told.get(ours) if told.get(ours) is not None else told.get(theirs)
        for ours, theirs in (("role", "from"), ("content", "value"))
    )
    role = _ROLES.get(name.strip().lower().replace("-", "_")) if isinstance(name, str) else None
    if role == "tool" or any(told.get(call) for call in _CALLS):
        raise _UnfitError(TOOLS)
    if role is None:
        raise _UnfitError(UNKNOWN_ROLE)
    return Turn(role, _text(content))


def _text(content: Any) -> str:
    """Return a turn's text; a list of text parts is joined."""
    if isinstance(content, str):
        return content
    if not content:
        raise _UnfitError(NO_TEXT)
    parts = [_part(each) for each in content] if isinstance(content, list) else [None]
    if None in parts:
        raise _UnfitError(NOT_TEXT)
    return "".join(filter(None, parts))


def _part(part: Any) -> str | None:
    """Return the text of a content part, or None if it is not text."""
    if isinstance(part, dict):
        part = part.get("text") if part.get("type", "text") in _TEXT_PARTS else None
    return part if isinstance(part, str) else None


def _weigh(samples: list[ReadT], weight: float, stream: Random) -> list[ReadT]:
    whole = int(weight)
    part = round((weight - whole) * len(samples))
    # In file order, so that the training data does not depend on the order of the draw.
    drawn = sorted(stream.sample(range(len(samples)), part))
    return samples * whole + [samples[index] for index in drawn]
