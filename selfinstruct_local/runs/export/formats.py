"""The export formats: one function per format, from a task to its records; a bare task (no instances) gives none.

Field names are wire formats; each docstring names the source that documents them. The first line of a docstring
describes the format on the data set card.
"""

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from selfinstruct_local.io.reader import alpaca_records
from selfinstruct_local.task import Task, as_question
from selfinstruct_local.templates.alpaca import alpaca_prompt

if TYPE_CHECKING:
    from selfinstruct_local.runs.export.similarity import Neighborhood

Record = dict[str, Any]
Format = Callable[[Task], Iterator[Record]]


def alpaca(task: Task) -> Iterator[Record]:
    """One record per instance: `instruction`, `input`, `output`.

    Source: alpaca_data.json of tatsu-lab/stanford_alpaca; the `alpaca` formatting of LLaMA-Factory (data/README.md)
    and `type: alpaca` of Axolotl have the same columns.
    """
    return alpaca_records([task])


def regen(task: Task, neighborhood: "Neighborhood") -> Iterator[Record]:
    """Alpaca's record with `most_similar_instructions` and `avg_similarity_score`; the task joins the neighborhood.

    Source: regen.json of generate_instruction.py in tatsu-lab/stanford_alpaca, which puts the last of equal scores
    first; here the first of equal scores comes first, as everywhere in this program.
    """
    found = neighborhood.join(task.instruction)
    for record in alpaca(task):
        yield {**record, "most_similar_instructions": found.nearest, "avg_similarity_score": found.mean}


def self_instruct(task: Task) -> Iterator[Record]:
    """One record per task: `id`, `instruction`, `instances` of `input` and `output`, `is_classification` (may be null).

    Source: seed_tasks.jsonl of yizhongw/self-instruct, without its `name`. `io.reader.read_tasks` reads the file back.
    """
    if task.instances:
        yield {
            "id": task.id,
            "instruction": task.instruction,
            "instances": [each._asdict() for each in task.instances],
            "is_classification": task.is_classification,
        }


def sharegpt(task: Task) -> Iterator[Record]:
    """One record per instance: `conversations` of `from` (human, then gpt) and `value`.

    Source: LLaMA-Factory, data/README.md, `formatting: sharegpt`, whose default columns and tags these are. Axolotl
    (docs/dataset-formats/conversation.qmd) reads it with `type: chat_template`, `field_messages: conversations` and
    `message_property_mappings` of role to from, content to value.
    """
    for question, answer in _turns(task):
        yield {"conversations": [{"from": "human", "value": question}, {"from": "gpt", "value": answer}]}


def messages(task: Task) -> Iterator[Record]:
    """One record per instance: `messages` of `role` (user, then assistant) and `content`.

    Source: TRL, docs/source/dataset_formats.md, conversational language modeling; OpenAI's chat fine-tuning files;
    Axolotl's `type: chat_template`; LLaMA-Factory calls it the OpenAI format.
    """
    for question, answer in _turns(task):
        yield {"messages": [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]}


def prompt_completion(task: Task) -> Iterator[Record]:
    """One record per instance: `prompt`, the Alpaca prompt, and `completion`, which follows it without a space.

    Source: TRL, docs/source/dataset_formats.md, standard prompt-completion. Concatenated, the two are the training
    text of Alpaca's published train.py and of `selfinstruct train`, without the end token.
    """
    for each in task.instances:
        yield {"prompt": alpaca_prompt(task.instruction, each.input), "completion": each.output}


def _turns(task: Task) -> Iterator[tuple[str, str]]:
    """Yield the user turn and the assistant turn of each instance."""
    for each in task.instances:
        yield as_question(task.instruction, each.input), each.output


REGEN = "regen"
# All except `regen`, which also depends on other tasks.
PLAIN_FORMATS: dict[str, Format] = {
    "alpaca": alpaca,
    "self-instruct": self_instruct,
    "sharegpt": sharegpt,
    "messages": messages,
    "prompt-completion": prompt_completion,
}
FORMATS = ("alpaca", REGEN, "self-instruct", "sharegpt", "messages", "prompt-completion")
