"""The Alpaca prompt, byte for byte as its published train.py has it.

It is a wire format: models tuned with it must be asked with it, and the many that were tuned elsewhere use the
same bytes. Source: tatsu-lab/stanford_alpaca, train.py, PROMPT_DICT.
"""

from typing import Literal

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
