"""The main job on the embedded model, from seeds to a tuned model, through the public commands alone.

Each step is the command a user would type, shown and run as a process of its own. The end checks the claims:
enough tasks, none equal to a seed, no two near copies (by google's `rouge_score`, not by our kernels), and a loss
that fell.
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

# Small enough for two cores and a few minutes: half the default requests in flight.
GENERATE_FLAGS = ("--in-flight", "16")
# A dozen tasks three times, gently: enough for the loss to fall, not enough to unlearn answering.
TRAIN_FLAGS = ("--epochs", "3", "--max-length", "320", "--learning-rate", "0.0001")
QUESTION = "List two colors of the rainbow."
NEAR_COPY = 0.7


def steps(folder: Path, num: int) -> list[tuple[object, ...]]:
    """The commands of the demo in `folder`, each with its arguments; the last two ask before and after the tuning."""
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
    """Runs all steps and prints where everything is.

    Args:
        folder: of the demo; a demo that was broken off goes on.
        num: tasks to generate.

    Raises:
        RunError: a step failed, or the result does not hold what was claimed.
    """
    started = time.monotonic()
    tasks, adapter = folder / "alpaca.json", folder / "adapter"
    *_, before, after = [_step(*each) for each in steps(folder, num)]
    accepted, highest = _check_tasks(tasks, seed_file(), num)
    first, last = _check_loss(adapter / "loss.csv")
    shown = _examples(folder)
    summary = [
        ("tasks accepted", f"{accepted}, none equal to a seed, highest ROUGE-L F between two {highest:.2f}"),
        ("tasks", str(tasks)),
        *shown,
        ("the run (all completions, verdicts, reasons)", str(folder / "run.sqlite")),
        ("adapter", str(adapter)),
        ("mean loss, first epoch to last", f"{first:.2f} -> {last:.2f} ({adapter / 'loss.csv'})"),
        ("asked", QUESTION),
        ("before", _one_line(before)),
        ("after", _one_line(after)),
        ("time", format_seconds(time.monotonic() - started)),
    ]
    typer.echo("\nDemo done.")
    for name, value in summary:
        typer.echo(f"  {name}: {value}")


def _examples(folder: Path) -> list[tuple[str, str]]:
    """Return a task with an input and a classification task that were accepted, each as a name and a line."""
    with RunStore(folder, read_only=True) as store:
        accepted = list(store.accepted())
    kinds = {
        "one with an input": next((each for each in accepted if each.input and not each.is_classification), None),
        "one that is classification": next((each for each in accepted if each.is_classification), None),
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
        message = f"the step 'selfinstruct {words[0]}' ended with exit code {done.returncode}; see above"
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
    _claim(max(between, to_seeds) <= NEAR_COPY, f"two instructions score {max(between, to_seeds):.3f}")
    return len(new), between


def _check_loss(path: Path) -> tuple[float, float]:
    """Mean loss of the first and the last epoch, which see the same examples."""
    by_epoch: dict[int, list[float]] = {}
    with path.open(encoding="utf-8", newline="") as stream:
        for row in csv.DictReader(stream):
            by_epoch.setdefault(ceil(float(row["epoch"])), []).append(float(row["loss"]))
    first, last = (sum(losses) / len(losses) for losses in (by_epoch[min(by_epoch)], by_epoch[max(by_epoch)]))
    _claim(last < first, f"the loss did not fall ({first:.3f} -> {last:.3f})")
    return first, last


def _claim(holds: bool, what_else: str) -> None:  # noqa: FBT001 - reads as a sentence
    if not holds:
        message = f"the demo did not hold what it claims: {what_else}"
        raise RunError(message)
