"""Turns tasks into training examples, and counts what does not become one.

An example is the Alpaca prompt with the response behind it, tokenised as one text, as published; the labels of
the prompt are -100 so that the loss is on the response alone, and the end-of-sequence token is always there
and always a label. Nothing is truncated: a cut example teaches the model never to stop.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from selfinstruct_local.tasks import Task
from selfinstruct_local.train.template import alpaca_prompt

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

IGNORED = -100  # the label that PyTorch's cross entropy leaves out


@dataclass(frozen=True, slots=True)
class Example:
    """Token ids and labels of one case, of the same length."""

    input_ids: list[int]
    labels: list[int]


@dataclass(slots=True)
class TrainingData:
    """The examples, and how many cases did not become one and why.

    Attributes:
        examples: in the order of the tasks.
        dropped: count by reason.
    """

    examples: list[Example] = field(default_factory=list)
    dropped: dict[str, int] = field(default_factory=dict)

    @property
    def supervised_tokens(self) -> int:
        """Tokens that carry loss, over all examples."""
        return sum(label != IGNORED for example in self.examples for label in example.labels)

    def drop(self, reason: str) -> None:
        """Counts a case that does not become an example."""
        self.dropped[reason] = self.dropped.get(reason, 0) + 1


def build_examples(tasks: Iterable[Task], tokenizer: "PreTrainedTokenizerBase", max_length: int) -> TrainingData:
    """Builds one example for each instance of each task.

    Args:
        tasks: what to learn.
        tokenizer: of the base model; must have an end-of-sequence token.
        max_length: the most tokens an example may have; longer ones are dropped.
    """
    data = TrainingData()
    for task in tasks:
        for instance in task.instances:
            if not instance.output.strip():
                data.drop("empty output")
                continue
            example = build_example(task.instruction, instance.input, instance.output, tokenizer)
            if len(example.input_ids) > max_length:
                data.drop(f"longer than {max_length} tokens")
            else:
                data.examples.append(example)
    return data


def build_example(instruction: str, task_input: str, output: str, tokenizer: "PreTrainedTokenizerBase") -> Example:
    """The example of one case: `prompt + output + EOS`, with the prompt's labels ignored."""
    prompt = alpaca_prompt(instruction, task_input)
    prompt_length = len(tokenizer(prompt)["input_ids"])
    input_ids = list(tokenizer(prompt + output)["input_ids"])
    # Some tokenizers add the end token by themselves; it must stand there exactly once.
    if input_ids[-1] != tokenizer.eos_token_id:
        input_ids.append(tokenizer.eos_token_id)
    labels = [IGNORED] * prompt_length + input_ids[prompt_length:]
    return Example(input_ids, labels)
