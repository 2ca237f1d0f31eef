"""Trainings for real, on a tiny LLaMA and on the embedded model."""

import csv
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import orjson
import pytest
import torch
from huggingface_hub import ModelCard
from peft import PeftModel
from tokenizers.processors import TemplateProcessing
from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback

from selfinstruct_local.errors import UsageError
from selfinstruct_local.evaluate.chat import Chat
from selfinstruct_local.io.interrupt import Interrupt
from selfinstruct_local.models import ModelFolder, find_model
from selfinstruct_local.models.adapter import read_manifest
from selfinstruct_local.templates.alpaca import TemplateName
from selfinstruct_local.templates.conversation import end_token_ids
from selfinstruct_local.templates.turns import Turn
from selfinstruct_local.train import callbacks, checkpoints
from selfinstruct_local.train.batches import PaddedCollator, PaddingFreeCollator, pack
from selfinstruct_local.train.checkpoints import find_checkpoints
from selfinstruct_local.train.data import IGNORED, Example, TrainingData, build_examples
from selfinstruct_local.train.folder import check_room, open_folder
from selfinstruct_local.train.merge import merge
from selfinstruct_local.train.result import TrainingResult, find_rise
from selfinstruct_local.train.settings import TrainSettings
from selfinstruct_local.train.sources import DataSource, TrainingSample, read_sources
from selfinstruct_local.train.trainer import check_machine, make_arguments, train, train_on_one_device
from tests.chat_families import make_family, write_llama
from tests.conftest import RunCli

pytestmark = pytest.mark.training
FAST = {"learning_rate": 1e-3, "warmup_ratio": 0.1, "batch_size": 4, "save_steps": 2}


def examples_of(file: Path, model: ModelFolder, settings: TrainSettings) -> TrainingData:
    tokenizer = AutoTokenizer.from_pretrained(model.path)
    return build_examples(read_sources([DataSource(file)], 0), tokenizer, settings)


class StopAfter(TrainerCallback):
    """A signal in the middle of a step."""

    def __init__(self, step: int, interrupt: Interrupt) -> None:
        self._step = step
        self._interrupt = interrupt

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:  # noqa: ARG002
        if state.global_step + 1 == self._step:
            self._interrupt.handle(signal.SIGTERM, None)


def run(model: ModelFolder, file: Path, out: Path, settings: TrainSettings, stop: int | None = None) -> TrainingResult:
    out.mkdir(exist_ok=True)
    interrupt = Interrupt()
    callbacks = [StopAfter(stop, interrupt)] if stop else []
    data = examples_of(file, model, settings)
    folder = open_folder(out, data, model, settings)
    return train(data, model, folder, settings, interrupt=interrupt, callbacks=callbacks)


def weights(folder: Path) -> dict[str, torch.Tensor]:
    from safetensors.torch import load_file

    return {name: tensor for path in folder.glob("*.safetensors") for name, tensor in load_file(path).items()}


# --- batches --------------------------------------------------------------------------------------------------------


def test_no_example_sees_another(tiny_model: ModelFolder, tasks_file: Path) -> None:
    """The logits of examples that share a row are those of each alone."""
    # Without a cache, as in training: with one, transformers does not look where positions start anew.
    network: Any = AutoModelForCausalLM.from_pretrained(tiny_model.path, use_cache=False)
    network.eval()
    examples = examples_of(tasks_file, tiny_model, TrainSettings()).examples[:5]
    row = PaddingFreeCollator()([{"examples": examples[:2]}, {"examples": examples[2:]}])
    alone = []
    with torch.no_grad():
        together = network(
            input_ids=row["input_ids"], position_ids=row["position_ids"], logits_to_keep=row["logits_to_keep"]
        ).logits[0]
        for example in examples:
            logits = network(input_ids=torch.tensor([example.input_ids])).logits[0]
            alone.append(logits[[index for index, label in enumerate(example.labels[1:]) if label != -100]])
    assert torch.allclose(together, torch.cat(alone), atol=1e-5)
    assert row["shift_labels"].shape == (1, sum(example.supervised for example in examples))


@pytest.mark.parametrize("accumulation", [1, 2])
def test_padding_left_out_changes_no_loss(
    tiny_model: ModelFolder, tasks_file: Path, tmp_path: Path, accumulation: int
) -> None:
    losses = {}
    for batching in ("padded", "padding-free"):
        settings = TrainSettings(method="full", batching=batching, gradient_accumulation=accumulation, epochs=2, **FAST)
        losses[batching] = [loss for *_, loss in run(tiny_model, tasks_file, tmp_path / batching, settings).losses]
    assert len(losses["padded"]) == 16 // accumulation
    assert losses["padding-free"] == pytest.approx(losses["padded"], abs=1e-4)


def test_packing_leaves_no_example_out(tiny_model: ModelFolder, tasks_file: Path, tmp_path: Path) -> None:
    examples = examples_of(tasks_file, tiny_model, TrainSettings()).examples
    rows = pack(examples, 200)
    assert sorted(map(id, (each for row in rows for each in row))) == sorted(map(id, examples))
    assert all(sum(len(each.input_ids) for each in row) <= 200 for row in rows)
    assert len(rows) < len(examples) / 2
    settings = TrainSettings(method="full", batching="packed", max_length=200, epochs=1, **{**FAST, "batch_size": 1})
    assert len(run(tiny_model, tasks_file, tmp_path / "packed", settings).losses) == len(rows)


def test_the_end_is_learnt_though_it_is_the_padding() -> None:
    """FAULTS 40."""
    end = 2
    batch = PaddedCollator(end)(
        [
            {"examples": [Example([5, 6, end], [-100, 6, end])]},
            {"examples": [Example([7, 8, 9, 10, end], [-100] * 4 + [end])]},
        ]
    )
    assert batch["labels"].tolist() == [[-100, 6, end, -100, -100], [-100, -100, -100, -100, end]]
    assert batch["attention_mask"].tolist() == [[1, 1, 1, 0, 0], [1, 1, 1, 1, 1]]


# --- resuming -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["full", "lora"])
def test_a_resumed_training_has_the_losses_of_a_straight_one(
    tiny_model: ModelFolder, tasks_file: Path, tmp_path: Path, method: str
) -> None:
    """FAULTS 42: exactly, in float32; LoRA's dropout included."""
    settings = TrainSettings(method=method, max_steps=4, **FAST)
    straight = run(tiny_model, tasks_file, tmp_path / "straight", settings)
    halted = run(tiny_model, tasks_file, tmp_path / "halted", settings, stop=2)
    assert (straight.finished, halted.finished) == (True, False)
    assert [step for step, *_ in halted.losses] == [1, 2]
    resumed = run(tiny_model, tasks_file, tmp_path / "halted", settings)
    assert resumed.finished
    assert resumed.losses == straight.losses
    ours, wanted = weights(tmp_path / "halted"), weights(tmp_path / "straight")
    assert ours.keys() == wanted.keys() != set()
    assert all(torch.equal(ours[name], wanted[name]) for name in wanted)
    with (tmp_path / "halted" / "loss.csv").open(newline="") as stream:
        assert [float(row["loss"]) for row in csv.DictReader(stream)] == [loss for *_, loss in straight.losses]


@pytest.mark.parametrize("method", ["full", "lora"])
def test_the_card_tells_what_the_model_was_trained_on(
    tiny_model: ModelFolder, tasks_file: Path, tmp_path: Path, method: str
) -> None:
    settings = TrainSettings.model_validate({**FAST, "method": method, "max_steps": 2, "validation": 0.25})
    result = run(tiny_model, tasks_file, tmp_path / "tuned", settings)
    card = ModelCard.load(tmp_path / "tuned" / "README.md")
    assert card.data.library_name == ("transformers" if method == "full" else "peft")
    assert "More Information Needed" not in card.text  # PEFT's, which it replaces
    assert f"| mean loss by epoch | {result.epoch_losses[0]:.3f} |" in card.text
    assert f"| held-out loss by epoch | {result.validation[0][1]:.3f} |" in card.text
    assert f"| base's checksum | {tiny_model.fingerprint} |" in card.text
    assert str(tmp_path) not in card.text
    assert str(tiny_model.path.parent) not in card.text


@pytest.mark.parametrize("damage", ["no manifest", "cut weights"])
def test_a_torn_checkpoint_is_passed_over(
    tiny_model: ModelFolder, tasks_file: Path, tmp_path: Path, damage: str
) -> None:
    """FAULTS 41."""
    settings = TrainSettings(method="full", max_steps=6, **FAST)
    straight = run(tiny_model, tasks_file, tmp_path / "straight", settings)
    out = tmp_path / "torn"
    run(tiny_model, tasks_file, out, settings, stop=4)
    last = out / "checkpoint-4"
    if damage == "no manifest":
        (last / "checkpoint.json").unlink()
    else:
        file = last / "optimizer.pt"
        file.write_bytes(file.read_bytes()[:-100])
    torn, whole = find_checkpoints(out)
    assert (torn.step, whole.step, whole.fault) == (4, 2, "")
    assert ("completely written" if damage == "no manifest" else "optimizer.pt has a wrong checksum") in torn.fault
    assert run(tiny_model, tasks_file, out, settings).losses == straight.losses


def test_a_signal_within_an_epoch_writes_one_checkpoint_and_measures_nothing(
    tiny_model: ModelFolder, tasks_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The Trainer takes any end for that of an epoch, where checkpoints and the held-out loss are due."""
    sealed: list[str] = []

    def seal(folder: Path) -> None:
        sealed.append(folder.name)
        checkpoints.seal(folder)

    monkeypatch.setattr(callbacks, "seal", seal)
    settings = TrainSettings.model_validate({**FAST, "method": "full", "save_steps": 0, "validation": 0.25})
    halted = run(tiny_model, tasks_file, tmp_path / "out", settings, stop=3)
    assert sealed == ["checkpoint-3"]
    assert halted.validation == []
    resumed = run(tiny_model, tasks_file, tmp_path / "out", settings)
    assert len(resumed.validation) == 3, "one an epoch"
    straight = run(tiny_model, tasks_file, tmp_path / "straight", settings)
    assert (resumed.losses, resumed.validation) == (straight.losses, straight.validation)


def test_another_training_is_not_gone_on_with(tiny_model: ModelFolder, tasks_file: Path, tmp_path: Path) -> None:
    settings = TrainSettings(method="full", max_steps=2, **FAST)
    run(tiny_model, tasks_file, tmp_path / "out", settings, stop=1)
    with pytest.raises(UsageError, match="differs in learning_rate; name another folder"):
        run(tiny_model, tasks_file, tmp_path / "out", settings.model_copy(update={"learning_rate": 1e-4}))
    tasks_file.write_text('{"instruction": "New.", "output": "Yes."}', encoding="utf-8")
    with pytest.raises(UsageError, match="differs in data; name another folder"):
        run(tiny_model, tasks_file, tmp_path / "out", settings)


def test_two_trainings_do_not_write_into_one_folder(tiny_model: ModelFolder, tasks_file: Path, tmp_path: Path) -> None:
    settings = TrainSettings(method="full", max_steps=1, **FAST)
    data = examples_of(tasks_file, tiny_model, settings)
    folder = open_folder(tmp_path, data, tiny_model, settings)
    with folder.held(), pytest.raises(UsageError, match=r"another process .+; wait for it"):
        train(data, tiny_model, folder, settings)
    assert not (tmp_path / "settings.json").exists()
    assert train(data, tiny_model, folder, settings).finished


def command(*options: object) -> list[str]:
    return [sys.executable, "-m", "selfinstruct_local", "train", *map(str, options)]


def test_a_real_sigterm_exits_143_and_the_same_command_goes_on(
    tiny_model: ModelFolder, tasks_file: Path, tmp_path: Path
) -> None:
    options = ["--data", tasks_file, "--model", tiny_model.path, "--method", "full", "--save-steps", 20]
    options += ["--learning-rate", 0.001, "--epochs", 10]
    straight = tmp_path / "straight"
    subprocess.run(command(*options, "--out", straight), check=True, capture_output=True)
    out = tmp_path / "killed"
    process = subprocess.Popen(command(*options, "--out", out), stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 120
    while not (out / "checkpoint-20" / "checkpoint.json").exists():
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.02)
    process.send_signal(signal.SIGTERM)
    _, told = process.communicate(timeout=120)
    assert process.returncode == 143
    assert "same command to resume" in told
    again = subprocess.run(command(*options, "--out", out), check=True, capture_output=True, text=True)
    assert "resuming after step" in again.stderr
    assert (out / "loss.csv").read_text() == (straight / "loss.csv").read_text()


def test_a_done_training_is_not_done_again(tiny_model: ModelFolder, tasks_file: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    options = ["--data", tasks_file, "--model", tiny_model.path, "--method", "full", "--max-steps", 2, "--out", out]
    subprocess.run(command(*options), check=True, capture_output=True)
    before = (out / "model.safetensors").stat().st_mtime_ns
    again = subprocess.run(command(*options), check=True, capture_output=True, text=True)
    assert "already done" in again.stderr
    assert again.stdout.strip() == str(out)
    assert (out / "model.safetensors").stat().st_mtime_ns == before


# --- what is left ---------------------------------------------------------------------------------------------------


def test_two_lora_steps_and_an_answer(tmp_path: Path, embedded_model: ModelFolder) -> None:
    file = tmp_path / "tasks.json"
    rows = [
        {"instruction": "Name the capital of France.", "output": "Paris"},
        {"instruction": "Reverse the word.", "input": "abc", "output": "cba"},
    ]
    file.write_bytes(orjson.dumps(rows))
    settings = TrainSettings(max_steps=2, batch_size=2, learning_rate=1e-3, warmup_ratio=0, lora_dropout=0)
    out = tmp_path / "out"
    result = run(embedded_model, file, out, settings)
    assert [step for step, _, _ in result.losses] == [1, 2]
    # Both steps see the same two examples, so the fall is learning.
    assert result.losses[1][2] < result.losses[0][2]
    assert len(result.epoch_losses) == 2
    assert (out / "adapter_model.safetensors").is_file()
    assert (out / "loss.png").read_bytes().startswith(b"\x89PNG")
    manifest = orjson.loads((out / "training.json").read_bytes())
    assert (manifest["examples"], manifest["template"]) == (2, "alpaca")
    assert manifest["base_model_fingerprint"] == embedded_model.fingerprint
    assert manifest["settings"]["learning_rate"] == 1e-3
    assert read_manifest(out) == manifest
    chat = Chat(embedded_model, out)
    assert chat.template == "alpaca"
    assert chat.answer("Name the capital of France.", max_tokens=4)


def test_a_tuned_model_is_asked_as_it_was_trained(tiny_model: ModelFolder, tasks_file: Path, tmp_path: Path) -> None:
    for template in ("alpaca", "chat"):
        out = tmp_path / template
        run(tiny_model, tasks_file, out, TrainSettings(method="full", template=template, max_steps=1, **FAST))
        assert Chat(find_model(str(out))).template == template


def test_a_merged_adapter_answers_as_base_and_adapter_do(
    tiny_model: ModelFolder, embedded_model: ModelFolder, tasks_file: Path, tmp_path: Path
) -> None:
    adapter, out = tmp_path / "adapter", tmp_path / "merged"
    run(tiny_model, tasks_file, adapter, TrainSettings(max_steps=8, **{**FAST, "learning_rate": 0.05}))
    options = ["merge", "--model", tiny_model.path, "--adapter", adapter, "--out", out]
    merging = [sys.executable, "-m", "selfinstruct_local", *map(str, options)]
    subprocess.run(merging, check=True, capture_output=True)
    merged = find_model(str(out))  # whole, and safe
    ids = torch.tensor([[5, 6, 7, 8]])
    base: Any = AutoModelForCausalLM.from_pretrained(tiny_model.path)
    with torch.no_grad():
        alone = base(ids).logits
        wanted = PeftModel.from_pretrained(base, str(adapter)).eval()(ids).logits
        found: Any = AutoModelForCausalLM.from_pretrained(merged.path)
        assert torch.allclose(found(ids).logits, wanted, atol=1e-4)
    assert not torch.allclose(alone, wanted, atol=1e-2)
    assert orjson.loads((out / "training.json").read_bytes())["base_model_fingerprint"] == tiny_model.fingerprint
    again = subprocess.run(merging, check=False, capture_output=True, text=True)
    assert (again.returncode, "is not empty; name a new folder" in again.stderr) == (2, True)
    with pytest.raises(UsageError, match=f"was trained on {tiny_model.path}, .+ {embedded_model.path} "):
        merge(embedded_model, adapter, tmp_path)
    # One that tells nothing of its base: the shapes do.
    (adapter / "training.json").unlink()
    with pytest.raises(UsageError, match=rf"{embedded_model.path} \(size mismatch .+\); .+ with --model"):
        Chat(embedded_model, adapter)


def test_the_held_out_loss_is_told_each_epoch(tiny_model: ModelFolder, tasks_file: Path, tmp_path: Path) -> None:
    settings = TrainSettings(method="full", epochs=2, validation=0.25, **FAST)
    result = run(tiny_model, tasks_file, tmp_path / "out", settings)
    assert [step for step, _ in result.validation] == [6, 12]
    assert result.validation[1][1] < result.validation[0][1]


@pytest.mark.parametrize("template", ["alpaca", "chat"])
def test_what_is_tuned_is_asked_with_the_tokens_of_its_training(
    tiny_model: ModelFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, template: TemplateName
) -> None:
    """With a tokenizer that puts a token before every text, as LLaMA's do, and a template that writes it too."""
    folder = tmp_path / "base"
    shutil.copytree(tiny_model.path, folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    first = tokenizer.bos_token
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single=f"{first} $A", special_tokens=[(first, tokenizer.bos_token_id)]
    )
    tokenizer.chat_template = "{{ bos_token }}{% for m in messages %}[{{ m['role'] }}]{{ m['content'] }}{% endfor %}"
    tokenizer.chat_template += "{% if add_generation_prompt %}[assistant]{% endif %}"
    tokenizer.save_pretrained(folder)
    question = "What does <|im_end|> mean?"
    sample = TrainingSample((Turn("user", question), Turn("assistant", "The end.")), "In ChatML.")
    (example,) = build_examples(
        [sample], AutoTokenizer.from_pretrained(folder), TrainSettings(template=template)
    ).examples
    chat = Chat(find_model(str(folder)), template=template)
    asked: list[list[int]] = []

    def generate(input_ids: torch.Tensor, **_: Any) -> torch.Tensor:
        asked.append(input_ids[0].tolist())
        return input_ids

    monkeypatch.setattr(chat._network, "generate", generate)
    chat.answer(question, "In ChatML.")
    assert asked == [example.input_ids[: example.labels.count(IGNORED)]]
    assert asked[0].count(tokenizer.bos_token_id) == 1


def test_the_vocabulary_grows_only_when_it_is_asked_to(
    tiny_model: ModelFolder, tasks_file: Path, tmp_path: Path
) -> None:
    for multiple, size in ((0, 49152), (10_000, 50_000)):
        out = tmp_path / str(multiple)
        run(tiny_model, tasks_file, out, TrainSettings(method="full", max_steps=1, pad_vocab_to=multiple, **FAST))
        assert orjson.loads((out / "config.json").read_bytes())["vocab_size"] == size


def test_too_little_disk_is_said_before_the_model_loads(
    tiny_model: ModelFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = TrainSettings(method="full")
    check_room(tmp_path, tiny_model, settings)
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=1 << 20))
    with pytest.raises(UsageError, match=r"3 checkpoints and the result need 0\.1 GiB, and 0\.0 GiB are free"):
        check_room(tmp_path, tiny_model, settings)


def test_checkpoints_that_are_there_have_their_room(
    tiny_model: ModelFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A training that began with just enough room goes on when its checkpoints have taken it."""
    settings = TrainSettings(method="full")
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=200 << 20))
    check_room(tmp_path, tiny_model, settings)
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=80 << 20))
    with pytest.raises(UsageError, match="3 checkpoints and the result need"):
        check_room(tmp_path, tiny_model, settings)
    for step in (10, 20):
        (tmp_path / f"checkpoint-{step}").mkdir()
        with (tmp_path / f"checkpoint-{step}" / "optimizer.pt").open("wb") as file:
            file.truncate(35 << 20)
    check_room(tmp_path, tiny_model, settings)


def test_a_process_takes_one_gpu_of_several(tmp_path: Path) -> None:
    arguments = make_arguments(tmp_path, TrainSettings(batch_size=4), validates=False)
    arguments._n_gpu = 4  # what a machine with four would have it be
    assert arguments.train_batch_size == 16
    train_on_one_device(arguments)
    assert arguments.train_batch_size == 4


def test_processes_that_do_not_know_their_place_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.delenv("LOCAL_RANK", raising=False)
    with pytest.raises(UsageError, match="WORLD_SIZE is 2 and LOCAL_RANK is not set"):
        check_machine(TrainSettings(), 2)


def test_a_base_whose_generation_config_cannot_be_saved_is_tuned_and_merged(
    tiny_model: ModelFolder, tasks_file: Path, tmp_path: Path
) -> None:
    """Vicuna 1.5 has such a file."""
    folder = tmp_path / "base"
    shutil.copytree(tiny_model.path, folder)
    (folder / "generation_config.json").write_text('{"temperature": 0.9, "top_p": 0.6, "eos_token_id": 2}')
    base = find_model(str(folder))
    settings = {"max_steps": 1, **FAST}
    assert run(base, tasks_file, tmp_path / "full", TrainSettings(method="full", **settings)).finished
    saved = orjson.loads((tmp_path / "full" / "generation_config.json").read_bytes())
    assert (saved["temperature"], saved["top_p"], saved["do_sample"]) == (0.9, 0.6, True)
    assert run(base, tasks_file, tmp_path / "lora", TrainSettings(**settings)).finished
    (tmp_path / "merged").mkdir()
    merge(base, tmp_path / "lora", tmp_path / "merged")
    assert find_model(str(tmp_path / "merged"))


def test_qlora_learns_on_a_base_of_four_bits_and_goes_on(
    tiny_model: ModelFolder, tasks_file: Path, tmp_path: Path
) -> None:
    """bitsandbytes has kernels for CPUs too; how fast they are is another matter."""
    settings = TrainSettings.model_validate({**FAST, "method": "qlora", "max_steps": 4})
    straight = run(tiny_model, tasks_file, tmp_path / "straight", settings)
    assert straight.losses[-1][2] < straight.losses[0][2]
    assert not run(tiny_model, tasks_file, tmp_path / "resumed", settings, stop=2).finished
    assert run(tiny_model, tasks_file, tmp_path / "resumed", settings).losses == straight.losses
    (tmp_path / "merged").mkdir()
    merge(tiny_model, tmp_path / "straight", tmp_path / "merged")
    assert find_model(str(tmp_path / "merged")).architecture == "LlamaForCausalLM"


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--data", "none.json", "--out", "x"], "none.json: no such file"),
        (["--data", "tasks.jsonl"], "--out is missing"),
        (["--data", "tasks.jsonl", "--out", "x", "--preset", "llama-3"], "--preset llama-3: no such preset; "),
        (["--data", "tasks.jsonl", "--out", "x", "--batching", "tight"], "--batching tight: input should be"),
        (["--data", "tasks.jsonl", "--out", "x", "--max-length", "16"], "no example is left to train on"),
        (
            ["--data", "tasks.jsonl", "--out", "x", "--global-batch-size", "6"],
            "global_batch_size 6 is not a multiple of batch_size 4",
        ),
    ],
)
def test_bad_use_is_one_clear_line(tiny_model: ModelFolder, tasks_file: Path, options: list[str], said: str) -> None:
    done = subprocess.run(
        command(*options, "--model", tiny_model.path),
        cwd=tasks_file.parent,
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "COLUMNS": "200"},
    )
    assert done.returncode == 2
    assert said in done.stderr
    assert "Traceback" not in done.stderr


def test_a_dry_run_audits_and_plans_and_writes_nothing(
    tiny_model: ModelFolder, tasks_file: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    options = ["--data", tasks_file, "--out", out, "--model", tiny_model.path, "--dry-run"]
    told = subprocess.run(command(*options), check=True, capture_output=True, text=True).stderr
    assert "samples 32: 32 " in told
    assert "⟦ it" in told
    assert "steps" in told
    assert not list(out.iterdir()) if out.exists() else True


def test_a_plan_for_7b_needs_no_weights(tasks_file: Path) -> None:
    options = ["--preset", "alpaca-7b", "--data", tasks_file, "--dry-run", "--nproc", 4]
    told = subprocess.run(command(*options), check=True, capture_output=True, text=True).stderr
    assert "audit skipped: without --model" in told
    assert "6,738,415,616" in told


# --- diverging ------------------------------------------------------------------------------------------------------


def train_too_fast(cli: RunCli, model: ModelFolder, data: Path, out: Path, *options: object) -> str:
    """What a training with an absurd learning rate says at its end."""
    done = cli(
        *("train", "--data", data, "--model", model.path, "--out", out, "--method", "full", "--learning-rate", 1e30),
        *options,
    )
    assert done.returncode == 1
    assert not (out / "training.json").exists()
    last = done.stderr.splitlines()[-1]
    assert last.startswith("selfinstruct: step ")
    assert "--learning-rate (now 1e+30)" in last
    return last


def test_a_loss_that_is_no_number_ends_the_training(
    cli: RunCli, tiny_model: ModelFolder, tasks_file: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    said = train_too_fast(cli, tiny_model, tasks_file, out, "--warmup-ratio", 0)
    assert "step 2: the gradient norm is nan" in said or "step 2: the loss is nan" in said
    assert not list(out.glob("checkpoint-*"))


def test_no_good_checkpoint_is_lost_to_weights_that_are_no_numbers(
    cli: RunCli, tiny_model: ModelFolder, tasks_file: Path, tmp_path: Path
) -> None:
    """The first step of a warm-up changes nothing; the second ruins the weights while its loss is still finite."""
    out = tmp_path / "out"
    for _ in range(2):  # the same command goes on from there, and comes to the same end
        said = train_too_fast(cli, tiny_model, tasks_file, out, "--warmup-ratio", 0.5, "--save-steps", 1)
        assert "step 2: a weight is no longer a finite number" in said
        (checkpoint,) = find_checkpoints(out)
        assert (checkpoint.step, checkpoint.fault) == (1, "")
        assert all(tensor.isfinite().all() for tensor in weights(checkpoint.folder).values())


def test_a_loss_that_rises_far_is_told(tiny_model: ModelFolder, tasks_file: Path, tmp_path: Path) -> None:
    good = TrainSettings(method="full", learning_rate=1e-2, epochs=6, batch_size=4)
    assert run(tiny_model, tasks_file, tmp_path / "good", good).rise is None
    too_fast = TrainSettings(method="full", learning_rate=30.0, warmup_ratio=0.5, epochs=2, batch_size=4)
    result = run(find_model(str(tmp_path / "good")), tasks_file, tmp_path / "bad", too_fast)
    assert result.finished
    assert result.rise is not None
    assert result.rise[1] > 2 * result.rise[0]


@pytest.mark.parametrize(
    ("losses", "rise"),
    [
        ([2.0] * 4 + [1.0] * 4, None),
        ([0.2, 0.3, 0.2, 0.9, 0.2, 0.4, 0.3, 0.5], None),
        ([1.0, 1.2, 3.0, 3.0, 4.0, 4.0, 4.5, 5.5], (1.1, 5.0)),
        ([1.0, 9.0, 9.0], None),
    ],
)
def test_a_rise_is_more_than_batches_differ(losses: list[float], rise: tuple[float, float] | None) -> None:
    found = find_rise(losses)
    assert found == (rise and pytest.approx(rise))


# --- the end of a turn ----------------------------------------------------------------------------------------------


@pytest.fixture
def base_of_chat(tmp_path: Path) -> ModelFolder:
    """A base whose template ends turns by another token than its files name."""
    family = make_family("qwen2.5-base")
    return find_model(str(write_llama(family.tokenizer, tmp_path / "base")))


@pytest.fixture
def talk_file(tmp_path: Path) -> Path:
    file = tmp_path / "talk.jsonl"
    talk = [{"role": "user", "content": "name a river"}, {"role": "assistant", "content": "blue stone"}]
    file.write_bytes(b"\n".join([orjson.dumps({"messages": talk})] * 8))
    return file


def test_a_model_tuned_to_a_chat_template_stops_at_its_end_of_turn(
    base_of_chat: ModelFolder, talk_file: Path, tmp_path: Path
) -> None:
    settings = TrainSettings(method="full", template="chat", learning_rate=3e-2, epochs=15, batch_size=4)
    assert run(base_of_chat, talk_file, tmp_path / "out", settings).finished
    tuned = find_model(str(tmp_path / "out"))
    assert set(end_token_ids(tuned.path)) > set(end_token_ids(base_of_chat.path))
    assert Chat(tuned).answer("name a river", max_tokens=20) == "blue stone"


def test_an_adapter_for_a_chat_template_brings_its_end_of_turn(
    base_of_chat: ModelFolder, talk_file: Path, tmp_path: Path
) -> None:
    out, merged = tmp_path / "out", tmp_path / "merged"
    assert run(base_of_chat, talk_file, out, TrainSettings(template="chat", epochs=1, batch_size=4)).finished
    merged.mkdir()
    merge(base_of_chat, out, merged)
    wanted = end_token_ids(merged)
    assert set(wanted) > set(end_token_ids(base_of_chat.path))
    assert sorted(Chat(base_of_chat, out)._network.generation_config.eos_token_id) == wanted
