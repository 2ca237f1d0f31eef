"""Words around the data in prompts, per language, which the parsers look for in completions."""

import re
from typing import NamedTuple

from selfinstruct_local.languages.base import Language


class Wording(NamedTuple):
    """The prompt words of one language.

    Attributes:
        task: word for a task in headings.
        instruction: name of the instruction field.
        input: name of the input field.
        output: name of the output field.
        none: value of an empty input.
        colon: separator between a name and its value, with its space.
        suffix: suffix of the names of this language's prompt templates.
        about: text before the topic of the requested tasks.
        labels_wanted: request for classification tasks.
        labels_unwanted: request for other tasks.
        inputs_wanted: request for tasks with an input.
        inputs_unwanted: request for tasks without an input.
        other_subject: description of a task on a new subject.
        same_subject: description of a task in the field of the earlier ones.
        field_of: text before words of the field of the requested tasks.
        choose: text before the labels to choose from.
        comma: separator of labels.
    """

    task: str
    instruction: str
    input: str
    output: str
    none: str
    colon: str
    suffix: str
    about: str
    labels_wanted: str
    labels_unwanted: str
    inputs_wanted: str
    inputs_unwanted: str
    other_subject: str
    same_subject: str
    field_of: str
    choose: str
    comma: str

    def heading(self, number: int) -> str:
        """Return the heading line of a numbered task."""
        return f"### {self.task} {number}"

    def mark(self, name: str) -> str:
        """Return a field name with its colon, as at the beginning of a line."""
        return f"{name}{self.colon.strip()}"

    def field(self, name: str, value: str) -> str:
        """Return a line of a field name and its value, or `none` for an empty value."""
        return f"{name}{self.colon}{value or self.none}"


WORDINGS: dict[Language, Wording] = {
    "en": Wording(
        task="Task",
        instruction="Instruction",
        input="Input",
        output="Output",
        none="none",
        colon=": ",
        suffix="",
        about="From here on, every task is about this topic: ",
        labels_wanted="From here on, every task asks which of a few answers fits: its instruction names these answers, "
        "and its input is what one of them fits.",
        labels_unwanted="From here on, no task asks to choose among a few answers.",
        inputs_wanted="From here on, every task has an input: a text, a list, data or code to work on, written out in "
        "full.",
        inputs_unwanted="From here on, no task has an input: its instruction says all there is to know.",
        other_subject="about another subject and of another kind than all before",
        same_subject="in the same field as all before, but of another kind",
        field_of="From here on, every task is from the field of these words: ",
        choose="Answer with one of: ",
        comma=", ",
    ),
    "zh": Wording(
        task="任务",
        instruction="指令",
        input="输入",
        output="输出",
        none="无",
        colon="：",  # noqa: RUF001
        suffix="_zh",
        about="从这里起，每个任务都围绕这个主题：",  # noqa: RUF001
        labels_wanted="从这里起，每个任务都要从几个答案里选一个：指令写明有哪些答案，输入是要判断的内容。",  # noqa: RUF001
        labels_unwanted="从这里起，没有任务要从几个给定的答案里选择。",  # noqa: RUF001
        inputs_wanted="从这里起，每个任务都有输入：要处理的文字、列表、数据或代码，完整写出。",  # noqa: RUF001
        inputs_unwanted="从这里起，每个任务都没有输入：指令里已经说明了全部内容。",  # noqa: RUF001
        other_subject="话题和种类都与前面的不同",
        same_subject="与前面的属于同一领域，但种类不同",  # noqa: RUF001
        field_of="",
        choose="只回答其中之一：",  # noqa: RUF001
        comma="、",
    ),
}

COLON = "[:\N{FULLWIDTH COLON}]"


def any_of(*names: str) -> str:
    """Return a regular expression for the words of the given attributes of `Wording`, in all languages."""
    words = {getattr(wording, name) for wording in WORDINGS.values() for name in names}
    return "|".join(sorted(map(re.escape, words)))
