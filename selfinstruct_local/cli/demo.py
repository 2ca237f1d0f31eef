"""`selfinstruct demo`."""

import shlex
from pathlib import Path
from typing import Annotated

import typer

from selfinstruct_local.cli.options import DryRunOption, QuietOption


def demo(
    run: Annotated[Path, typer.Option(help="Folder of the demo run.")] = Path("runs/demo"),
    num: Annotated[int, typer.Option(min=1, help="Number of tasks to generate.")] = 12,
    *,
    dry_run: DryRunOption = False,
    quiet: QuietOption = False,
) -> None:
    """Run the whole pipeline on the embedded model: generate, filter, train, and chat before and after."""
    from selfinstruct_local.cli.demo_run import run_demo, steps

    if not dry_run:
        run_demo(run, num)
        return
    for step in steps(run, num):
        typer.echo(f"selfinstruct {shlex.join(map(str, step))}")
