"""What training and evaluation read: samples of every format, and what is dropped with its reason."""

import json
from pathlib import Path
from typing import Any

import pytest

from selfinstruct_local.errors import UsageError
from selfinstruct_local.evaluate.cases import NO_REFERENCE, read_held_out
from selfinstruct_local.io.reader import UnreadFieldWarning
from selfinstruct_local.models import ModelFolder
from selfinstruct_local.templates.turns import Turn
from selfinstruct_local.train import sources
from selfinstruct_local.train.audit import examine
from selfinstruct_local.train.data import build_examples
from selfinstruct_local.train.settings import TrainSettings
from selfinstruct_local.train.sources import DataSource, Dropped, TrainingSample, read_sources, samples_of_record
from selfinstruct_local.train.trainer import load_tokenizer
from tests.conftest import RunCli

ASKED, ANSWERED = {"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Hello"}
PART = {"type": "text", "text": "Hi"}
PICTURE = {"type": "image_url", "image_url": {"url": "a.png"}}


def talk(*turns: object, **more: object) -> dict[str, Any]:
    return {"conversations": list(turns), **more}


def said(role: object, content: object = "x", **more: object) -> dict[str, Any]:
    return {"role": role, "content": content, **more}


@pytest.mark.parametrize(
    ("record", "reason"),
    [
        (talk(ASKED), sources.NO_ANSWER),
        (talk(ASKED, ANSWERED, ASKED), sources.NO_ANSWER),
        (talk(), sources.NO_TURNS),
        ({"conversations": None}, sources.NO_TURNS),
        ({"messages": "Hi"}, sources.NO_TURNS),
        ({"messages": {"role": "user"}}, sources.NO_TURNS),
        (talk("Hi", "Hello"), sources.NO_TURN),
        (talk(ANSWERED, ANSWERED), sources.NO_USER),
        ({"messages": [said("system"), said("assistant")]}, sources.NO_USER),
        (talk(ASKED, {**ANSWERED, "from": "narrator"}), sources.UNKNOWN_ROLE),
        (talk(ASKED, {"value": "Hello"}), sources.UNKNOWN_ROLE),
        (talk({**ASKED, "from": ["human"]}, ANSWERED), sources.UNKNOWN_ROLE),
        (talk(ASKED, {**ANSWERED, "value": None}), sources.NO_TEXT),
        (talk({**ASKED, "value": []}, ANSWERED), sources.NO_TEXT),
        (talk({**ASKED, "value": 7}, ANSWERED), sources.NOT_TEXT),
        ({"messages": [said("user", [PART, PICTURE]), said("assistant")]}, sources.NOT_TEXT),
        ({"messages": [said("user", [{"type": "text", "text": None}]), said("assistant")]}, sources.NOT_TEXT),
        (talk(ASKED, {"from": "function_call", "value": "{}"}, {"from": "observation", "value": "1"}), sources.TOOLS),
        ({"messages": [said("user"), said("assistant", None, tool_calls=[{"id": "1"}])]}, sources.TOOLS),
        ({"messages": [said("user"), said("Tool"), said("assistant")]}, sources.TOOLS),
        ({"prompt": 3, "completion": "x"}, sources.NO_PAIR),
        ({"prompt": [said("user")], "completion": []}, sources.NO_ANSWER),
        ({"instruction": "Say.", "instances": []}, sources.NO_CASE),
    ],
)
def test_a_record_that_is_no_sample_is_dropped_with_its_reason(
    record: dict[str, Any], reason: str, embedded_model: ModelFolder, tmp_path: Path
) -> None:
    file = tmp_path / "dump.json"
    file.write_text(json.dumps([talk(ASKED, ANSWERED), record, talk(ASKED, ANSWERED)]), encoding="utf-8")
    samples = read_sources([DataSource(file)], 0)
    assert samples[0] == samples[2] == TrainingSample((Turn("user", "Hi"), Turn("assistant", "Hello")))
    assert samples[1] == Dropped(reason)
    data = build_examples(samples, load_tokenizer(embedded_model), TrainSettings())
    assert (len(data.examples), data.dropped) == (2, {reason: 1})


@pytest.mark.parametrize("name", ["gpt", "GPT-4", "chatgpt", "bing", " bard", "assistant", "model"])
def test_whoever_answers_is_the_assistant(name: str) -> None:
    (told,) = samples_of_record(talk({"from": "developer", "value": "Be kind."}, ASKED, {**ANSWERED, "from": name}))
    assert told == TrainingSample((Turn("system", "Be kind."), Turn("user", "Hi"), Turn("assistant", "Hello")))


def test_parts_that_are_all_text_are_one_text() -> None:
    parts = [{"type": "input_text", "text": "Name "}, "two ", {"text": "rivers."}]
    record = {"messages": [said("user", parts), said("assistant", [PART], function_call=None)], "instruction": None}
    assert list(samples_of_record(record)) == [
        TrainingSample((Turn("user", "Name two rivers."), Turn("assistant", "Hi")))
    ]


def test_a_null_column_of_a_table_of_several_formats_is_passed_over() -> None:
    (task,) = samples_of_record({"instruction": "Add.", "output": "3", "messages": None, "completion": None})
    assert task == TrainingSample((Turn("user", "Add."), Turn("assistant", "3")))
    (told,) = samples_of_record({"instruction": None, "messages": None, "conversations": [ASKED, ANSWERED]})
    assert told == TrainingSample((Turn("user", "Hi"), Turn("assistant", "Hello")))


def test_how_many_may_be_dropped_is_a_setting(tmp_path: Path, embedded_model: ModelFolder, cli: RunCli) -> None:
    file = tmp_path / "dump.jsonl"
    rows = [talk(ASKED, ANSWERED)] * 6 + [talk(ASKED)] * 4
    file.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    samples = read_sources([DataSource(file)], 0)
    _, audit = examine(samples, embedded_model, TrainSettings())
    with pytest.raises(UsageError, match=rf"40% of 10 samples were dropped \(4 {sources.NO_ANSWER}\)"):
        audit.check(TrainSettings())
    audit.check(TrainSettings(max_dropped=0.4))
    done = cli("train", "--template", "chat", "--data", file, "--dry-run")
    assert (done.returncode, f"dropped 4: {sources.NO_ANSWER}" in done.stderr) == (0, True)
    file.write_text(json.dumps(talk(ASKED)), encoding="utf-8")
    done = cli("train", "--template", "chat", "--data", file, "--dry-run")
    assert (done.returncode, "no example is left to train on" in done.stderr) == (2, True)


@pytest.mark.parametrize("record", [{"output": "x"}, {"instruction": "a", "output": 7}, ["a"]])
def test_a_bad_task_is_named_by_its_place(tmp_path: Path, record: object) -> None:
    file = tmp_path / "bad.jsonl"
    file.write_text(f'{{"instruction": "a", "output": "b"}}\n{json.dumps(record)}\n', encoding="utf-8")
    with pytest.raises(UsageError, match=rf"^{file}:2: "):
        read_sources([DataSource(file)], 0)


def test_an_evaluation_leaves_such_conversations_out_too(tmp_path: Path) -> None:
    file = tmp_path / "dump.jsonl"
    rows = [talk(ASKED, ANSWERED), talk(ASKED), talk(ASKED, {**ANSWERED, "value": " "}), {"conversations": None}]
    file.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    held_out = read_held_out([file], 10, 0)
    assert [case.reference for case in held_out.cases] == ["Hello"]
    assert held_out.dropped == {sources.NO_ANSWER: 1, NO_REFERENCE: 1, sources.NO_TURNS: 1}
    completions = [{"instruction": "Say.", "raw_instances": text} for text in ("Output: a", "Nothing of use.")]
    file.write_text("\n".join(map(json.dumps, completions)), encoding="utf-8")
    held_out = read_held_out([file], 10, 0)
    assert ([case.reference for case in held_out.cases], held_out.dropped) == (["a"], {sources.NO_CASE: 1})


def test_a_field_that_may_be_the_output_is_told_of_once_a_file(tmp_path: Path) -> None:
    file = tmp_path / "tasks.jsonl"
    rows = [{"instruction": "Add.", "answer": "3"}, {"instruction": "Sort.", "answer": "a"}, talk(ASKED, ANSWERED)]
    file.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    with pytest.warns(UnreadFieldWarning) as told:
        read_sources([DataSource(file)], 0)
    assert [str(each.message).startswith(f"{file}: the field 'answer' of 2 record") for each in told] == [True]
    rows = [{"instruction": "Add.", "context": "1, 2", "response": "3"}, {"prompt": "Once", "completion": " upon"}]
    file.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    dolly, text = read_sources([DataSource(file)], 0)
    assert dolly == TrainingSample((Turn("user", "Add."), Turn("assistant", "3")), "1, 2")
    assert isinstance(text, TrainingSample)
    assert text.verbatim
