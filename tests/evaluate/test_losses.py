"""The held-out loss is that of a plain padded forward pass, case by case, also under an adapter."""

from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer

from selfinstruct_local.evaluate.cases import Case
from selfinstruct_local.evaluate.evaluated_models import EvaluatedModel, find_evaluated_models
from selfinstruct_local.evaluate.losses import Surprise, build_references, measure_losses, prompt_length
from selfinstruct_local.models import ModelFolder
from selfinstruct_local.templates.alpaca import alpaca_prompt
from selfinstruct_local.templates.turns import Turn
from selfinstruct_local.train.data import EMPTY, IGNORED, Example
from selfinstruct_local.train.sources import TrainingSample

TEXTS = [("Name a river.", "", "The Nile"), ("Add.", "2, 3", "5"), ("Count to ten.", "", " ".join("123456789"))] * 3
CASES = [
    Case(TrainingSample((Turn("user", question), Turn("assistant", answer)), given))
    for question, given, answer in TEXTS
]
VERBATIM = Case(TrainingSample((Turn("user", "Once upon"), Turn("assistant", " a time")), verbatim=True))


def padded(network: Any, examples: list[Example]) -> list[Surprise]:
    """The losses as transformers computes them, one padded batch for all."""
    longest = max(len(each.input_ids) for each in examples)
    fill = [longest - len(each.input_ids) for each in examples]
    ids = torch.tensor([each.input_ids + [0] * room for each, room in zip(examples, fill, strict=True)])
    mask = torch.tensor([[1] * (longest - room) + [0] * room for room in fill])
    labels = torch.tensor([each.labels + [IGNORED] * room for each, room in zip(examples, fill, strict=True)])
    with torch.no_grad():
        logits = network(input_ids=ids, attention_mask=mask).logits[:, :-1]
    nats = torch.nn.functional.cross_entropy(logits.transpose(1, 2), labels[:, 1:], reduction="none")
    counts = (labels[:, 1:] != IGNORED).sum(dim=1)
    return [Surprise(float(row.sum()), int(count)) for row, count in zip(nats, counts, strict=True)]


def measured(evaluated: EvaluatedModel, examples: list[Example]) -> list[Surprise]:
    return [each for batch in measure_losses(evaluated, examples, lambda: True) for each in batch]


def same(found: list[Surprise], expected: list[Surprise]) -> bool:
    assert [each.tokens for each in found] == [each.tokens for each in expected]
    return [each.nats for each in found] == pytest.approx([each.nats for each in expected], rel=1e-4)


@pytest.mark.parametrize("row_tokens", [1, 128, 100_000])
def test_it_is_that_of_a_padded_batch(
    tiny_model: ModelFolder, row_tokens: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("selfinstruct_local.evaluate.losses.ROW_TOKENS", row_tokens)
    (evaluated,) = find_evaluated_models([str(tiny_model.path)], template="alpaca")
    examples = [each for each in build_references(CASES, evaluated) if isinstance(each, Example)]
    assert len(examples) == len(CASES)
    network: Any = AutoModelForCausalLM.from_pretrained(tiny_model.path, dtype=torch.float32)
    assert same(measured(evaluated, examples), padded(network.eval(), examples))


def test_an_adapter_counts_and_is_asked_as_it_was_trained(tiny_model: ModelFolder, adapter: Path) -> None:
    base, tuned = find_evaluated_models([str(tiny_model.path), str(adapter)])
    assert (base.name, tuned.name) == (tiny_model.path.name, "adapter")
    assert (tuned.folder.path, tuned.adapter, tuned.template) == (tiny_model.path, adapter.resolve(), "chat")
    examples = [each for each in build_references(CASES, tuned) if isinstance(each, Example)]
    network = AutoModelForCausalLM.from_pretrained(tiny_model.path, dtype=torch.float32)
    bare = padded(network, examples)
    found = measured(tuned, examples)
    assert same(found, padded(PeftModel.from_pretrained(network, adapter).eval(), examples))
    assert not same(found, bare)


def test_a_text_prompt_is_asked_as_it_stands(tiny_model: ModelFolder) -> None:
    (evaluated,) = find_evaluated_models([str(tiny_model.path)])
    assert evaluated.template == "chat"
    chatted, plain, last = build_references([CASES[0], VERBATIM, CASES[1]], evaluated)
    assert isinstance(chatted, Example)
    assert isinstance(plain, Example)
    assert isinstance(last, Example)
    tokenizer: Any = AutoTokenizer.from_pretrained(tiny_model.path)
    assert tokenizer.decode(plain.input_ids) == f"Once upon a time{tokenizer.eos_token}"
    assert prompt_length(plain) == 2
    assert "Add.\n\n2, 3" in tokenizer.decode(last.input_ids)


def test_each_case_keeps_its_place_when_one_makes_no_example(tiny_model: ModelFolder) -> None:
    (evaluated,) = find_evaluated_models([str(tiny_model.path)], template="alpaca")
    empty = Case(TrainingSample((Turn("user", "Say nothing."), Turn("assistant", " "))))
    found = build_references([*CASES[:4], empty, *CASES[4:]], evaluated)
    assert found[4] == EMPTY
    assert [each for each in found if isinstance(each, Example)] == build_references(CASES, evaluated)


def test_a_signal_ends_it(tiny_model: ModelFolder) -> None:
    (evaluated,) = find_evaluated_models([str(tiny_model.path)], template="alpaca")
    examples = [each for each in build_references(CASES, evaluated) if isinstance(each, Example)]
    assert list(measure_losses(evaluated, examples, lambda: False)) == []


def test_the_prompt_is_that_of_the_engine(tiny_model: ModelFolder) -> None:
    (evaluated,) = find_evaluated_models([str(tiny_model.path)], template="alpaca")
    tokenizer: Any = AutoTokenizer.from_pretrained(tiny_model.path)
    (example,) = build_references([CASES[1]], evaluated)
    assert isinstance(example, Example)
    assert tokenizer.decode(example.input_ids[: prompt_length(example)]) == alpaca_prompt("Add.", "2, 3")
