"""Fine-tuning on transformers' Trainer and PEFT: from examples to a model or an adapter, killed and resumed at will.

Leaves in the output folder: the weights as safetensors, `settings.json`, which says what is trained on what and is
written first, `loss.csv` and `loss.png`, the last checkpoints, and `training.json`, which is written last.
"""

import hashlib
import logging
import os
import shutil
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson

from selfinstruct_local import __version__
from selfinstruct_local.chat import TRAINING_MANIFEST
from selfinstruct_local.errors import WrongUseError
from selfinstruct_local.files import replace_atomically
from selfinstruct_local.interrupt import Interrupt
from selfinstruct_local.models import ModelFolder
from selfinstruct_local.train import curve
from selfinstruct_local.train.batches import PaddedCollator, PaddingFreeCollator, pack
from selfinstruct_local.train.checkpoints import Checkpoint, find_checkpoints
from selfinstruct_local.train.data import TrainingData
from selfinstruct_local.train.plan import FLOAT32, GIB, count_parameters, read_config
from selfinstruct_local.train.settings import TrainSettings

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase, TrainerCallback, TrainingArguments

SETTINGS = "settings.json"
# Of the settings, those that may change between two starts of one training.
_EXECUTING = frozenset({"save_steps", "keep_checkpoints", "max_dropped"})


@dataclass(frozen=True, slots=True)
class TrainingResult:
    """What a training left.

    Attributes:
        folder: of the model or the adapter.
        data: examples and what was dropped.
        losses: (step, epoch, loss) of each optimizer step; the loss is the mean over its supervised tokens.
        validation: (step, loss) on the held-out examples, after each epoch.
        seconds: of this start's steps alone.
        finished: whether all steps are done; a signal may have ended them.
    """

    folder: Path
    data: TrainingData
    losses: list[tuple[int, float, float]]
    validation: list[tuple[int, float]]
    seconds: float
    finished: bool

    @property
    def epoch_losses(self) -> list[float]:
        """Mean loss of each epoch: the same examples each time, so a fall is learning and not luck."""
        by_epoch: dict[int, list[float]] = {}
        for _, epoch, loss in self.losses:
            by_epoch.setdefault(ceil(epoch), []).append(loss)
        return [sum(each) / len(each) for _, each in sorted(by_epoch.items())]


def load_tokenizer(model: ModelFolder) -> "PreTrainedTokenizerBase":
    """The tokenizer of a model.

    Raises:
        WrongUseError: the training libraries are missing, or the folder's tokenizer cannot be loaded.
    """
    quieten()
    try:
        from transformers import AutoTokenizer
    except ImportError as error:
        message = f"training needs '{error.name}', which is missing; install this package with its extra 'train'"
        raise WrongUseError(message) from error
    try:
        return AutoTokenizer.from_pretrained(model.path, local_files_only=True)
    except (OSError, ValueError) as error:
        message = f"{model.path}: its tokenizer cannot be loaded ({str(error).splitlines()[0]})"
        raise WrongUseError(message) from error


def facts_of(data: TrainingData, model: ModelFolder, settings: TrainSettings) -> dict[str, Any]:
    """What makes a training this one: a folder that holds another is not gone on with."""
    digest = hashlib.sha256()
    for example in [*data.examples, *data.held_out]:
        digest.update(orjson.dumps([example.input_ids, example.labels]))
    return {
        "version": __version__,
        "base_model": str(model.path),
        "base_model_fingerprint": model.fingerprint,
        "template": settings.template,
        "settings": settings.model_dump(mode="json"),
        "examples": len(data.examples),
        "held_out": len(data.held_out),
        "supervised_tokens": data.supervised_tokens,
        "dropped": data.dropped,
        "data_sha256": digest.hexdigest(),
    }


def find_start(out: Path, facts: dict[str, Any]) -> list[Checkpoint]:
    """The checkpoints of an output folder, the latest first, down to the first whole one; see `find_checkpoints`.

    Raises:
        WrongUseError: the folder holds a training on other data or with other settings.
    """
    path = out / SETTINGS
    if not path.is_file():
        return []
    told = orjson.loads(path.read_bytes())
    if different := sorted(_different(told, facts)):
        message = f"--out {out}: holds a training that differs in {', '.join(different)}; name another folder"
        raise WrongUseError(message)
    return find_checkpoints(out)


def is_done(out: Path) -> bool:
    """Whether the training in a folder has done all its steps and saved what it made."""
    return (out / TRAINING_MANIFEST).is_file()


def check_room(out: Path, model: ModelFolder, settings: TrainSettings) -> None:
    """Checks that the checkpoints and the result will fit on the disk: better now than after the first epoch.

    A checkpoint holds what is trained and the two states of AdamW, in float32; before the oldest goes there is one more
    than are kept.

    Raises:
        WrongUseError: they will not.
    """
    _, trainable = count_parameters(read_config(model.path), settings)
    needed = trainable * FLOAT32 * (3 * (settings.keep_checkpoints + 1) + 1)
    free = shutil.disk_usage(out).free
    if free < needed:
        message = (
            f"--out {out}: {settings.keep_checkpoints + 1} checkpoints and the result take {needed / GIB:.1f} GiB, "
            f"and {free / GIB:.1f} GiB are free; make room or name another folder"
        )
        raise WrongUseError(message)


def train(
    data: TrainingData,
    model: ModelFolder,
    out: Path,
    settings: TrainSettings,
    *,
    interrupt: Interrupt | None = None,
    callbacks: "Sequence[TrainerCallback]" = (),
) -> TrainingResult:
    """Tunes `model`, from the last whole checkpoint in `out` if there is one.

    Args:
        data: the examples.
        model: the base.
        out: an existing, writable folder.
        settings: see `TrainSettings`.
        interrupt: asked after each step; a signal ends the training with a checkpoint.
        callbacks: told of every step, for a display.

    Raises:
        WrongUseError: the folder holds another training, or the settings ask for what this machine has not.
    """
    quieten()
    from transformers import PrinterCallback, Trainer

    from selfinstruct_local.train.callbacks import Sealing, Stopping

    facts = facts_of(data, model, settings)
    start = next((each for each in find_start(out, facts) if not each.fault), None)
    with replace_atomically(out / SETTINGS) as stream:
        stream.write(orjson.dumps(facts, option=orjson.OPT_INDENT_2))
    tokenizer = load_tokenizer(model)
    arguments = make_arguments(out, settings, validates=bool(data.held_out))
    stopping = Stopping(interrupt or Interrupt())
    trainer = Trainer(
        model=load_network(model, settings, arguments),
        args=arguments,
        data_collator=make_collator(settings, tokenizer),
        train_dataset=make_rows(data.examples, settings),
        eval_dataset=make_rows(data.held_out, settings) or None,
        processing_class=tokenizer,
        callbacks=[Sealing(), stopping, *callbacks],
    )
    trainer.remove_callback(PrinterCallback)  # it prints every entry as a dict
    outcome = trainer.train(resume_from_checkpoint=str(start.folder) if start else None)
    history = trainer.state.log_history
    result = TrainingResult(
        out,
        data,
        [(int(each["step"]), float(each["epoch"]), float(each["loss"])) for each in history if "loss" in each],
        [(int(each["step"]), float(each["eval_loss"])) for each in history if "eval_loss" in each],
        outcome.metrics["train_runtime"],
        not stopping.stopped,
    )
    if arguments.should_save:
        curve.write_table(out, history)
        curve.plot(out, [(step, loss) for step, _, loss in result.losses], result.validation)
    if result.finished:
        trainer.save_model(str(out))
        if arguments.should_save:
            with replace_atomically(out / TRAINING_MANIFEST) as stream:
                stream.write(orjson.dumps(facts, option=orjson.OPT_INDENT_2))
    return result


def _different(told: dict[str, Any], facts: dict[str, Any]) -> list[str]:
    same = ("base_model_fingerprint", "data_sha256")
    names = [
        name.removesuffix("_sha256").removesuffix("_fingerprint") for name in same if told.get(name) != facts[name]
    ]
    before = told.get("settings", {})
    return names + [
        name for name, value in facts["settings"].items() if name not in _EXECUTING and before.get(name) != value
    ]


def make_arguments(out: Path, settings: TrainSettings, *, validates: bool) -> "TrainingArguments":
    """The settings in the Trainer's words, for this machine.

    Raises:
        WrongUseError: they ask for what it has not, or for what is not built.
    """
    import torch
    from transformers import TrainingArguments

    on_gpu = torch.cuda.is_available()
    if settings.method == "qlora" and not on_gpu:
        message = "--method qlora: its 4-bit base needs an NVIDIA GPU, and none is here; take --method lora"
        raise WrongUseError(message)
    if settings.fsdp:
        message = (
            "fsdp: sharding over devices is not built yet, --dry-run plans it; take a LoRA preset, or set fsdp: false"
        )
        raise WrongUseError(message)
    by_steps = {"save_strategy": "steps", "save_steps": settings.save_steps}
    return TrainingArguments(
        output_dir=str(out),
        num_train_epochs=settings.epochs,
        max_steps=settings.max_steps,
        per_device_train_batch_size=settings.batch_size,
        per_device_eval_batch_size=settings.batch_size,
        gradient_accumulation_steps=settings.accumulation(int(os.environ.get("WORLD_SIZE", "1"))),
        learning_rate=settings.learning_rate,
        lr_scheduler_type="cosine" if settings.scheduler == "cosine" else f"{settings.scheduler}_with_warmup",
        warmup_steps=settings.warmup_ratio,  # a float below 1 is a share of all steps
        weight_decay=settings.weight_decay,
        max_grad_norm=settings.max_grad_norm,
        seed=settings.seed,
        logging_steps=1,
        save_total_limit=settings.keep_checkpoints,
        **(by_steps if settings.save_steps else {"save_strategy": "epoch"}),
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
        remove_unused_columns=False,
    )


def _in_bf16(settings: TrainSettings, *, on_gpu: bool) -> bool:
    return settings.precision == "bf16" or (settings.precision == "auto" and on_gpu)


def load_network(model: ModelFolder, settings: TrainSettings, arguments: "TrainingArguments") -> Any:
    """The model as it is trained: whole, or with LoRA matrices over a frozen base."""
    import torch
    from transformers import AutoModelForCausalLM, set_seed

    set_seed(settings.seed)  # the LoRA matrices are drawn before the Trainer sets it
    # What is trained stays in float32: steps of a small rate would be rounded away. A frozen base need not.
    frozen_dtype = torch.bfloat16 if arguments.bf16 else torch.float32
    options: dict[str, Any] = {"dtype": torch.float32 if settings.method == "full" else frozen_dtype}
    if settings.method == "qlora":
        from transformers import BitsAndBytesConfig

        make_config: Any = BitsAndBytesConfig  # without types
        options["quantization_config"] = make_config(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=torch.bfloat16,
        )
    network: Any = AutoModelForCausalLM.from_pretrained(model.path, local_files_only=True, **options)
    if settings.pad_vocab_to:
        network.resize_token_embeddings(pad_to_multiple_of=settings.pad_vocab_to)
    if settings.method == "full":
        return network
    from peft import LoraConfig, get_peft_model, prepare_model_for_kbit_training

    if settings.method == "qlora":
        network = prepare_model_for_kbit_training(network, use_gradient_checkpointing=arguments.gradient_checkpointing)
    elif arguments.gradient_checkpointing:
        network.enable_input_require_grads()  # else nothing would flow back through a frozen, recomputed base
    lora = LoraConfig(
        r=settings.lora_r,
        lora_alpha=settings.lora_alpha,
        lora_dropout=settings.lora_dropout,
        target_modules=settings.lora_targets,
        task_type="CAUSAL_LM",
    )
    return get_peft_model(network, lora)


def make_collator(
    settings: TrainSettings, tokenizer: "PreTrainedTokenizerBase"
) -> PaddedCollator | PaddingFreeCollator:
    """What makes batches of the rows of `make_rows`."""
    if settings.batching != "padded":
        return PaddingFreeCollator()
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
    for name in ("transformers", "trl", "peft", "accelerate", "torch"):
        logging.getLogger(name).setLevel(logging.ERROR)
