"""`selfinstruct export`."""

from pathlib import Path
from typing import Annotated

import typer

from selfinstruct_local.cli.choices import FORMATS, completing
from selfinstruct_local.cli.options import JsonOption, QuietOption, print_json


def export(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="Folder of the run.")],
    *,
    out: Annotated[Path, typer.Option(help="File to write: .json for a JSON array, .parquet for Parquet, else JSONL.")],
    format_: Annotated[
        str,
        typer.Option(
            "--format",
            help="Record format: alpaca, regen, self-instruct, sharegpt, messages or prompt-completion.",
            autocompletion=completing(FORMATS),
        ),
    ] = "alpaca",
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Write the accepted tasks of a run in the format of a trainer or of the published programs."""
    from selfinstruct_local.io.progress import counting, stderr_console
    from selfinstruct_local.runs.export.write import check_format, export_run
    from selfinstruct_local.runs.store import RunStore

    check_format(format_, out)
    console = stderr_console()
    with RunStore(run, read_only=True) as store, counting(console, "exporting") as advance:
        exported = export_run(store, format_, out, advance)
    console.print(f"{exported.records} records of {exported.tasks} tasks, format {format_}; card: {exported.card}")
    if exported.bare:
        console.print(f"{exported.bare} tasks left out: instructions without an output")
    if as_json:
        print_json({**exported._asdict(), "file": str(out), "card": str(exported.card), "format": format_})
    else:
        typer.echo(out)
