"""Prompts for one task, in training and in inference: the Alpaca prompt, or a user turn for the chat template.

The Alpaca prompt is byte for byte that of the published train.py. Do not change it: models tuned with it need the same
prompt for inference, including the many models that were tuned elsewhere. Source: tatsu-lab/stanford_alpaca, train.py,
PROMPT_DICT.
"""

from typing import Literal

from selfinstruct_local.task import as_question
from selfinstruct_local.templates.turns import Turn

TemplateName = Literal["alpaca", "chat"]

_WITH_INPUT = (
    "Below is an instruction that describes a task, paired with an input that provides further context. "
    "Write a response that appropriately completes the request.\n\n"
    "### Instruction:\n{instruction}\n\n### Input:\n{input}\n\n### Response:"
)
_WITHOUT_INPUT = (
    "Below is an instruction that describes a task. "
    "Write a response that appropriately completes the request.\n\n"
    "### Instruction:\n{instruction}\n\n### Response:"
)


def alpaca_prompt(instruction: str, task_input: str = "") -> str:
    """Return the Alpaca prompt of one task; it ends with `### Response:`, without a line break."""
    # The templates have no braces except for the two fields, and format() does not interpret braces in the data.
    template = _WITH_INPUT if task_input else _WITHOUT_INPUT
    return template.format(instruction=instruction, input=task_input)


def user_turn(instruction: str, task_input: str = "") -> Turn:
    """Return the user turn that asks for one task in a conversation."""
    return Turn("user", as_question(instruction, task_input))


def ask(template: TemplateName, instruction: str, task_input: str = "") -> tuple[str, tuple[Turn, ...]]:
    """Return (prompt, turns) of a request for the response to one task."""
    if template == "alpaca":
        return alpaca_prompt(instruction, task_input), ()
    return "", (user_turn(instruction, task_input),)
