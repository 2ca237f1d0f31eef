"""The command as a process: bad use before any engine starts, a signal in the middle, and the real engine."""

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import orjson
import pytest

from selfinstruct_local.evaluate.chat import Chat
from selfinstruct_local.models import ModelFolder, find_model
from tests.conftest import RunCli
from tests.evaluate import scripted_eval
from tests.evaluate.conftest import make_adapter

GOOD = '{"instruction": "Name a river", "input": "", "output": "Nile"}\n'
BAD_USES = {
    # name of the fault: the command line, and what the one line of the answer must hold
    "no data": ("--model {model} --data {tmp}/none", "{tmp}/none: no such file"),
    "empty data": ("--model {model} --data {empty}", "--data {empty}: holds no task with a reference"),
    "no reference": ("--model {model} --data {bare}", "{bare}:2: has no reference"),
    "several turns alone": ("--model {model} --data {chats}", "a conversation of several turns"),
    "torn data": ("--model {model} --data {torn}", "{torn}:2: not JSON"),
    "no model": ("--model {tmp}/nowhere --data {good}", "--model {tmp}/nowhere: no such folder"),
    "no judge": ("--model {model} --model {adapter} --judge {tmp}/x --data {good}", "--judge {tmp}/x: no such folder"),
    "judge of one": ("--model {model} --judge {model} --data {good}", "--judge: compares"),
    "prompts of no judge": ("--model {model} --data {good} --prompts {mine}", "--prompts {mine}: only the judge's"),
    "named twice": ("--model {model} --model {model}/../bare-model --data {good}", "is named twice"),
    "half an adapter": ("--model {half} --data {good}", ": no adapter_model.safetensors"),
    "lost base": (
        "--model {lost} --data {good}",
        "(/gone/base) is not on this machine; name it with --b",
    ),
    "another base": ("--model {adapter} --base {other} --data {good}", "was trained on {model}, "),
    "enlarged": ("--model {enlarged} --data {good}", "'selfinstruct merge'"),
    "template": ("--model {model} --data {good} --template x", "alpaca or chat"),
    "no chat template": ("--model {model} --data {good} --template chat", "has no chat template"),
    "language": ("--model {model} --data {good} --lang fr", "--lang fr: "),
    "number": ("--model {model} --data {good} --num 0", "--num 0: "),
    "context": ("--model {model} --data {good} --max-model-len 4096", "has a context of 2048 tokens"),
    "out": ("--model {model} --data {good} --out {good}/o", "--out {good}/o: the folder cannot be written to"),
}


@pytest.fixture
def places(tmp_path: Path, bare_model: Path) -> dict[str, Path]:
    """Good and bad files by the names that `BAD_USES` has for them."""
    turns = '[{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}'
    texts = {
        "empty": "",
        "good": GOOD,
        "torn": GOOD + '{"instr',
        "bare": GOOD + '{"instruction": "Name a river"}',
        "chats": f'{{"messages": {turns}, {turns[1:]}]}}',
    }
    for name, text in texts.items():
        (tmp_path / name).write_text(text)
    other = tmp_path / "other-model"
    shutil.copytree(bare_model, other)
    (other / "model.safetensors").write_bytes(b"other weights")
    manifests = {
        "adapter": {"base_model": str(bare_model), "base_model_fingerprint": fingerprint(bare_model)},
        "half": {"base_model": str(bare_model)},
        "lost": {"base_model": "/gone/base"},
        "enlarged": {"base_model": str(bare_model), "settings": {"pad_vocab_to": 64}},
    }
    for name, manifest in manifests.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "adapter_config.json").write_text('{"r": 8}')
        (tmp_path / name / "training.json").write_bytes(orjson.dumps(manifest))
        if name != "half":
            (tmp_path / name / "adapter_model.safetensors").write_bytes(b"not really weights")
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "magpie_user.txt").write_text("You are a cook.")
    files = {name: tmp_path / name for name in (*texts, *manifests)}
    return {**files, "tmp": tmp_path, "model": bare_model, "other": other, "mine": mine}


def fingerprint(folder: Path) -> str:
    return find_model(str(folder)).fingerprint


@pytest.mark.parametrize("fault", BAD_USES)
def test_bad_use_is_one_line_and_exit_2(fault: str, places: dict[str, Path], cli: RunCli) -> None:
    command, wanted = (text.format(**places) for text in BAD_USES[fault])
    done = cli("eval", *command.split())
    assert done.returncode == 2, done.stderr
    assert wanted in done.stderr
    # One line and nothing before it: no engine started, no model was loaded (the bare one cannot be).
    assert done.stderr.startswith("selfinstruct: ")
    assert len(done.stderr.splitlines()) == 1
    assert done.stdout == ""


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_it_and_the_engine_with_it(
    signum: signal.Signals, tiny_model: ModelFolder, tmp_path: Path
) -> None:
    data = tmp_path / "held.jsonl"
    data.write_text("".join(GOOD.replace("river", f"river {number}") for number in range(60)))
    out = tmp_path / "out"
    command = ["eval", "--model", tiny_model.path, "--data", data, "--out", out, "--template", "alpaca"]
    with subprocess.Popen(
        [sys.executable, "-m", scripted_eval.__name__, *map(str, command)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stderr
        assert process.stdout
        for line in process.stderr:
            if started := re.match(r"engine (\d+) of", line):
                break
        else:
            pytest.fail("it ended before it started an engine")
        child = int(started[1])
        time.sleep(3 * scripted_eval.LATENCY)
        process.send_signal(signum)
        rest = process.stderr.read()
        assert process.stdout.read() == ""
        assert process.wait(30) == 128 + signum
    assert "signal; nothing was written" in rest
    assert "Traceback" not in rest
    with pytest.raises(ProcessLookupError):
        os.kill(child, 0)
    assert [path.name for path in out.iterdir()] == ["engine.log"]


@pytest.mark.engine
def test_the_real_engine_answers_as_transformers_do(embedded_model: ModelFolder, tmp_path: Path, cli: RunCli) -> None:
    data = tmp_path / "held.jsonl"
    data.write_text(GOOD + '{"instruction": "Say yes.", "output": "Yes"}\n')
    adapter = tmp_path / "adapter"
    make_adapter(embedded_model, adapter)
    out = tmp_path / "out"
    options = ["--max-tokens", 16, "--max-model-len", 256, "--memory-gb", 1, "--in-flight", 2, "--out", out]
    # One evaluated, since every further engine takes half a minute to start; the adapter goes the longer way.
    done = cli("eval", "--model", adapter, "--data", data, *options, "--json")
    assert done.returncode == 0, done.stderr
    (tuned,) = orjson.loads(done.stdout)["evaluated_models"]
    assert (tuned["engine"]["engine"], tuned["template"]) == ("vllm", "chat")
    rows = [orjson.loads(line) for line in (out / "answers.jsonl").read_bytes().splitlines()]
    chat = Chat(embedded_model, adapter)
    for row in rows:
        (answer,) = row["answers"]
        assert answer["answer"] == chat.answer(row["instruction"], row["input"], max_tokens=16)
        assert 0 < answer["tokens"] <= 16
        assert answer["finish_reason"] == ("length" if answer["tokens"] == 16 else "stop")
