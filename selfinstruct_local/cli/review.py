"""`selfinstruct review`: writes a page for blind reading of a sample, and scores its labels."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

import typer

from selfinstruct_local.cli.choices import REVIEW_PER, check_choice, completing
from selfinstruct_local.cli.options import JsonOption, QuietOption, print_json

if TYPE_CHECKING:
    from selfinstruct_local.report.review.sample import Per

app = typer.Typer(
    help="Blind reading of a sample of tasks: make the page, score the labels.",
    no_args_is_help=True,
    rich_markup_mode=None,
)


@app.command()
def make(
    sources: Annotated[
        list[Path],
        typer.Argument(metavar="RUN|FILE...", help="Runs, or files of tasks or rejects: JSONL, a JSON array, Parquet."),
    ],
    *,
    out: Annotated[Path, typer.Option(help="HTML file to write. Its key is written next to it, as NAME.key.json.")],
    sample: Annotated[int, typer.Option(min=1, help="Number of tasks to sample.")] = 50,
    per: Annotated[
        str,
        typer.Option(
            help="Unit of --sample: tasks per sample, per source or per rule.",
            autocompletion=completing(REVIEW_PER),
        ),
    ] = "sample",
    seed: Annotated[int, typer.Option(min=0, max=2**63 - 1, help="Random seed.")] = 0,
    accepted: Annotated[
        bool, typer.Option("--accepted", help="Sampling of accepted tasks. [default: unless --rejected is given]")
    ] = False,
    rejected: Annotated[
        bool, typer.Option("--rejected", help="Sampling of rejected tasks. [default: from files, not from runs]")
    ] = False,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Write a stratified sample to an HTML page that asks three questions per task and hides the sources."""
    check_choice("--per", per, REVIEW_PER)
    from selfinstruct_local.io.progress import stderr_console
    from selfinstruct_local.report.review.make import make_review  # imports numba

    console = stderr_console()
    made = make_review(
        sources, out, sample, seed, console, per=cast("Per", per), accepted=accepted or None, rejected=rejected or None
    )
    console.print(f"{made.drawn} of {made.tasks} tasks; key: {made.key}")
    if made.left_out:
        console.print(f"{made.left_out} strata have no task in the sample; a larger --sample includes them")
    if as_json:
        print_json({**made._asdict(), "page": str(made.page), "key": str(made.key)})
    else:
        typer.echo(out)


@app.command()
def score(
    labels: Annotated[
        list[Path], typer.Argument(metavar="LABELS...", help="Label files that the page saved, one per reader.")
    ],
    *,
    key: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Key of the page, needed for scores by source and rule.")
    ] = None,
    run: Annotated[
        Path | None, typer.Option(help="Run that stores the scores of its accepted tasks, for its card and report.")
    ] = None,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Print the shares of yes with 95 % intervals, and the agreement of the readers."""
    from selfinstruct_local.io.progress import stderr_console
    from selfinstruct_local.report.review.score import score_review
    from selfinstruct_local.report.review.tables import lines

    scores = score_review(labels, key, run)
    if run:
        stderr_console().print(f"stored in {run}; 'selfinstruct export' and 'selfinstruct report' show the scores")
    if as_json:
        print_json(scores.record())
    else:
        typer.echo("\n".join(lines(scores)))
