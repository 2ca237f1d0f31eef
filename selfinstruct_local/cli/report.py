"""`selfinstruct report`."""

from pathlib import Path
from typing import Annotated

import typer

from selfinstruct_local.cli.options import QuietOption


def report(
    sources: Annotated[
        list[Path], typer.Argument(metavar="RUN|FILE...", help="Runs, or files of tasks: JSONL, a JSON array, Parquet.")
    ],
    *,
    out: Annotated[Path, typer.Option(help="HTML file to write.")],
    seeds: Annotated[
        Path | None,
        typer.Option(
            help="Seeds to compare with. [default: those of the run, or the built-in ones in the file's language]"
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the statistics of the page as JSON.")] = False,
    quiet: QuietOption = False,
) -> None:
    """Write an HTML page that shows the contents of runs and files of tasks side by side, and what was rejected."""
    from selfinstruct_local.io.progress import stderr_console
    from selfinstruct_local.report.make import make_report  # imports numba

    figures = make_report(sources, out, seeds, stderr_console())
    if as_json:
        import orjson

        record = {"out": str(out), "sources": [each.as_record() for each in figures]}
        typer.echo(orjson.dumps(record, option=orjson.OPT_INDENT_2).decode())
    else:
        typer.echo(out)
