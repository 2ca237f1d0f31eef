"""Trainings in two processes, for real: by gloo on this machine's cores, started by --nproc and by torchrun."""

import csv
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from selfinstruct_local.models import ModelFolder
from selfinstruct_local.train.checkpoints import find_checkpoints

pytestmark = pytest.mark.training
STEPS = 20
FULL = ["--method", "full", "--fsdp"]
LORA = ["--lora-dropout", "0"]  # each process draws a dropout of its own
SMALL = ["--learning-rate", "0.001", "--global-batch-size", "8", "--batch-size", "2", "--max-steps", str(STEPS)]
# A thread for each process: the order of sums, and so the last bits of a loss, depends on how many there are.
ENVIRONMENT = os.environ | {"OMP_NUM_THREADS": "1"}
HERE = [sys.executable, "-m", "selfinstruct_local"]
TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "-m", "selfinstruct_local"]


def command(model: ModelFolder, file: Path, out: Path, *options: str) -> list[str]:
    return ["train", "--model", str(model.path), "--data", str(file), "--out", str(out), *SMALL, *options]


def trains(program: list[str], arguments: list[str]) -> str:
    done = subprocess.run([*program, *arguments], env=ENVIRONMENT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stderr


def losses(out: Path) -> list[float]:
    with (out / "loss.csv").open(encoding="utf-8", newline="") as stream:
        return [float(row["loss"]) for row in csv.DictReader(stream)]


def weights(out: Path) -> dict[str, torch.Tensor]:
    (file,) = out.glob("*model.safetensors")
    return load_file(file)


def event_losses(out: Path) -> list[float]:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(out / "tensorboard"))
    events.Reload()
    entries = events.Scalars("train/loss")
    assert [entry.step for entry in entries] == list(range(1, STEPS + 1))
    return [float(entry.value) for entry in entries]


def wait_for(path: Path, process: "subprocess.Popen[str]") -> None:
    deadline = time.monotonic() + 120
    while not path.exists():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.02)


def ranks_of(process: "subprocess.Popen[str]") -> list[int]:
    found = subprocess.run(["pgrep", "--parent", str(process.pid)], capture_output=True, text=True, check=True)
    return [int(line) for line in found.stdout.split()]


@pytest.fixture(scope="module")
def straight(tiny_model: ModelFolder, tasks: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sharded over two processes, from the first step to the last."""
    out = tmp_path_factory.mktemp("sharded") / "out"
    said = trains(HERE, command(tiny_model, tasks, out, *FULL, "--nproc", "2"))
    assert said.count("samples 32: 32 ") == 1, "one process speaks for both"
    assert "Traceback" not in said
    return out


@pytest.fixture(scope="module")
def tasks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("tasks") / "tasks.jsonl"
    rows = [
        f'{{"instruction": "Say it {n} times.", "input": "", "output": "{" it" * (n % 13 + 1)}"}}' for n in range(32)
    ]
    file.write_text("\n".join(rows), encoding="utf-8")
    return file


def test_sharded_losses_are_those_of_one_process(
    straight: Path, tiny_model: ModelFolder, tasks: Path, tmp_path: Path
) -> None:
    trains(HERE, command(tiny_model, tasks, tmp_path / "one", "--method", "full"))
    one, two = losses(tmp_path / "one"), losses(straight)
    assert len(one) == len(two) == STEPS
    assert one[0] - one[-1] > 1, "it learns"
    assert two == pytest.approx(one, abs=1e-4)
    sharded = weights(straight)  # with the tied head written out, which weights on one device leave out
    for name, tensor in weights(tmp_path / "one").items():
        torch.testing.assert_close(sharded[name], tensor, atol=1e-3, rtol=0)


def test_a_sharded_training_that_was_ended_goes_on_as_if_it_was_not(
    straight: Path, tiny_model: ModelFolder, tasks: Path, tmp_path: Path
) -> None:
    """SIGTERM to the program that was started; every process stops after the same step, with a checkpoint."""
    out = tmp_path / "out"
    arguments = command(tiny_model, tasks, out, *FULL, "--nproc", "2", "--save-steps", "3")
    process = subprocess.Popen([*HERE, *arguments], env=ENVIRONMENT, stderr=subprocess.PIPE, text=True)
    wait_for(out / "checkpoint-3" / "checkpoint.json", process)
    process.send_signal(signal.SIGTERM)
    _, said = process.communicate(timeout=120)
    assert process.returncode == 128 + signal.SIGTERM, said
    assert "same command to resume" in said
    (checkpoint, *_) = find_checkpoints(out)
    assert not checkpoint.fault
    assert 3 <= checkpoint.step < STEPS
    assert f"resuming after step {checkpoint.step}" in trains(HERE, arguments)
    assert losses(out) == losses(straight)
    assert event_losses(out) == pytest.approx(losses(straight))
    after = weights(out)
    assert all(torch.equal(tensor, after[name]) for name, tensor in weights(straight).items())


def test_a_signal_to_every_process_is_one_signal(tiny_model: ModelFolder, tasks: Path, tmp_path: Path) -> None:
    """As systemd and Slurm send it; the launcher passes its own on to those that have theirs already."""
    out = tmp_path / "out"
    arguments = command(tiny_model, tasks, out, *LORA, "--nproc", "2", "--save-steps", "3")
    process = subprocess.Popen([*HERE, *arguments], env=ENVIRONMENT, stderr=subprocess.PIPE, text=True)
    wait_for(out / "checkpoint-3" / "checkpoint.json", process)
    for each in [*ranks_of(process), process.pid]:
        os.kill(each, signal.SIGTERM)
    _, said = process.communicate(timeout=120)
    assert process.returncode == 128 + signal.SIGTERM, said
    assert "same command to resume" in said
    (checkpoint, *_) = find_checkpoints(out)
    assert not checkpoint.fault


def test_a_killed_process_ends_the_others_and_one_alone_can_go_on(
    straight: Path, tiny_model: ModelFolder, tasks: Path, tmp_path: Path
) -> None:
    """The shards of two processes are read by one; the examples of a step are the same."""
    out = tmp_path / "out"
    arguments = command(tiny_model, tasks, out, *FULL, "--save-steps", "3")
    process = subprocess.Popen([*HERE, *arguments, "--nproc", "2"], env=ENVIRONMENT, stderr=subprocess.PIPE, text=True)
    wait_for(out / "checkpoint-3" / "checkpoint.json", process)
    first, second = ranks_of(process)
    os.kill(second, signal.SIGKILL)
    _, said = process.communicate(timeout=120)
    assert process.returncode == 1, said
    last_line = said.splitlines()[-1]
    assert "ended by SIGKILL" in last_line
    assert "the last checkpoint" in last_line
    with pytest.raises(ProcessLookupError):
        os.kill(first, 0)
    assert "resuming after step" in trains(HERE, arguments)
    assert losses(out) == pytest.approx(losses(straight), abs=1e-4)


def test_torchrun_divides_the_examples_of_a_lora_step(tiny_model: ModelFolder, tasks: Path, tmp_path: Path) -> None:
    """DistributedDataParallel, which holds the whole base in each process."""
    trains(HERE, command(tiny_model, tasks, tmp_path / "one", *LORA))
    trains(TORCHRUN, command(tiny_model, tasks, tmp_path / "two", *LORA))
    assert losses(tmp_path / "two") == pytest.approx(losses(tmp_path / "one"), abs=1e-4)
    trains(HERE, command(tiny_model, tasks, tmp_path / "sharded", *LORA, "--fsdp", "--nproc", "2"))
    assert losses(tmp_path / "sharded") == pytest.approx(losses(tmp_path / "one"), abs=1e-4)
    alone = weights(tmp_path / "one")
    for out in ("two", "sharded"):
        for name, tensor in weights(tmp_path / out).items():
            torch.testing.assert_close(tensor, alone[name], atol=1e-4, rtol=0)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--nproc", "3"], "multiple of --batch-size 2 x 3 devices"),
        (["--nproc", "2", "--fsdp", "--pad-vocab-to", "64"], "fsdp: the embeddings of a sharded model"),
        (["--nproc", "2", "--fsdp", "--method", "qlora"], "fsdp cannot shard a 4-bit base model"),
        (["--nproc", "2", "--max-length", "16"], "no example is left to train on"),
    ],
)
def test_what_is_wrong_is_said_once(
    tiny_model: ModelFolder, tasks: Path, tmp_path: Path, options: list[str], says: str
) -> None:
    arguments = command(tiny_model, tasks, tmp_path / "out", *options)
    done = subprocess.run([*HERE, *arguments], env=ENVIRONMENT, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert says in line


def test_a_model_that_was_not_sharded_is_refused(tiny_model: ModelFolder) -> None:
    """transformers' and accelerate's fallbacks are quiet; here one is an error."""
    from transformers import AutoModelForCausalLM

    from selfinstruct_local.errors import RunError
    from selfinstruct_local.train.sharding import check_sharded

    with pytest.raises(RunError, match="weights are not sharded"):
        check_sharded(AutoModelForCausalLM.from_pretrained(tiny_model.path))
