"""`selfinstruct merge`."""

from pathlib import Path
from typing import Annotated

import typer

from selfinstruct_local.cli.options import ModelOption, find_or_prepare


def merge(
    *,
    adapter: Annotated[Path, typer.Option(help="Folder that 'selfinstruct train' wrote.")],
    out: Annotated[Path, typer.Option(help="New folder for the whole model.")],
    model: ModelOption = None,
) -> None:
    """Fold an adapter into its base: a folder of safetensors that vLLM serves like any model."""
    from selfinstruct_local.errors import WrongUseError
    from selfinstruct_local.files import check_writable_folder
    from selfinstruct_local.models.adapter import check_adapter
    from selfinstruct_local.progress import stderr_console, waiting

    check_adapter(adapter)
    if out.exists() and any(out.iterdir()):
        message = f"--out {out}: is not empty; name a new folder"
        raise WrongUseError(message)
    folder = find_or_prepare(model)
    check_writable_folder(out, "--out")
    with waiting(stderr_console(), f"merging {adapter} into {folder.path.name}"):
        from selfinstruct_local.train.merge import merge as merge_adapter

        merge_adapter(folder, adapter, out)
    typer.echo(out)
