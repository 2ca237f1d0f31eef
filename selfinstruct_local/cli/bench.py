"""`selfinstruct bench`: measures speed on this machine."""

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(help="Measure speed on this machine.", no_args_is_help=True, rich_markup_mode=None)


@app.callback()
def _group() -> None:
    """Make typer keep `filter` as a subcommand, although it is the only one."""


@app.command("filter")
def filter_(
    *,
    corpus: Annotated[
        Path | None, typer.Option(help="File of tasks to measure on. [default: the built-in seeds]")
    ] = None,
    threshold: Annotated[float, typer.Option(help="ROUGE-L F above which an instruction is a near copy.")] = 0.7,
    as_json: Annotated[bool, typer.Option("--json", help="Print the timings as JSON.")] = False,
) -> None:
    """Time the novelty filter against the comparison of all pairs, and compare their decisions."""
    from selfinstruct_local.errors import UsageError
    from selfinstruct_local.io.reader import read_tasks
    from selfinstruct_local.seeds import seed_file

    if not 0 < threshold <= 1:
        message = f"--threshold {threshold}: use a value above 0 and at most 1"
        raise UsageError(message)
    texts = [task.instruction for task in read_tasks(corpus or seed_file())]

    from selfinstruct_local.cli.bench_run import bench_filter  # imports numba

    result = bench_filter(texts, threshold)
    if as_json:
        import orjson

        typer.echo(orjson.dumps(result.as_record()).decode())
        return
    typer.echo(
        f"{result.texts} texts, {result.tokens} tokens, {result.kept} kept at ROUGE-L threshold {threshold}; one thread"
    )
    for timing in result.timings:
        mark = " (extrapolated)" if timing.extrapolated else ""
        typer.echo(f"{timing.seconds:>12.4f} s  {timing.name}{mark}{f': {timing.note}' if timing.note else ''}")
