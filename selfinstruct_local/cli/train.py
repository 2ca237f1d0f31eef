"""`selfinstruct train`."""

from pathlib import Path
from typing import Annotated

import typer

from selfinstruct_local.cli.options import ConfigOption, find_or_prepare


def train(
    context: typer.Context,
    *,
    data: Annotated[list[Path], typer.Option(help="File of tasks (alpaca or seed format); may be repeated.")],
    out: Annotated[Path, typer.Option(help="Folder for the adapter.")],
    model: Annotated[
        str | None,
        typer.Option(
            help="Local Hugging Face folder, or the name of a prepared model. Left out: the embedded small one."
        ),
    ] = None,
    config: ConfigOption = None,
    epochs: Annotated[float | None, typer.Option(help="Passes over the data. [default: 3]")] = None,
    max_steps: Annotated[int | None, typer.Option(help="Steps to stop at. [default: by epochs]")] = None,
    batch_size: Annotated[int | None, typer.Option(help="Examples in a forward pass. [default: 4]")] = None,
    gradient_accumulation: Annotated[int | None, typer.Option(help="Forward passes in a step. [default: 1]")] = None,
    learning_rate: Annotated[float | None, typer.Option(help="Peak rate. [default: 0.0003]")] = None,
    warmup_ratio: Annotated[float | None, typer.Option(help="Share of warm-up steps. [default: 0.03]")] = None,
    max_length: Annotated[
        int | None, typer.Option(help="Tokens of an example; longer ones are dropped. [default: 512]")
    ] = None,
    lora_r: Annotated[int | None, typer.Option(help="LoRA rank. [default: 8]")] = None,
    lora_alpha: Annotated[int | None, typer.Option(help="LoRA scale. [default: 16]")] = None,
    lora_dropout: Annotated[float | None, typer.Option(help="LoRA dropout. [default: 0.05]")] = None,
    seed: Annotated[int | None, typer.Option(help="Of all random choices. [default: 0]")] = None,
) -> None:
    """Fine-tune a model with LoRA on files of tasks; the loss is on the response only."""
    from selfinstruct_local.config import TrainSettings, load_settings
    from selfinstruct_local.files import check_writable_folder
    from selfinstruct_local.progress import format_seconds, stderr_console, waiting
    from selfinstruct_local.taskfiles import read_tasks

    settings = load_settings(TrainSettings, config, context.params)
    tasks = [task for path in data for task in read_tasks(path)]
    folder = find_or_prepare(model)
    check_writable_folder(out, "--out")

    console = stderr_console()
    with waiting(console, f"loading {folder.path.name}"):
        from selfinstruct_local.train.display import TrainingDisplay
        from selfinstruct_local.train.lora import train_lora
    result = train_lora(tasks, folder, out, settings, callbacks=[TrainingDisplay(console)])
    dropped = "".join(f", {count} dropped ({reason})" for reason, count in result.data.dropped.items())
    console.print(
        f"{len(result.data.examples)} examples, {result.data.supervised_tokens} supervised tokens{dropped}; "
        f"{len(result.losses)} steps in {format_seconds(result.seconds)}"
    )
    losses = " -> ".join(f"{loss:.3f}" for loss in result.epoch_losses)
    console.print(f"mean loss by epoch: {losses}")
    typer.echo(out)
