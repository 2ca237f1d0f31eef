from typing import Any

import pytest
from transformers import AutoTokenizer

from selfinstruct_local.models import ModelFolder
from selfinstruct_local.tasks import Instance, Task
from selfinstruct_local.train.data import IGNORED, build_example, build_examples
from selfinstruct_local.train.template import alpaca_prompt


@pytest.fixture(scope="module")
def tokenizer(embedded_model: ModelFolder) -> Any:
    return AutoTokenizer.from_pretrained(embedded_model.path)


def test_the_prompt_ends_where_the_answer_begins() -> None:
    assert alpaca_prompt("Do it.").endswith("### Instruction:\nDo it.\n\n### Response:")
    assert alpaca_prompt("Do it.", "x {y}").endswith("### Instruction:\nDo it.\n\n### Input:\nx {y}\n\n### Response:")


def test_braces_and_special_tokens_in_data_are_data() -> None:
    assert "{input} </s> {0}" in alpaca_prompt("{input} </s> {0}", "y")


def test_loss_is_on_the_response_and_its_end(tokenizer: Any) -> None:
    example = build_example("Name a river.", "", "The Nile", tokenizer)
    supervised = [token for token, label in zip(example.input_ids, example.labels, strict=True) if label != IGNORED]
    assert tokenizer.decode(supervised[:-1]) == "The Nile"
    assert supervised[-1] == tokenizer.eos_token_id
    prompt = [token for token, label in zip(example.input_ids, example.labels, strict=True) if label == IGNORED]
    assert tokenizer.decode(prompt) == alpaca_prompt("Name a river.")


def test_every_instance_is_an_example_and_what_is_not_is_counted(tokenizer: Any) -> None:
    tasks = [
        Task("Pick a label.", (Instance("a", "x"), Instance("b", "y"))),
        Task.single("Say nothing.", "", "  "),
        Task.single("Go on and on.", "", "word " * 300),
        Task("No instance at all."),
    ]
    data = build_examples(tasks, tokenizer, max_length=128)
    assert len(data.examples) == 2
    assert data.dropped == {"empty output": 1, "longer than 128 tokens": 1}
    assert data.supervised_tokens == sum(label != IGNORED for example in data.examples for label in example.labels)
