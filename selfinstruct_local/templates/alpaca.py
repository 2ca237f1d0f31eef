"""How one thing is asked, in training and ever after: by the Alpaca prompt, or as the user's turn of a conversation.

The prompt is byte for byte that of the published train.py. It is a wire format: models tuned with it must be asked
with it, and the many that were tuned elsewhere use the same bytes. Source: tatsu-lab/stanford_alpaca, train.py,
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
    """The prompt of one case; it ends with `### Response:` and no line break, where the answer begins."""
    # The templates hold no brace but the two fields, and format puts data in without reading it.
    template = _WITH_INPUT if task_input else _WITHOUT_INPUT
    return template.format(instruction=instruction, input=task_input)


def user_turn(instruction: str, task_input: str = "") -> Turn:
    """What a user says who asks it in a conversation."""
    return Turn("user", as_question(instruction, task_input))


def ask(template: TemplateName, instruction: str, task_input: str = "") -> tuple[str, tuple[Turn, ...]]:
    """Prompt and turns of a request for the answer."""
    if template == "alpaca":
        return alpaca_prompt(instruction, task_input), ()
    return "", (user_turn(instruction, task_input),)
