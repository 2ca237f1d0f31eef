"""Fine-tuning on transformers' Trainer and PEFT: from examples to a model or an adapter, killed and resumed at will.

What it leaves in the output folder is told in `folder.py`.
"""

import logging
import os
import warnings
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from selfinstruct_local.errors import UsageError
from selfinstruct_local.io.interrupt import Interrupt
from selfinstruct_local.models import ModelFolder
from selfinstruct_local.train import curve
from selfinstruct_local.train.batches import PaddedCollator, PaddingFreeCollator, pack
from selfinstruct_local.train.card import write_card
from selfinstruct_local.train.data import TrainingData, answer_end
from selfinstruct_local.train.folder import TrainingFolder
from selfinstruct_local.train.network import check_savable, end_with, load_network
from selfinstruct_local.train.processes import is_first, world_size
from selfinstruct_local.train.result import TrainingResult
from selfinstruct_local.train.separation import separates_examples
from selfinstruct_local.train.settings import TrainSettings

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase, Trainer, TrainerCallback, TrainingArguments

Tell = Callable[[str], None]  # takes a line for the person at the terminal


def load_tokenizer(model: ModelFolder) -> "PreTrainedTokenizerBase":
    """The tokenizer of a model.

    Raises:
        UsageError: the training libraries are missing, or the folder's tokenizer cannot be loaded.
    """
    quieten()
    try:
        from transformers import AutoTokenizer
    except ImportError as error:
        message = f"training needs '{error.name}', which is missing; install this package with its extra 'train'"
        raise UsageError(message) from error
    try:
        return AutoTokenizer.from_pretrained(model.load_path, local_files_only=True)
    except Exception as error:  # broken files end in errors of every kind, some of them raised by Rust as Exception
        message = f"{model.path}: its tokenizer cannot be loaded ({str(error).splitlines()[0]}); copy its files again"
        raise UsageError(message) from error


def train(
    data: TrainingData,
    model: ModelFolder,
    folder: TrainingFolder,
    settings: TrainSettings,
    *,
    interrupt: Interrupt | None = None,
    callbacks: "Sequence[TrainerCallback]" = (),
    tell: Tell = lambda _: None,
) -> TrainingResult:
    """Tunes `model`, from the last whole checkpoint in `folder` if there is one.

    Args:
        data: the examples.
        model: the base.
        folder: what `open_folder` gave for the same data, model and settings.
        settings: see `TrainSettings`.
        interrupt: asked after each step; a signal ends the training with a checkpoint.
        callbacks: told of every step, for a display.
        tell: told, in a line each, what is done otherwise than asked.

    Raises:
        UsageError: the settings ask for what this machine has not, or another process trains in the folder.
        OutOfMemoryError: the memory does not hold the model or a step; the line names the flags to change.
        RunError: the model was to be sharded and cannot be, or a loss, gradient or weight is not finite.
    """
    quieten()
    check_machine(settings, world_size())
    with folder.held():
        folder.note_begin()
        stopping = interrupt or Interrupt()
        return _train(data, model, folder, settings, interrupt=stopping, callbacks=callbacks, tell=tell)


def _train(
    data: TrainingData,
    model: ModelFolder,
    folder: TrainingFolder,
    settings: TrainSettings,
    *,
    interrupt: Interrupt,
    callbacks: "Sequence[TrainerCallback]",
    tell: Tell,
) -> TrainingResult:
    from selfinstruct_local.train.callbacks import Stopping
    from selfinstruct_local.train.out_of_memory import naming_flags

    start = folder.start
    stopping = Stopping(interrupt)
    with naming_flags(settings):
        trainer = _make_trainer(data, model, folder, settings, callbacks=[stopping, *callbacks], tell=tell)
        outcome = trainer.train(resume_from_checkpoint=str(start.folder) if start else None)
    history = trainer.state.log_history
    result = TrainingResult(
        folder.path,
        data,
        [(int(each["step"]), float(each["epoch"]), float(each["loss"])) for each in history if "loss" in each],
        [(int(each["step"]), float(each["eval_loss"])) for each in history if "eval_loss" in each],
        outcome.metrics["train_runtime"],
        not stopping.stopped,
    )
    if is_first():
        curve.write_table(folder.path, history)
        curve.plot(folder.path, [(step, loss) for step, _, loss in result.losses], result.validation)
    if result.finished:
        trainer.save_model(str(folder.path))
        if is_first():
            write_card(folder.path, folder.facts, result)
        folder.note_end()
    return result


def _make_trainer(
    data: TrainingData,
    model: ModelFolder,
    folder: TrainingFolder,
    settings: TrainSettings,
    *,
    callbacks: "Sequence[TrainerCallback]",
    tell: Tell,
) -> "Trainer":
    from transformers import PrinterCallback

    from selfinstruct_local.train.callbacks import Divergence, Sealing, make_event_files
    from selfinstruct_local.train.resuming import WholeTrainer
    from selfinstruct_local.train.sharding import ShardedTrainer

    tokenizer = load_tokenizer(model)
    arguments = make_arguments(folder.path, settings, validates=bool(data.held_out))
    watching = [make_event_files(folder.path, folder.start.step if folder.start else 0)] if is_first() else []
    network = load_network(model, settings, arguments)
    end_with(network, answer_end(tokenizer, settings.template))
    check_savable(network, tokenizer, model)
    trainer = (ShardedTrainer if settings.fsdp else WholeTrainer)(
        model=network,
        args=arguments,
        data_collator=make_collator(network, tokenizer, settings, tell),
        train_dataset=make_rows(data.examples, settings),
        eval_dataset=make_rows(data.held_out, settings) or None,
        processing_class=tokenizer,
        callbacks=[Sealing(), *callbacks, *watching, Divergence()],
    )
    trainer.remove_callback(PrinterCallback)  # it prints every entry as a dict
    return trainer


def check_machine(settings: TrainSettings, processes: int) -> None:
    """Checks that this machine has what a training asks for.

    Args:
        settings: see `TrainSettings`.
        processes: that train together, here or on several machines.

    Raises:
        UsageError: it has not, the examples of a step do not divide among the processes, or a launcher has not said
            which of them this is.
    """
    import torch

    settings.accumulation(processes)
    # Without it accelerate takes a process on a GPU for the only one, and each would train alone.
    if world_size() > 1 and "LOCAL_RANK" not in os.environ:
        message = (
            f"WORLD_SIZE is {world_size()} and LOCAL_RANK is not set; start the processes by --nproc or torchrun, or "
            "set it to the number of each on its machine"
        )
        raise UsageError(message)
    if settings.method == "qlora" and find_spec("bitsandbytes") is None:
        message = "--method qlora: needs 'bitsandbytes', which is missing; install this package with its extra 'train'"
        raise UsageError(message)
    here = int(os.environ.get("LOCAL_WORLD_SIZE", processes))
    if torch.cuda.is_available() and here > torch.cuda.device_count():
        message = f"--nproc {here}: each process takes a GPU, and {torch.cuda.device_count()} are here"
        raise UsageError(message)


def count_idle_gpus(processes: int) -> int:
    """GPUs of this machine beyond those that `processes` take, one each."""
    import torch

    taken = int(os.environ.get("LOCAL_WORLD_SIZE", processes))
    return max(0, torch.cuda.device_count() - taken)


def make_arguments(out: Path, settings: TrainSettings, *, validates: bool) -> "TrainingArguments":
    """The settings in the Trainer's words, for this machine."""
    import torch
    from transformers import TrainingArguments

    on_gpu = torch.cuda.is_available()
    processes = world_size()
    by_steps = {"save_strategy": "steps", "save_steps": settings.save_steps}
    arguments = TrainingArguments(
        output_dir=str(out),
        num_train_epochs=settings.epochs,
        max_steps=settings.max_steps,
        per_device_train_batch_size=settings.batch_size,
        per_device_eval_batch_size=settings.batch_size,
        gradient_accumulation_steps=settings.accumulation(processes),
        learning_rate=settings.learning_rate,
        lr_scheduler_type="cosine" if settings.scheduler == "cosine" else f"{settings.scheduler}_with_warmup",
        warmup_steps=settings.warmup_ratio,  # a float below 1 is a share of all steps
        weight_decay=settings.weight_decay,
        max_grad_norm=settings.max_grad_norm,
        seed=settings.seed,
        logging_steps=1,
        logging_nan_inf_filter=False,  # it logs the mean of the losses before in place of a NaN
        save_total_limit=settings.keep_checkpoints,
        **(by_steps if settings.save_steps else {"save_strategy": "epoch"}),
        save_only_model=settings.fsdp,  # see ShardedTrainer
        ddp_backend="gloo" if processes > 1 and not on_gpu else None,
        ddp_find_unused_parameters=False,
        eval_strategy="epoch" if validates else "no",
        prediction_loss_only=True,
        report_to="none",
        use_cpu=not on_gpu,
        bf16=_in_bf16(settings, on_gpu=on_gpu),
        # Recomputing activations saves memory that a small model on a CPU does not lack.
        gradient_checkpointing=on_gpu if settings.gradient_checkpointing is None else settings.gradient_checkpointing,
        dataloader_pin_memory=on_gpu,
        include_num_input_tokens_seen="all",
        disable_tqdm=True,
        log_level_replica="error",
        remove_unused_columns=False,
    )
    train_on_one_device(arguments)
    return arguments


def train_on_one_device(arguments: "TrainingArguments") -> None:
    """Leaves one GPU to a process that sees several.

    The Trainer would divide each batch over all of them by DataParallel, which can split neither a batch without
    padding nor its count of tokens, and would take that many times the examples a step that were settled.
    """
    arguments._n_gpu = min(1, arguments.n_gpu)  # noqa: SLF001 - as the Trainer does where DataParallel will not do


def _in_bf16(settings: TrainSettings, *, on_gpu: bool) -> bool:
    return settings.precision == "bf16" or (settings.precision == "auto" and on_gpu)


def make_collator(
    network: Any, tokenizer: "PreTrainedTokenizerBase", settings: TrainSettings, tell: Tell
) -> PaddedCollator | PaddingFreeCollator:
    """What makes batches of the rows of `make_rows`.

    Args:
        network: as it is trained.
        tokenizer: of the base.
        settings: how examples share a forward pass, where the model keeps them apart; else they are padded.
        tell: told if they are padded though it was not asked for.
    """
    if settings.batching != "padded":
        if separates_examples(network):
            return PaddingFreeCollator()
        kind = network.config.model_type
        tell(f"batching: padded, not {settings.batching}: '{kind}' would let the examples of a row see each other")
    padding = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id
    return PaddedCollator(int(padding))


def make_rows(examples: Sequence[Any], settings: TrainSettings) -> list[dict[str, Any]]:
    """What the Trainer draws from: an example a row, or as many as fit."""
    if settings.batching == "packed" and examples:
        return [{"examples": row} for row in pack(examples, settings.max_length)]
    return [{"examples": [example]} for example in examples]


def quieten() -> None:
    """Keeps the libraries' notices about things that are as intended off the terminal."""
    warnings.filterwarnings("ignore", category=FutureWarning)
    for name in ("transformers", "trl", "peft", "accelerate", "torch", "bitsandbytes"):
        logging.getLogger(name).setLevel(logging.ERROR)
