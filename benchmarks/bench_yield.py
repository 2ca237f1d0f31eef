r"""Yield of models and profiles per generated token: one row per finished run, into RESULTS.md.

    python benchmarks/bench_yield.py RUN [RUN ...] [--write]

Create the runs one after the other, with --token-budget as their limit instead of --num:

    for profile in self-instruct alpaca magpie self-instruct-2022 alpaca-2023; do
        selfinstruct generate --run runs/yield-$profile --model MODEL --profile $profile \
            --num 100000 --patience 100000 --token-budget 20000 --window 16
    done

The small window lets a run of a few dozen jobs use its own tasks as few-shot examples; the default is for long runs.
Add `--lang zh` for Chinese. The same command resumes an interrupted run. To read and label a sample, use
`selfinstruct review make`.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

from finished_runs import FinishedRun, percent, read_runs, with_input
from rates import Interval, dispersion, median, poisson_rate
from results import table, write_section
from tokenizers import Tokenizer

from selfinstruct_local.errors import UserFacingError

TITLE = "Yield"
TOP = 5  # rules listed per run
HEAD = (
    "run",
    "model",
    "profile",
    "language",
    "jobs",
    "generated tokens",
    "of unfinished jobs",
    "accepted",
    "accepted per 1,000 tokens",
    "tokens inside accepted tasks",
    "instruction",
    "output",
    "with input",
    "classification",
    f"rejected, top {TOP} rules",
)
ABOUT = (
    "One row per finished run of `selfinstruct generate`. Generated tokens: all steps of the decided jobs, rejected "
    "tasks included. Jobs are decided in order; tokens that later jobs had generated when the budget was spent are in "
    "the next column and count nowhere else. Accepted: passes the rules, is novel, and has an instance. Intervals: "
    "95 %, Garwood's for a Poisson rate; if the variance of the accepted tasks per job is above their mean, tasks and "
    "tokens are divided by that ratio for the bounds. Inside accepted tasks: instructions, inputs and outputs by the "
    "model's tokenizer, as a share of the generated tokens. Instruction and output: median words (Chinese: "
    "characters). Shares are of the accepted tasks. `self-instruct-2022` also asks for the instances of near copies, "
    "which the published program does not."
)


def main() -> None:
    """Parse the options, read the runs, and print the section or write it to RESULTS.md."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="folders of finished runs")
    parser.add_argument("--write", action="store_true", help="write the section to RESULTS.md")
    options = parser.parse_args()
    try:
        report = make_report(read_runs(options.runs, may_be_running=not options.write))
    except UserFacingError as error:
        parser.error(str(error))
    if options.write:
        write_section(TITLE, report)
    else:
        print(f"## {TITLE}\n\n{report}")


def make_report(runs: Sequence[FinishedRun]) -> str:
    """Return the section of RESULTS.md."""
    return f"{ABOUT}\n\n{table(HEAD, [row(run) for run in runs])}"


def row(run: FinishedRun) -> list[object]:
    """Return the cells of a run's row."""
    accepted = run.accepted
    measure = len if run.lang == "zh" else _words
    rejected = list(run.totals.rejected.items())[:TOP]
    return [
        run.name,
        Path(str(run.facts.get("model_path") or "-")).name,
        f"`{run.facts.get('profile')}`",
        run.lang,
        f"{len(run.jobs):,}",
        f"{run.tokens:,}",
        f"{run.totals.completion_tokens - run.tokens:,}",
        f"{len(accepted):,}",
        rate(run),
        _inside(run),
        f"{median([measure(task.instruction) for task in accepted]):.3g}",
        f"{median([measure(task.output) for task in accepted]):.3g}",
        percent(with_input(accepted), len(accepted)),
        percent(sum(bool(task.is_classification) for task in accepted), len(accepted)),
        ", ".join(f"`{rule}` {count:,}" for rule, count in rejected) or "-",
    ]


def rate(run: FinishedRun) -> Interval:
    """Return accepted tasks per 1,000 generated tokens of the decided jobs."""
    counts = [job.accepted for job in run.jobs]
    # Tasks of one job are not independent: with a variance of c times the mean, n of them count as n / c.
    scale = max(1.0, dispersion(counts))
    exposure = run.tokens / 1000
    return poisson_rate(sum(counts), exposure, scale)


def _inside(run: FinishedRun) -> str:
    """Return the share of the generated tokens inside accepted tasks; `-` if the tokenizer is missing."""
    file = Path(str(run.facts.get("model_path"))) / "tokenizer.json"
    if not file.is_file():
        return "-"
    tokenizer = Tokenizer.from_file(str(file))
    texts = [task.instruction for task in run.accepted]
    texts += [text for task in run.accepted for case in task.instances for text in case]
    inside = sum(len(tokenizer.encode(text, add_special_tokens=False).ids) for text in texts)
    return percent(inside, run.tokens)


def _words(text: str) -> int:
    return len(text.split())


if __name__ == "__main__":
    main()
