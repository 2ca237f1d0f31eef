"""`selfinstruct train`."""

import csv
import sys
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from selfinstruct_local.cli.choices import BATCHINGS, METHODS, OVERLONG, PRESETS, TEMPLATES, completing
from selfinstruct_local.cli.options import (
    ConfigOption,
    JsonOption,
    ModelOption,
    QuietOption,
    find_or_prepare,
    print_json,
    refuse_json_of_nothing,
)

if TYPE_CHECKING:
    from rich.console import Console

    from selfinstruct_local.models import ModelFolder
    from selfinstruct_local.train.data import TrainingData
    from selfinstruct_local.train.folder import TrainingFolder
    from selfinstruct_local.train.result import TrainingResult
    from selfinstruct_local.train.settings import TrainSettings
    from selfinstruct_local.train.sources import Dropped, TrainingSample


def train(
    context: typer.Context,
    *,
    data: Annotated[
        list[str],
        typer.Option(
            help="File of tasks or conversations, or run folder; PATH:WEIGHT sets the share to use. May be repeated."
        ),
    ],
    out: Annotated[Path | None, typer.Option(help="Folder for the adapter or the model.")] = None,
    model: ModelOption = None,
    preset: Annotated[
        str | None,
        typer.Option(
            help="Preset of settings: alpaca-7b, lora-7b, qlora-7b or demo-cpu.", autocompletion=completing(PRESETS)
        ),
    ] = None,
    config: ConfigOption = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Audit and plan only, without training.")] = False,
    nproc: Annotated[
        int, typer.Option(min=1, help="Processes on this machine, one per GPU; use torchrun for several machines.")
    ] = 1,
    method: Annotated[
        str | None,
        typer.Option(
            help="Fine-tuning method: lora, qlora or full. [default: lora]", autocompletion=completing(METHODS)
        ),
    ] = None,
    epochs: Annotated[float | None, typer.Option(help="Number of epochs. [default: 3]")] = None,
    max_steps: Annotated[int | None, typer.Option(help="Maximum optimizer steps. [default: by epochs]")] = None,
    batch_size: Annotated[int | None, typer.Option(help="Examples per forward pass and device. [default: 4]")] = None,
    gradient_accumulation: Annotated[
        int | None, typer.Option(help="Forward passes per optimizer step. [default: 1]")
    ] = None,
    global_batch_size: Annotated[
        int | None,
        typer.Option(help="Examples per optimizer step over all devices. [default: from the two options before]"),
    ] = None,
    learning_rate: Annotated[float | None, typer.Option(help="Peak learning rate. [default: 0.0003]")] = None,
    warmup_ratio: Annotated[float | None, typer.Option(help="Share of warm-up steps. [default: 0.03]")] = None,
    template: Annotated[
        str | None,
        typer.Option(
            help="Prompt template: alpaca, or chat for the model's chat template. [default: alpaca]",
            autocompletion=completing(TEMPLATES),
        ),
    ] = None,
    max_length: Annotated[int | None, typer.Option(help="Maximum tokens per example. [default: 512]")] = None,
    overlong: Annotated[
        str | None,
        typer.Option(
            help="Handling of longer examples: drop, or truncate the response. [default: drop]",
            autocompletion=completing(OVERLONG),
        ),
    ] = None,
    train_on_prompt: Annotated[
        bool | None, typer.Option("--train-on-prompt", help="Loss on prompt tokens too.")
    ] = None,
    batching: Annotated[
        str | None,
        typer.Option(
            help="Batching: padding-free, padded or packed. [default: padding-free]",
            autocompletion=completing(BATCHINGS),
        ),
    ] = None,
    validation: Annotated[
        float | None, typer.Option(help="Share of examples held out for the validation loss. [default: 0]")
    ] = None,
    pad_vocab_to: Annotated[
        int | None, typer.Option(help="Multiple to which the embeddings are enlarged. [default: unchanged]")
    ] = None,
    lora_r: Annotated[int | None, typer.Option(help="LoRA rank. [default: 8]")] = None,
    lora_alpha: Annotated[int | None, typer.Option(help="LoRA scaling factor alpha. [default: 16]")] = None,
    lora_dropout: Annotated[float | None, typer.Option(help="LoRA dropout. [default: 0.05]")] = None,
    gradient_checkpointing: Annotated[
        bool | None, typer.Option(help="Recomputation of activations in the backward pass. [default: on GPUs]")
    ] = None,
    fsdp: Annotated[
        bool | None,
        typer.Option(
            help="Sharding of weights, gradients and optimizer states over processes. [default: the preset's]"
        ),
    ] = None,
    max_dropped: Annotated[float | None, typer.Option(help="Maximum share of dropped samples. [default: 0.2]")] = None,
    save_steps: Annotated[
        int | None, typer.Option(help="Optimizer steps between checkpoints. [default: an epoch]")
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Random seed. [default: 0]")] = None,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Fine-tune a model on tasks, after an audit of the data. Re-run the same command to resume."""
    from selfinstruct_local.errors import UsageError
    from selfinstruct_local.io.files import check_writable_folder
    from selfinstruct_local.io.progress import stderr_console, waiting
    from selfinstruct_local.train.processes import are_started, is_first, start, world_size
    from selfinstruct_local.train.settings import load_train_settings
    from selfinstruct_local.train.sources import DataSource, read_sources

    refuse_json_of_nothing(as_json=as_json, dry_run=dry_run)
    settings = load_train_settings(preset, config, context.params)
    if out is None and not dry_run:
        message = "--out is missing: name a folder for the adapter or the model; only --dry-run works without it"
        raise UsageError(message)
    processes = world_size() if are_started() else nproc
    starts_others = processes > 1 and not are_started() and not dry_run
    console = stderr_console()
    # The plan is the result of a dry run, so --quiet does not hide it.
    console.quiet = not dry_run and (console.quiet or starts_others or not is_first())
    samples = read_sources([DataSource.parse(each) for each in data], settings.seed)
    # A plan for 7B does not need the weights.
    folder = None if dry_run and model is None else find_or_prepare(model)
    audited = None
    if folder is not None:
        if out is not None:
            check_writable_folder(out, "--out")
        with waiting(console, f"reading {folder.path.name}"):
            audited = _audit(samples, folder, settings, console, verbose=dry_run)
    else:
        console.print("audit skipped: without --model there is no tokenizer to count tokens")
        _show_dropped(samples, console)
    if dry_run:
        _show_plan(folder, settings, samples, audited, processes, console)
    elif folder is not None and out is not None and audited is not None:
        with waiting(console, f"loading {folder.path.name}"):
            from selfinstruct_local.train.folder import open_folder
            from selfinstruct_local.train.trainer import check_machine, count_idle_gpus
        check_machine(settings, processes)
        if idle := count_idle_gpus(processes):
            console.print(f"{idle} GPUs of this machine are idle; a larger --nproc uses more of them")
        opened = open_folder(out, audited, folder, settings, processes)
        _say_what_learns(folder, settings, console)
        if starts_others:  # errors are reported once by now, not once per process
            raise typer.Exit(start(sys.argv[1:], processes))
        _train(audited, folder, opened, settings, console, as_json=as_json)


def _show_dropped(samples: "list[TrainingSample | Dropped]", console: "Console") -> None:
    """Print how many records were dropped, per reason.

    Raises:
        UsageError: no sample is left.
    """
    from selfinstruct_local.errors import UsageError
    from selfinstruct_local.train.sources import Dropped

    dropped = Counter(each.reason for each in samples if isinstance(each, Dropped))
    if dropped.total() == len(samples):
        reasons = ", ".join(f"{count} {reason}" for reason, count in dropped.items())
        message = f"--data: no example is left to train on ({reasons or 'no tasks'}); name other data"
        raise UsageError(message)
    for reason, count in dropped.items():
        console.print(f"  dropped {count:,}: {reason}", markup=False, highlight=False)


def _audit(
    samples: "list[TrainingSample | Dropped]",
    folder: "ModelFolder",
    settings: "TrainSettings",
    console: "Console",
    *,
    verbose: bool,
) -> "TrainingData":
    """Return the examples after the audit has passed; raises as `examine` and `Audit.check` do."""
    from selfinstruct_local.train.audit import examine

    data, audit = examine(samples, folder, settings)
    for line in [*audit.describe(), *(audit.describe_samples() if verbose else ())]:
        console.print(line, markup=False, highlight=False)
    audit.check(settings)
    return data


def _show_plan(
    folder: "ModelFolder | None",
    settings: "TrainSettings",
    samples: "list[TrainingSample | Dropped]",
    data: "TrainingData | None",
    devices: int,
    console: "Console",
) -> None:
    from selfinstruct_local.train.network_size import llama_7b, read_config
    from selfinstruct_local.train.plan import describe, make_plan
    from selfinstruct_local.train.sources import TrainingSample

    config = llama_7b() if folder is None else read_config(folder.load_path)
    plan = make_plan(
        config,
        settings,
        tokens_per_example=[len(each.input_ids) for each in data.examples] if data else None,
        supervised_tokens=[each.supervised for each in data.examples] if data else None,
        examples=len(data.examples) if data else sum(isinstance(each, TrainingSample) for each in samples),
        devices=devices,
        # The plan is for this machine if there is a model folder, else for the machine that will have one.
        on_gpu=folder is None or _has_gpu(),
    )
    for line in describe(plan):
        console.print(line, markup=False, highlight=False)


def _say_what_learns(folder: "ModelFolder", settings: "TrainSettings", console: "Console") -> None:
    from selfinstruct_local.train.network_size import describe_lora, read_config, size_of

    if told := describe_lora(size_of(read_config(folder.load_path), settings), settings):
        console.print(told, markup=False, highlight=False)


def _has_gpu() -> bool:
    import torch

    return torch.cuda.is_available()


def _train(
    data: "TrainingData",
    model: "ModelFolder",
    folder: "TrainingFolder",
    settings: "TrainSettings",
    console: "Console",
    *,
    as_json: bool,
) -> None:
    """Train with a progress display and report; the folder, or the result as JSON, is printed on stdout.

    Raises:
        Exit: a signal ended the training, with code 130 or 143.
    """
    from selfinstruct_local.io.interrupt import SIGNAL_EXIT, interruptible
    from selfinstruct_local.io.progress import format_seconds
    from selfinstruct_local.train.display import TrainingDisplay
    from selfinstruct_local.train.processes import echo_seconds
    from selfinstruct_local.train.result import describe_rise
    from selfinstruct_local.train.trainer import train

    if folder.is_done:
        console.print("already done; name another --out to train again")
        _print_outcome(folder.path, None, as_json=as_json)
        return
    for checkpoint in folder.checkpoints:
        if checkpoint.fault:
            console.print(f"skipped {checkpoint.folder.name}: {checkpoint.fault}", markup=False)
        else:
            console.print(f"resuming after step {checkpoint.step}")
    display = TrainingDisplay(console)
    with interruptible(echo_seconds()) as interrupt:
        result = train(data, model, folder, settings, interrupt=interrupt, callbacks=[display], tell=display.tell)
    console.print(
        f"{len(data.examples)} examples, {data.supervised_tokens} trainable tokens; "
        f"{len(result.losses)} steps, {format_seconds(result.seconds)} in this session"
    )
    losses = " -> ".join(f"{loss:.3f}" for loss in result.epoch_losses)
    console.print(f"mean loss by epoch: {losses}")
    if result.rise:
        console.print(describe_rise(*result.rise))
    if result.validation:
        console.print(f"validation loss: {' -> '.join(f'{loss:.3f}' for _, loss in result.validation)}")
    _print_outcome(folder.path, result, as_json=as_json)
    if not result.finished:
        console.print("interrupted by a signal; a checkpoint is saved: re-run the same command to resume")
        raise typer.Exit(SIGNAL_EXIT + (interrupt.signum or 0))


def _print_outcome(folder: Path, result: "TrainingResult | None", *, as_json: bool) -> None:
    """Print the folder if training is done, or the result as JSON; None means done before this session."""
    from selfinstruct_local.train.curve import TABLE
    from selfinstruct_local.train.processes import is_first

    if not is_first():
        return
    if not as_json:
        if result is None or result.finished:
            typer.echo(folder)
        return
    record: dict[str, Any] = {"folder": str(folder), "finished": True}
    if (folder / TABLE).is_file():  # the user may have deleted it since
        with (folder / TABLE).open(encoding="utf-8", newline="") as stream:
            losses = [[int(row["step"]), float(row["epoch"]), float(row["loss"])] for row in csv.DictReader(stream)]
        record |= {"steps": len(losses), "losses": losses}
    if result is not None:
        record |= {
            "finished": result.finished,
            "epoch_losses": result.epoch_losses,
            "validation": result.validation,
            "examples": len(result.data.examples),
            "supervised_tokens": result.data.supervised_tokens,
            "seconds": round(result.seconds, 3),
        }
    print_json(record)
