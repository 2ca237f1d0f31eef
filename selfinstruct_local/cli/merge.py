"""`selfinstruct merge`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from selfinstruct_local.cli.options import (
    DryRunOption,
    JsonOption,
    ModelOption,
    QuietOption,
    print_json,
    refuse_json_of_nothing,
)

if TYPE_CHECKING:
    from selfinstruct_local.models import ModelFolder


def merge(
    *,
    adapter: Annotated[
        Path, typer.Option(help="Adapter folder of 'selfinstruct train'. Without --model, the adapter names the base.")
    ],
    out: Annotated[Path, typer.Option(help="New folder for the merged model.")],
    model: ModelOption = None,
    dry_run: DryRunOption = False,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Merge an adapter into its base model: the result is a safetensors folder that vLLM can serve."""
    from selfinstruct_local.errors import UsageError
    from selfinstruct_local.io.files import check_writable_folder
    from selfinstruct_local.io.progress import stderr_console, waiting
    from selfinstruct_local.models.adapter import base_of

    refuse_json_of_nothing(as_json=as_json, dry_run=dry_run)
    folder = base_of(adapter, model, enlarges=True)
    if out.exists() and any(out.iterdir()):
        message = f"--out {out}: is not empty; name a new folder"
        raise UsageError(message)
    if dry_run:
        _show_plan(folder, adapter, out)
        return
    check_writable_folder(out, "--out")
    with waiting(stderr_console(), f"merging {adapter} into {folder.path.name}"):
        from selfinstruct_local.train.merge import merge as merge_adapter

        merge_adapter(folder, adapter, out)
    if as_json:
        print_json({"folder": str(out), "adapter": str(adapter), "base": str(folder.path)})
    else:
        typer.echo(out)


def _show_plan(folder: "ModelFolder", adapter: Path, out: Path) -> None:
    """Print what would be merged.

    Raises:
        UsageError: the folder could not be created.
    """
    from selfinstruct_local.cli.dry_run import check_could_be_made, print_facts

    check_could_be_made(out, "--out")
    print_facts([("adapter", adapter), ("base", folder.path), ("out", f"{out}, new")])
