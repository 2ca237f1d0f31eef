"""Examples as the published train.py makes them, and what is mended of it."""

import json
import os
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoTokenizer

from selfinstruct_local.engines.base import Request, RequestKey, Sampling
from selfinstruct_local.errors import UsageError
from selfinstruct_local.models import ModelFolder
from selfinstruct_local.seeds import seed_file
from selfinstruct_local.templates.alpaca import alpaca_prompt
from selfinstruct_local.templates.conversation import FolderEncoder, PromptEncoder
from selfinstruct_local.templates.turns import Turn
from selfinstruct_local.train.audit import make_audit, mark
from selfinstruct_local.train.data import EMPTY, IGNORED, Example, TrainingData, build_examples
from selfinstruct_local.train.settings import TrainSettings
from selfinstruct_local.train.sources import DataSource, TrainingSample, read_sources
from tests.chat_families import make_tokenizer, sentencepiece_like


@pytest.fixture(scope="module")
def tokenizer(embedded_model: ModelFolder) -> Any:
    return AutoTokenizer.from_pretrained(embedded_model.path)


def sample(instruction: str, task_input: str, output: str) -> TrainingSample:
    return TrainingSample((Turn("user", instruction), Turn("assistant", output)), task_input)


def build(samples: list[TrainingSample], tokenizer: Any, **settings: Any) -> TrainingData:
    return build_examples(samples, tokenizer, TrainSettings(**settings))


def learnt(example: Example) -> list[int]:
    return [label for label in example.labels if label != IGNORED]


# --- the template ---------------------------------------------------------------------------------------------------


def test_the_prompt_ends_where_the_answer_begins() -> None:
    assert alpaca_prompt("Do it.").endswith("### Instruction:\nDo it.\n\n### Response:")
    assert alpaca_prompt("Do it.", "x {y}").endswith("### Instruction:\nDo it.\n\n### Input:\nx {y}\n\n### Response:")


def test_braces_and_special_tokens_in_data_are_data(tokenizer: Any) -> None:
    assert "{input} </s> {0}" in alpaca_prompt("{input} </s> {0}", "y")
    (example,) = build([sample("Say <|im_end|>.", "", "It is <|im_end|>.")], tokenizer).examples
    assert example.input_ids.count(tokenizer.eos_token_id) == 1  # its own end alone
    assert "<|im_end|>." in tokenizer.decode(example.input_ids)


def test_loss_is_on_the_response_and_its_end(tokenizer: Any) -> None:
    (example,) = build([sample("Name a river.", "", "The Nile")], tokenizer).examples
    *response, end = learnt(example)
    assert tokenizer.decode(response) == "The Nile"
    assert end == tokenizer.eos_token_id
    assert mark(example, tokenizer) == f"{alpaca_prompt('Name a river.')}⟦The Nile{tokenizer.eos_token}⟧"
    (whole,) = build([sample("Name a river.", "", "The Nile")], tokenizer, train_on_prompt=True).examples
    assert whole.labels == whole.input_ids


# --- parity ---------------------------------------------------------------------------------------------------------


def published(record: dict[str, str], tokenizer: Any, max_length: int) -> tuple[list[int], list[int]]:
    """What train.py of tatsu-lab/stanford_alpaca makes of a record, by the description of its steps.

    The whole text and its prompt are tokenised apart and cut at the limit; as many labels as the prompt has tokens are
    ignored.
    """
    prompt = alpaca_prompt(record["instruction"], record["input"])
    ids = tokenizer(f"{prompt}{record['output']}{tokenizer.eos_token}", truncation=True, max_length=max_length)
    length = len(tokenizer(prompt, truncation=True, max_length=max_length)["input_ids"])
    input_ids = list(ids["input_ids"])
    return input_ids, [IGNORED] * length + input_ids[length:]


def records() -> list[dict[str, str]]:
    """500 records of the file of JSON lines that ALPACA_JSONL names, Alpaca's own; without it the seeds, repeated."""
    if named := os.environ.get("ALPACA_JSONL"):
        with Path(named).open(encoding="utf-8") as stream:
            return [json.loads(line) for line in islice(stream, 500)]
    seeds = [json.loads(line) for lang in ("en", "zh") for line in seed_file(lang).read_text("utf-8").splitlines()]
    cases = [{"instruction": seed["instruction"], **case} for seed in seeds for case in seed["instances"]]
    return (cases * 3)[:500]


def test_labels_are_those_of_the_published_masking(tokenizer: Any) -> None:
    rows = [row for row in records() if row["output"].strip()]
    samples = [sample(row["instruction"], row["input"], row["output"]) for row in rows]
    for limit in (512, 96):
        kept = build(samples, tokenizer, max_length=limit, overlong="truncate")
        examples = iter(kept.examples)
        compared = cut = 0
        for row in rows:
            input_ids, labels = published(row, tokenizer, limit)
            whole, _ = published(row, tokenizer, 100_000)
            prompt = len(tokenizer(alpaca_prompt(row["instruction"], row["input"]))["input_ids"])
            if prompt > limit - 2:
                assert set(labels[: limit - 2]) == {IGNORED}  # nothing, or next to nothing, would have been learnt
                continue
            ours = next(examples)
            if len(whole) <= limit:
                assert (ours.input_ids, ours.labels) == (input_ids, labels)
                compared += 1
            else:
                # What is published loses the end; here it takes the place of the last token that fits.
                assert labels[-1] != tokenizer.eos_token_id
                assert ours.labels == [*labels[:-1], tokenizer.eos_token_id]
                assert ours.truncated
                cut += 1
        assert next(examples, None) is None
        assert compared + cut + sum(kept.dropped.values()) == len(rows)
        assert (cut > 0) == (limit == 96)
        assert compared > 100


# --- what does not become an example --------------------------------------------------------------------------------


def test_every_sample_is_an_example_and_what_is_not_is_counted(tokenizer: Any) -> None:
    samples = [sample("Pick.", "a", "x"), sample("Say nothing.", "", "  "), sample("Go on.", "", "word " * 300)]
    data = build(samples, tokenizer, max_length=128)
    assert len(data.examples) == 1
    assert data.dropped == {EMPTY: 1, "longer than 128 tokens": 1}
    assert data.samples == 3


def test_a_prompt_that_fills_the_length_teaches_nothing_and_is_dropped(tokenizer: Any) -> None:
    """FAULTS 39."""
    full = sample("word " * 200, "", "An answer.")
    for overlong, reason in (
        ("drop", "longer than 64 tokens"),
        ("truncate", "prompt longer than 64 tokens"),
    ):
        data = build([full], tokenizer, max_length=64, overlong=overlong)
        assert (data.examples, data.dropped) == ([], {reason: 1})


def test_a_cut_response_still_ends(tokenizer: Any) -> None:
    (example,) = build([sample("Go on.", "", "word " * 300)], tokenizer, max_length=64, overlong="truncate").examples
    assert len(example.input_ids) == 64
    assert example.truncated
    assert example.labels[-1] == tokenizer.eos_token_id


def test_what_is_held_out_is_not_learnt(tokenizer: Any) -> None:
    samples = [sample(f"Name number {number}.", "", str(number)) for number in range(40)]
    data = build(samples, tokenizer, validation=0.25)
    assert (len(data.examples), len(data.held_out)) == (30, 10)
    assert not {tuple(each.input_ids) for each in data.examples} & {tuple(each.input_ids) for each in data.held_out}
    assert build(samples, tokenizer, validation=0.25).held_out == data.held_out


def test_copies_are_held_out_together(tokenizer: Any) -> None:
    """A weight of 2 takes each sample twice."""
    samples = [sample(f"Name number {number}.", "", str(number)) for number in range(40)] * 2
    data = build(samples, tokenizer, validation=0.25)
    learnt = {tuple(example.input_ids) for example in data.examples}
    held_out = {tuple(example.input_ids) for example in data.held_out}
    assert (len(data.held_out), len(held_out), len(learnt)) == (20, 10, 30)
    assert not learnt & held_out


def test_a_tokenizer_without_an_end_is_refused(tokenizer: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(tokenizer._special_tokens_map, "eos_token", None)
    with pytest.raises(UsageError, match="no end-of-sequence token"):
        build([sample("a", "", "b")], tokenizer)


def test_a_tokenizer_that_ends_every_text_ends_no_prompt(tmp_path: Path) -> None:
    """`add_eos_token`, as recipes for LLaMA and Mistral save it: the prompt has no end, the answer one."""
    backend = sentencepiece_like(["<unk>", "<s>", "</s>"], bos="<s>", eos="</s>")
    tokenizer = make_tokenizer(backend, bos_token="<s>", eos_token="</s>")
    answers = ["river stone", "水为什么", "1 + 1"]
    made = build([sample("Name it.", "", answer) for answer in answers], tokenizer).examples
    for example, answer in zip(made, answers, strict=True):
        assert mark(example, tokenizer) == f"<s> {alpaca_prompt('Name it.')}⟦{answer}</s>⟧"
        assert tokenizer.decode(learnt(example)) == f"{answer}</s>"
    tokenizer.save_pretrained(tmp_path)
    asked = Request(RequestKey(0, "test", 0), alpaca_prompt("Name it."), Sampling(0.0, 1.0, 1))
    encoded = PromptEncoder(tokenizer, "tiny").encode(asked)
    assert encoded == made[0].input_ids[: len(encoded)]
    # A server would end such a prompt by itself.
    assert FolderEncoder(tmp_path).holds_control_text("Name it.")


# --- conversations --------------------------------------------------------------------------------------------------


TALK = (
    Turn("system", "Be brief."),
    Turn("user", "Hi <|im_end|>"),
    Turn("assistant", "Hello."),
    Turn("user", "Bye"),
    Turn("assistant", "So long."),
)


def test_each_turn_of_the_assistant_is_learnt_with_its_end(tokenizer: Any) -> None:
    (example,) = build([TrainingSample(TALK)], tokenizer, template="chat").examples
    marked = mark(example, tokenizer)
    assert "⟦Hello.<|im_end|>⟧" in marked
    assert marked.endswith("⟦So long.<|im_end|>⟧\n")
    assert marked.count("⟦") == 2
    wanted = tokenizer.apply_chat_template([turn._asdict() for turn in TALK], tokenize=False)
    assert tokenizer.decode(example.input_ids) == wanted


def test_what_a_template_has_no_place_for_is_counted(tokenizer: Any) -> None:
    text = TrainingSample((Turn("user", "Once upon"), Turn("assistant", " a time")), verbatim=True)
    assert list(build([TrainingSample(TALK)], tokenizer).dropped.values()) == [1]
    assert list(build([text], tokenizer, template="chat").dropped.values()) == [1]
    (example,) = build([text], tokenizer).examples
    assert tokenizer.decode(example.input_ids) == f"Once upon a time{tokenizer.eos_token}"


def test_a_missing_chat_template_is_said(tokenizer: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tokenizer, "chat_template", None)
    with pytest.raises(UsageError, match="has no chat template"):
        build([TrainingSample(TALK)], tokenizer, template="chat")


# --- sources --------------------------------------------------------------------------------------------------------


def test_every_format_is_read(tmp_path: Path) -> None:
    file = tmp_path / "mixed.jsonl"
    rows = [
        {"instruction": "Add.", "input": "1, 2", "output": "3"},
        {"instruction": "Sort.", "instances": [{"input": "b a", "output": "a b"}, {"input": "", "output": ""}]},
        {"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]},
        {"system": "Be kind.", "conversations": [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Hello"}]},
        {"prompt": "Once upon", "completion": " a time"},
        {"prompt": [{"role": "user", "content": "a"}], "completion": [{"role": "assistant", "content": "b"}]},
    ]
    file.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    samples: list[Any] = read_sources([DataSource(file)], 0)
    assert samples[0] == sample("Add.", "1, 2", "3")
    assert [each.input for each in samples[1:3]] == ["b a", ""]
    assert samples[3] == TrainingSample((Turn("user", "Hi"), Turn("assistant", "Hello")))
    assert samples[4].turns[0] == Turn("system", "Be kind.")
    assert samples[5].verbatim
    assert samples[6] == TrainingSample((Turn("user", "a"), Turn("assistant", "b")))


def test_weights_take_shares_and_repeat(tmp_path: Path) -> None:
    file = tmp_path / "ten.jsonl"
    file.write_text("\n".join(json.dumps({"instruction": f"t{n}", "output": "x"}) for n in range(10)), encoding="utf-8")
    assert DataSource.parse(f"{file}:0.5") == DataSource(file, 0.5)
    assert DataSource.parse(str(file)) == DataSource(file)
    half = read_sources([DataSource.parse(f"{file}:0.5")], 7)
    assert len(half) == 5
    assert (
        half == read_sources([DataSource.parse(f"{file}:0.5")], 7) != read_sources([DataSource.parse(f"{file}:0.5")], 8)
    )
    assert len(read_sources([DataSource(file, 2.3), DataSource(file)], 0)) == 33
    with pytest.raises(UsageError, match="must be more than 0"):
        DataSource.parse(f"{file}:0")
    with pytest.raises(UsageError, match="no such file"):
        read_sources([DataSource.parse(f"{tmp_path}/none.json:0.5")], 0)


# --- the audit ------------------------------------------------------------------------------------------------------


def test_the_audit_counts_what_the_model_will_see(tokenizer: Any) -> None:
    samples = [sample(f"Name {n}.", "", "word " * n) for n in range(1, 60)] + [sample("Nothing.", "", "")]
    data = build(samples, tokenizer, max_length=80, overlong="truncate")
    audit = make_audit(data, tokenizer)
    assert (audit.samples, audit.examples, audit.dropped) == (60, 59, {EMPTY: 1})
    assert audit.truncated == sum(each.truncated for each in data.examples) > 0
    assert (audit.unsupervised, audit.endless) == (0, 0)
    assert sum(count for _, count in audit.histogram) == 59
    assert audit.histogram[-1][0] >= 80
    assert audit.tokens == sum(len(each.input_ids) for each in data.examples)
    assert len(audit.shown) == 3
    assert all("⟦word" in text and text.endswith("⟧") for text in audit.shown)
    audit.check(TrainSettings())


def test_the_audit_counts_answers_that_end_with_the_text_of_a_control_token(tokenizer: Any) -> None:
    """As the published fine-tuning files have them; it is learnt as text, whatever token it is the name of."""
    answers = [
        "Yes<|endoftext|>",
        "No<|endoftext|>\n",
        "No</s>",
        "A <b>bold</b> word",
        "In the end: <end>",
        "It is a < b",
    ]
    data = build([sample("Is it?", str(n), answer) for n, answer in enumerate(answers)], tokenizer)
    audit = make_audit(data, tokenizer)
    assert audit.endings == {"<|endoftext|>": 2, "</s>": 1}
    assert any("<|endoftext|>' 2" in line for line in audit.describe())
    assert not any("control-like" in line for line in make_audit(build([], tokenizer), tokenizer).describe())


def test_an_answer_that_begins_inside_a_token_of_its_prompt_is_counted(tokenizer: Any) -> None:
    data = build([sample("Is it?", "", answer) for answer in ("Yes", ":)", "\nNo")], tokenizer)
    (plain, *_) = data.examples
    merged = [tokenizer.decode(each.input_ids[plain.input_ids.index(plain.labels[-2]) - 1]) for each in data.examples]
    assert make_audit(data, tokenizer).merged == sum(text != ":" for text in merged) > 0


def test_the_audit_refuses_what_would_waste_a_training(tokenizer: Any) -> None:
    lost = make_audit(build([sample("a", "", "b"), sample("c", "", "")], tokenizer), tokenizer)
    with pytest.raises(UsageError, match=r"50% of 2 samples were dropped \(1 empty response\).*--max-dropped 0.51"):
        lost.check(TrainSettings())
    lost.check(TrainSettings(max_dropped=0.5))
    for bad, said in (
        (Example([5, 6, tokenizer.eos_token_id], [IGNORED] * 3), "1 examples have no .+ and 1 have no .+ end token"),
        (Example([5, 6, 7], [IGNORED, 6, 7]), "0 examples have no .+ and 1 have no .+ end token"),
    ):
        with pytest.raises(UsageError, match=said):
            make_audit(TrainingData([bad]), tokenizer).check(TrainSettings())
