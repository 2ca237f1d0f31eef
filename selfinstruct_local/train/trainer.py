"""Fine-tuning with transformers' Trainer and PEFT: from examples to a model or an adapter, resumable at any time.

`folder.py` describes the output folder.
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

Tell = Callable[[str], None]  # takes a line for the terminal


def load_tokenizer(model: ModelFolder) -> "PreTrainedTokenizerBase":
    """Return the tokenizer of a model.

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
    except Exception as error:  # corrupt files raise errors of any kind, some of them bare Exceptions from Rust
        message = f"{model.path}: the tokenizer cannot be loaded ({str(error).splitlines()[0]}); copy its files again"
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
    """Fine-tune `model`, resuming from the last complete checkpoint in `folder` if there is one.

    Args:
        data: training data.
        model: base model.
        folder: result of `open_folder` for the same data, model and settings.
        settings: settings of the training.
        interrupt: checked after each step; a signal ends the training with a checkpoint.
        callbacks: additional Trainer callbacks, such as a display.
        tell: receives a line for each deviation from the settings.

    Returns:
        The result, with `finished` False if a signal ended the training.

    Raises:
        UsageError: this machine does not support the settings, or another process trains in the folder.
        OutOfMemoryError: memory ran out while loading the model or in a step; the message names the flags to change.
        RunError: the model cannot be sharded, or a loss, gradient norm or weight is not finite.
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
    trainer.remove_callback(PrinterCallback)  # prints every log entry as a dict
    return trainer


def check_machine(settings: TrainSettings, processes: int) -> None:
    """Raise UsageError if this machine cannot run a training with these settings.

    Args:
        settings: settings of the training.
        processes: number of processes that train together, on one or several machines.

    Raises:
        UsageError: bitsandbytes or GPUs are missing, the examples of a step are not divisible over the processes, or
            the launcher has not set LOCAL_RANK.
    """
    import torch

    settings.accumulation(processes)
    # Without LOCAL_RANK, accelerate treats each GPU process as the only one, and each would train separately.
    if world_size() > 1 and "LOCAL_RANK" not in os.environ:
        message = (
            f"WORLD_SIZE is {world_size()} and LOCAL_RANK is not set; start the processes with --nproc or torchrun, or "
            "set it to the index of each process on its machine"
        )
        raise UsageError(message)
    if settings.method == "qlora" and find_spec("bitsandbytes") is None:
        message = "--method qlora: needs 'bitsandbytes', which is missing; install this package with its extra 'train'"
        raise UsageError(message)
    here = int(os.environ.get("LOCAL_WORLD_SIZE", processes))
    if torch.cuda.is_available() and here > torch.cuda.device_count():
        message = (
            f"--nproc {here}: needs one GPU per process, and this machine has {torch.cuda.device_count()}; lower it"
        )
        raise UsageError(message)


def count_idle_gpus(processes: int) -> int:
    """Return the number of GPUs on this machine that a training with `processes` processes does not use."""
    import torch

    taken = int(os.environ.get("LOCAL_WORLD_SIZE", processes))
    return max(0, torch.cuda.device_count() - taken)


def make_arguments(out: Path, settings: TrainSettings, *, validates: bool) -> "TrainingArguments":
    """Return the settings as the Trainer's arguments for this machine."""
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
        warmup_steps=settings.warmup_ratio,  # a float below 1 is a fraction of all steps
        weight_decay=settings.weight_decay,
        max_grad_norm=settings.max_grad_norm,
        seed=settings.seed,
        logging_steps=1,
        logging_nan_inf_filter=False,  # the filter replaces NaN by the mean of earlier losses
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
        # Off on a CPU: the small models trained there have enough memory without recomputation.
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
    """Limit a process that sees several GPUs to one.

    Otherwise the Trainer would split each batch over all GPUs with DataParallel, which cannot split padding-free
    batches or their token count, and would multiply the number of examples per step by the number of GPUs.
    """
    arguments._n_gpu = min(1, arguments.n_gpu)  # noqa: SLF001 - as the Trainer does where DataParallel is unsupported


def _in_bf16(settings: TrainSettings, *, on_gpu: bool) -> bool:
    return settings.precision == "bf16" or (settings.precision == "auto" and on_gpu)


def make_collator(
    network: Any, tokenizer: "PreTrainedTokenizerBase", settings: TrainSettings, tell: Tell
) -> PaddedCollator | PaddingFreeCollator:
    """Return the collator for the rows of `make_rows`; padded if the model does not keep examples of a row separate.

    Args:
        network: the model to train.
        tokenizer: tokenizer of the base model.
        settings: settings with the requested `batching`.
        tell: receives a line if batches are padded although another `batching` was requested.
    """
    if settings.batching != "padded":
        if separates_examples(network):
            return PaddingFreeCollator()
        kind = network.config.model_type
        tell(f"batching: padded, not {settings.batching}: examples in a row would influence each other in '{kind}'")
    padding = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id
    return PaddedCollator(int(padding))


def make_rows(examples: Sequence[Any], settings: TrainSettings) -> list[dict[str, Any]]:
    """Return the Trainer's dataset: rows with one example each, or, packed, with as many as fit."""
    if settings.batching == "packed" and examples:
        return [{"examples": row} for row in pack(examples, settings.max_length)]
    return [{"examples": [example]} for example in examples]


def quieten() -> None:
    """Suppress library warnings about intended behaviour."""
    warnings.filterwarnings("ignore", category=FutureWarning)
    for name in ("transformers", "trl", "peft", "accelerate", "torch", "bitsandbytes"):
        logging.getLogger(name).setLevel(logging.ERROR)
