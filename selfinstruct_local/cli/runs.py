"""`selfinstruct runs`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from collections.abc import Mapping

    from selfinstruct_local.runs.summary import RunSummary

app = typer.Typer(help="Inspect runs, and create a run from the output of another program.", no_args_is_help=True)


@app.command("list")
def list_(
    folder: Annotated[Path, typer.Argument(help="Folder of runs, searched recursively.")] = Path("runs"),
    *,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON lines.")] = False,
) -> None:
    """List the runs in a folder, with their counts and state."""
    from selfinstruct_local.errors import UsageError, UserFacingError, one_line
    from selfinstruct_local.runs.summary import find_runs, summarize

    if not folder.is_dir():
        message = f"{folder}: no such folder; name a folder of runs"
        raise UsageError(message)
    for run in find_runs(folder):
        try:
            summary = summarize(run)
        except UserFacingError as error:
            reason = str(error).removeprefix(f"--run {run}: ")
            if as_json:
                _print_json({"run": str(run), "error": reason}, indent=False)
            else:
                typer.echo(one_line(f"{run.relative_to(folder)}  {reason}"))
            continue
        if as_json:
            _print_json(summary._asdict(), indent=False)
        else:
            typer.echo(one_line(_line(run.relative_to(folder), summary)))


@app.command("show")
def show(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="Folder of the run.")],
    *,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Show the settings of a run, its accepted and rejected tasks, and how its sessions ended."""
    from selfinstruct_local.errors import one_line
    from selfinstruct_local.runs.summary import summarize

    summary = summarize(run)
    if as_json:
        _print_json(summary._asdict(), indent=True)
        return
    for title, rows in summary.tables():
        typer.echo(one_line(title))
        width = max((len(name) for name, _ in rows), default=0)
        for name, value in rows:
            typer.echo(one_line(f"  {name:<{width}}  {value}"))


@app.command("import")
def import_(
    file: Annotated[
        Path,
        typer.Argument(
            help="File of tasks, such as regen.json or machine_generated_instances.jsonl of the published programs."
        ),
    ],
    *,
    run: Annotated[Path, typer.Option(help="Folder of the new run.")],
) -> None:
    """Create a run whose pool is the output of another program; 'selfinstruct generate' continues from it."""
    from selfinstruct_local.generate.create import import_tasks
    from selfinstruct_local.io.progress import stderr_console
    from selfinstruct_local.runs.store import RunStore

    with RunStore(run) as store:
        tasks, bare = import_tasks(store, file)
    if bare:
        console = stderr_console()
        console.print(
            f"{bare} tasks are bare instructions: the novelty filter sees them, and profile 'self-instruct-2022'"
        )
        console.print("(generate --profile self-instruct-2022) has them as few-shot examples; exports leave them out")
    typer.echo(f"{tasks} tasks: {run}")


def _line(name: Path, summary: "RunSummary") -> str:
    totals = summary.totals
    facts = summary.facts
    model = Path(str(facts.get("model_path", "?"))).name
    return (
        f"{name}  {facts.get('profile', 'imported')}  {model}  {totals.accepted} tasks  {totals.jobs} jobs  "
        f"{totals.completion_tokens} tokens  {summary.state}"
    )


def _print_json(record: "Mapping[str, Any]", *, indent: bool) -> None:
    import orjson

    option = orjson.OPT_INDENT_2 if indent else 0
    typer.echo(orjson.dumps(record, option=option, default=lambda each: each._asdict()).decode())
