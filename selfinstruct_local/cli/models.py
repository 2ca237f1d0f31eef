"""`selfinstruct models`: prepares and lists the model folders in the cache."""

from pathlib import Path
from typing import Annotated, cast, get_args

import typer

from selfinstruct_local.cli.options import QuietOption, find_or_prepare, print_json

app = typer.Typer(help="Prepare local models, and list them.", no_args_is_help=True, rich_markup_mode=None)


@app.command()
def prepare(
    source: Annotated[
        Path | None,
        typer.Argument(
            help="GGUF file, or folder with pytorch_model*.bin or adapter_model.bin. "
            "[default: the embedded small model]"
        ),
    ] = None,
    name: Annotated[
        str | None, typer.Option(help="Name of the prepared model. [default: from the file or folder]")
    ] = None,
    dtype: Annotated[
        str | None,
        typer.Option(help="Precision of the weights of a GGUF file: float32, float16 or bfloat16. [default: float32]"),
    ] = None,
    *,
    quiet: QuietOption = False,
) -> None:
    """Convert a GGUF file, or pickle weights of a model or adapter, to safetensors for vLLM and transformers."""
    from selfinstruct_local import models
    from selfinstruct_local.errors import UsageError
    from selfinstruct_local.io.progress import stderr_console, waiting
    from selfinstruct_local.models.adapter import ADAPTER_PICKLE
    from selfinstruct_local.models.gguf import GgufDtype

    if source is not None and not source.exists():
        message = f"{source}: no such file; name a GGUF file or a folder with pytorch_model*.bin or adapter_model.bin"
        raise UsageError(message)
    if source is None and name is not None:
        message = f"--name {name}: needs a SOURCE; the embedded model has a fixed name"
        raise UsageError(message)
    if dtype is not None and (source is None or not source.is_file()):
        message = f"--dtype {dtype}: only for a GGUF file, other weights keep their dtype; remove it"
        raise UsageError(message)
    if dtype not in {None, *get_args(GgufDtype)}:
        message = f"--dtype {dtype}: use one of {', '.join(get_args(GgufDtype))}"
        raise UsageError(message)
    if source is None:
        typer.echo(find_or_prepare(None).path)
        return
    with waiting(stderr_console(), f"preparing {name or source} (once)"):
        if source.is_file():
            folder = models.prepare_gguf(
                source, name or source.stem.lower(), cast("GgufDtype", dtype or "float32")
            ).path
        elif (source / ADAPTER_PICKLE).is_file():
            folder = models.prepare_adapter(source, name)
        else:
            folder = models.prepare_pickle(source, name).path
    typer.echo(folder)


@app.command("list")
def list_(*, as_json: Annotated[bool, typer.Option("--json", help="Print JSON lines.")] = False) -> None:
    """Print the prepared models and adapters: name, architecture, context and folder."""
    from selfinstruct_local.errors import UsageError, one_line
    from selfinstruct_local.models import check_model_folder
    from selfinstruct_local.models.folder import NO_LIMIT, cache_folder, prepared_adapters, prepared_models

    names, adapters = prepared_models(), prepared_adapters()
    if not names and not adapters:
        typer.echo(f"no prepared models in {cache_folder()}; run 'selfinstruct models prepare'", err=True)
    for name in names:
        path = cache_folder() / name
        try:
            folder = check_model_folder(path)
        except UsageError as error:
            reason = str(error).removeprefix(f"--model {path}: ")
            if as_json:
                print_json({"name": name, "path": str(path), "error": reason})
            else:
                typer.echo("\t".join(map(one_line, (name, reason, str(path)))))
            continue
        context = None if folder.context == NO_LIMIT else folder.context
        if as_json:
            facts = {"architecture": folder.architecture, "context": context, "path": str(folder.path)}
            print_json({"name": name, **facts})
            continue
        # Tabs separate the columns, so each column is escaped separately.
        columns = (name, folder.architecture, f"{context} tokens" if context else "no limit", str(folder.path))
        typer.echo("\t".join(map(one_line, columns)))
    for name in adapters:
        place = str(cache_folder() / name)
        if as_json:
            print_json({"name": name, "adapter": True, "path": place})
        else:
            typer.echo("\t".join(map(one_line, (name, "LoRA adapter", "-", place))))
