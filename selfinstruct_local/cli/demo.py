"""`selfinstruct demo`."""

from pathlib import Path
from typing import Annotated

import typer


def demo(
    run: Annotated[Path, typer.Option(help="Folder of the demo.")] = Path("runs/demo"),
    num: Annotated[int, typer.Option(min=1, help="Tasks to generate.")] = 12,
) -> None:
    """Do the main job on the embedded model: generate, filter, train, and ask before and after."""
    from selfinstruct_local.demo import run_demo

    run_demo(run, num)
