"""The demo: the whole pipeline on the embedded model, from seeds to a fine-tuned model, with public commands only.

Each step is a command that a user would type, printed and run in its own process. At the end the demo checks its
result: enough tasks, none equal to a seed, no two near copies (with google's `rouge_score`, not our kernels), and a
lower loss.
"""

import csv
import shlex
import subprocess
import sys
import time
from itertools import combinations
from math import ceil
from pathlib import Path

import typer

from selfinstruct_local.errors import RunError
from selfinstruct_local.io.progress import format_seconds
from selfinstruct_local.io.reader import read_tasks
from selfinstruct_local.runs.store import RunStore
from selfinstruct_local.seeds import seed_file

# Small enough for two cores and a few minutes: half the default number of concurrent requests.
GENERATE_FLAGS = ("--in-flight", "16")
# Three epochs over a dozen tasks with a low learning rate: the loss falls, and the model still answers.
TRAIN_FLAGS = ("--epochs", "3", "--max-length", "320", "--learning-rate", "0.0001")
QUESTION = "List two colors of the rainbow."
NEAR_COPY = 0.7


def steps(folder: Path, num: int) -> list[tuple[object, ...]]:
    """Return the commands of the demo with their arguments; the last two chat with the base and the tuned model."""
    tasks, adapter = folder / "alpaca.json", folder / "adapter"
    ask = ("--once", QUESTION, "--template", "alpaca", "--max-tokens", 64)
    return [
        ("models", "prepare"),
        ("generate", "--run", folder, "--num", num, *GENERATE_FLAGS),
        ("filter", tasks, "--out", folder / "filtered.jsonl", "--rejects", folder / "rejects.jsonl"),
        ("train", "--data", tasks, "--out", adapter, *TRAIN_FLAGS),
        ("chat", *ask),
        ("chat", "--adapter", adapter, *ask),
    ]


def run_demo(folder: Path, num: int) -> None:
    """Run all steps and print a summary with the paths of the results.

    Args:
        folder: folder of the demo run; an interrupted demo is resumed.
        num: number of tasks to generate.

    Raises:
        RunError: a step failed, or the result fails a check.
    """
    started = time.monotonic()
    tasks, adapter = folder / "alpaca.json", folder / "adapter"
    *_, before, after = [_step(*each) for each in steps(folder, num)]
    accepted, highest = _check_tasks(tasks, seed_file(), num)
    first, last = _check_loss(adapter / "loss.csv")
    shown = _examples(folder)
    summary = [
        ("tasks accepted", f"{accepted}, none equal to a seed, highest ROUGE-L F of two tasks {highest:.2f}"),
        ("tasks", str(tasks)),
        *shown,
        ("run (all completions, verdicts, reasons)", str(folder / "run.sqlite")),
        ("adapter", str(adapter)),
        ("mean loss, first and last epoch", f"{first:.2f} -> {last:.2f} ({adapter / 'loss.csv'})"),
        ("instruction", QUESTION),
        ("answer before", _one_line(before)),
        ("answer after", _one_line(after)),
        ("time", format_seconds(time.monotonic() - started)),
    ]
    typer.echo("\nDemo done.")
    for name, value in summary:
        typer.echo(f"  {name}: {value}")


def _examples(folder: Path) -> list[tuple[str, str]]:
    """Return an accepted task with an input and an accepted classification task, each as a name and a line."""
    with RunStore(folder, read_only=True) as store:
        accepted = list(store.accepted())
    kinds = {
        "example with an input": next((each for each in accepted if each.input and not each.is_classification), None),
        "example of classification": next((each for each in accepted if each.is_classification), None),
    }
    return [
        (name, _one_line(" | ".join(filter(None, (task.instruction, task.input, task.output)))))
        for name, task in kinds.items()
        if task
    ]


def _one_line(answer: str) -> str:
    return " ".join(answer.split()) or "(an empty answer)"


def _step(*arguments: object) -> str:
    words = [str(argument) for argument in arguments]
    typer.echo(f"\n$ selfinstruct {shlex.join(words)}")
    command = [sys.executable, "-m", "selfinstruct_local", *words]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    typer.echo(done.stdout, nl=False)
    if done.returncode != 0:
        message = f"step 'selfinstruct {words[0]}' failed with exit code {done.returncode}; see its output above"
        raise RunError(message)
    return done.stdout


def _check_tasks(tasks: Path, seeds: Path, wanted: int) -> tuple[int, float]:
    from rouge_score.rouge_scorer import RougeScorer

    scorer = RougeScorer(["rougeL"])

    def score(one: str, other: str) -> float:
        return float(scorer.score(one, other)["rougeL"].fmeasure)

    new = [task.instruction for task in read_tasks(tasks)]
    old = [task.instruction for task in read_tasks(seeds)]
    _claim(len(new) >= wanted, f"{len(new)} tasks of {wanted}")
    _claim(not set(new) & set(old), "a task equals a seed")
    between = max((score(one, other) for one, other in combinations(new, 2)), default=0.0)
    to_seeds = max(score(one, other) for one in new for other in old)
    _claim(max(between, to_seeds) <= NEAR_COPY, f"two instructions have a ROUGE-L F of {max(between, to_seeds):.3f}")
    return len(new), between


def _check_loss(path: Path) -> tuple[float, float]:
    """Return the mean loss of the first and of the last epoch, which have the same examples."""
    by_epoch: dict[int, list[float]] = {}
    with path.open(encoding="utf-8", newline="") as stream:
        for row in csv.DictReader(stream):
            by_epoch.setdefault(ceil(float(row["epoch"])), []).append(float(row["loss"]))
    first, last = (sum(losses) / len(losses) for losses in (by_epoch[min(by_epoch)], by_epoch[max(by_epoch)]))
    _claim(last < first, f"the loss did not fall ({first:.3f} -> {last:.3f})")
    return first, last


def _claim(holds: bool, what_else: str) -> None:  # noqa: FBT001 - reads as a sentence
    if not holds:
        message = f"the demo failed its check: {what_else}"
        raise RunError(message)
