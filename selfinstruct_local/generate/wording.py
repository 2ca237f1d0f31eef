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

    def heading(self, number: int) -> str:
        """The line that begins a numbered task."""
        return f"### {self.task} {number}"

    def mark(self, name: str) -> str:
        """A name with its colon, as it stands at the beginning of a line."""
        return f"{name}{self.colon.strip()}"

    def field(self, name: str, value: str) -> str:
        """A line of a name and its value; an empty value is said to be none."""
        return f"{name}{self.colon}{value or self.none}"


WORDINGS: dict[Language, Wording] = {
    "en": Wording(
        "Task", "Instruction", "Input", "Output", "Label", "none", "Is it classification?", "Yes", "No", ": ", ""
    ),
    "zh": Wording("任务", "指令", "输入", "输出", "标签", "无", "是分类任务吗？", "是", "否", "：", "_zh"),  # noqa: RUF001
}

COLON = "[:\N{FULLWIDTH COLON}]"


def any_of(*names: str) -> str:
    """A regular expression that matches one of the fields in any language, as "input" and "output" name them."""
    words = {getattr(wording, name) for wording in WORDINGS.values() for name in names}
    return "|".join(sorted(map(re.escape, words)))
