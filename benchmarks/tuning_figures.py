"""The results of `bench_data_value.py`: figures of each arm with intervals, and their table."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import orjson
from numpy.typing import NDArray
from results import table
from tuning_arms import SEEDS

from selfinstruct_local.errors import UsageError

RESAMPLES = 2_000
UNTUNED = {"alpaca": "untuned, Alpaca's prompt", "chat": "untuned, its chat template"}  # by template
HEAD = (
    "model",
    "examples",
    "trainable tokens",
    "loss",
    "less untuned",
    f"less {SEEDS}",
    "stop rate",
    "ROUGE-L",
    "loss by training seed",
)
Matrix = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Asked:
    """Results on the expert tasks of models that differ in their training seed: float64[seeds, tasks] each.

    Attributes:
        nats: negative log-likelihood of the reference.
        tokens: trainable tokens of the reference.
        stopped: 1 if the completion ended by itself, else 0.
        rouge_l: F of the completion with the reference.
        cases: fingerprint of the tasks.
    """

    nats: Matrix
    tokens: Matrix
    stopped: Matrix
    rouge_l: Matrix
    cases: str


class Measure(NamedTuple):
    """One figure of an arm.

    Attributes:
        value: mean over the training seeds.
        drawn: float64[RESAMPLES], the same mean for resampled tasks and training seeds.
        by_seed: value of each training seed.
    """

    value: float
    drawn: NDArray[np.float64]
    by_seed: Sequence[float] = ()

    def __str__(self) -> str:
        low, high = np.percentile(self.drawn, (2.5, 97.5))
        return f"{self.value:.3f} [{low:.3f}, {high:.3f}]"

    def less(self, other: "Measure") -> "Measure":
        """Return the difference from another arm, for which the same tasks were drawn."""
        return Measure(self.value - other.value, self.drawn - other.drawn)


def read_asked(outs: Sequence[Path], max_tokens: int) -> Asked:
    """Return the results that `selfinstruct eval` wrote for the models of one arm.

    Raises:
        UsageError: the models were asked different tasks, or with another `max_tokens`.
    """
    records = [orjson.loads((out / "eval.json").read_bytes()) for out in outs]
    for out, record in zip(outs, records, strict=True):
        if (found := record["settings"]["max_tokens"]) != max_tokens:
            message = f"--max-tokens {max_tokens}: {out} has completions of at most {found} tokens; use a new --folder"
            raise UsageError(message)
    cases = [record["cases_sha256"] for record in records]
    check_same(cases, [str(out) for out in outs])
    lines = [(out / "answers.jsonl").read_bytes().splitlines() for out in outs]
    answers = [[orjson.loads(line)["answers"][0] for line in each] for each in lines]

    def matrix(value: Callable[[dict[str, Any]], float]) -> Matrix:
        return np.array([[value(answer) for answer in each] for each in answers], dtype=np.float64)

    return Asked(
        nats=matrix(lambda answer: answer["nats"]),
        tokens=matrix(lambda answer: answer["supervised_tokens"]),
        stopped=matrix(lambda answer: answer["finish_reason"] == "stop"),
        rouge_l=matrix(lambda answer: answer["rouge_l"]),
        cases=cases[0],
    )


def check_same(cases: Sequence[str], names: Sequence[str]) -> None:
    """Raise UsageError if the evaluations are of different tasks, so that they cannot be compared."""
    for name, each in zip(names, cases, strict=True):
        if each != cases[0]:
            message = f"{name} and {names[0]}: were asked different tasks; use a new --folder"
            raise UsageError(message)


def measure(asked: Asked, place: int) -> dict[str, Measure]:
    """Return loss, stop rate and ROUGE-L of an arm.

    Args:
        asked: results of the models of the arm.
        place: number of the arm. Each arm draws its own training seeds; the draws of tasks are the same for all.
    """
    seeds, tasks = asked.nats.shape
    of_tasks, of_seeds = np.random.default_rng(0), np.random.default_rng([1, place])
    times = np.array([np.bincount(of_tasks.integers(0, tasks, tasks), minlength=tasks) for _ in range(RESAMPLES)])
    # One fewer than there are, so that the variance of the resampled means is that of the mean, for any number of seeds
    # (Rao and Wu 1988, "Resampling inference with complex survey data").
    chosen = of_seeds.integers(0, seeds, (RESAMPLES, max(1, seeds - 1)))

    def share(part: Matrix, whole: Matrix) -> Measure:
        by_seed = (times @ part.T) / (times @ whole.T)  # (RESAMPLES, seeds)
        drawn = np.take_along_axis(by_seed, chosen, axis=1).mean(axis=1)
        each = part.sum(axis=1) / whole.sum(axis=1)
        return Measure(float(each.mean()), drawn, each.tolist())

    ones = np.ones_like(asked.nats)
    return {
        "loss": share(asked.nats, asked.tokens),
        "stop rate": share(asked.stopped, ones),
        "ROUGE-L": share(asked.rouge_l, ones),
    }


def make_table(asked: Mapping[str, Asked], sizes: Mapping[str, tuple[int, int]]) -> str:
    """Return the table of all models.

    Args:
        asked: results by name, those of the untuned model first.
        sizes: examples and trainable tokens of each arm.

    Raises:
        UsageError: the arms were asked different tasks.
    """
    names = list(asked)
    check_same([each.cases for each in asked.values()], names)
    measured = {name: measure(each, place) for place, (name, each) in enumerate(asked.items())}
    untuned, seeds = measured[names[0]], measured[SEEDS]
    rows = []
    for name, figures in measured.items():
        tuned = name in sizes
        examples, tokens = sizes.get(name, ("-", "-"))
        loss = figures["loss"]
        rows.append(
            [
                name,
                examples,
                tokens,
                loss,
                loss.less(untuned["loss"]) if tuned else "-",
                loss.less(seeds["loss"]) if tuned and name != SEEDS else "-",
                figures["stop rate"],
                figures["ROUGE-L"],
                ", ".join(f"{value:.3f}" for value in loss.by_seed) if tuned else "-",
            ]
        )
    return table(HEAD, rows)
