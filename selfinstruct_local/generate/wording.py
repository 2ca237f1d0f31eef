"""The words that stand around the data in prompts, by language, and that the parser finds again in completions."""

import re
from typing import NamedTuple

from selfinstruct_local.language import Language


class Wording(NamedTuple):
    """The words of one language.

    Attributes:
        task: what a task is called, in headings and before an instruction.
        instruction: name of the field.
        input: name of the field.
        output: name of the field.
        label: name of the output of a classification task.
        none: what stands for an empty input.
        kind_question: asks whether a task is classification.
        yes: the answer that says so.
        no: the other answer.
        colon: between a name and its value, with its space.
        suffix: of the names of this language's prompt templates.
        example: what a worked case is called where several are numbered.
        about: comes before the topic of the tasks that are asked for.
        labels_wanted: asks for classification tasks.
        labels_unwanted: asks for other tasks.
    """

    task: str
    instruction: str
    input: str
    output: str
    label: str
    none: str
    kind_question: str
    yes: str
    no: str
    colon: str
    suffix: str
    example: str
    about: str
    labels_wanted: str
    labels_unwanted: str

    def heading(self, number: int) -> str:
        """The line that begins a numbered task."""
        return f"### {self.task} {number}"

    def mark(self, name: str) -> str:
        """A name with its colon, as it stands at the beginning of a line."""
        return f"{name}{self.colon.strip()}"

    def numbered_example(self, number: int) -> str:
        """The line that begins a numbered worked case."""
        return f"{self.example} {number}"

    def field(self, name: str, value: str) -> str:
        """A line of a name and its value; an empty value is said to be none."""
        return f"{name}{self.colon}{value or self.none}"


WORDINGS: dict[Language, Wording] = {
    "en": Wording(
        task="Task",
        instruction="Instruction",
        input="Input",
        output="Output",
        label="Label",
        none="none",
        kind_question="Is it classification?",
        yes="Yes",
        no="No",
        colon=": ",
        suffix="",
        example="Example",
        about="From here on, every task is about this topic: ",
        labels_wanted="From here on, every task is a classification task: its output is one of a few labels, and its "
        "instruction names them.",
        labels_unwanted="From here on, no task is a classification task: no output is chosen among a few labels.",
    ),
    "zh": Wording(
        task="任务",
        instruction="指令",
        input="输入",
        output="输出",
        label="标签",
        none="无",
        kind_question="是分类任务吗？",  # noqa: RUF001
        yes="是",
        no="否",
        colon="：",  # noqa: RUF001
        suffix="_zh",
        example="例子",
        about="从这里起，每个任务都围绕这个主题：",  # noqa: RUF001
        labels_wanted="从这里起，每个任务都是分类任务：输出是几个标签之一，指令里写明有哪些标签。",  # noqa: RUF001
        labels_unwanted="从这里起，每个任务都不是分类任务：输出不是从几个标签里选出来的。",  # noqa: RUF001
    ),
}

COLON = "[:\N{FULLWIDTH COLON}]"


def any_of(*names: str) -> str:
    """A regular expression that matches one of the fields in any language, as "input" and "output" name them."""
    words = {getattr(wording, name) for wording in WORDINGS.values() for name in names}
    return "|".join(sorted(map(re.escape, words)))
