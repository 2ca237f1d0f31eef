"""Loading the model for training: full or with LoRA matrices, on one device or sharded over several."""

import re
import warnings
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from selfinstruct_local.errors import UsageError
from selfinstruct_local.models import ModelFolder
from selfinstruct_local.train.network_size import dropout_of, read_config, size_of
from selfinstruct_local.train.processes import world_size
from selfinstruct_local.train.settings import TrainSettings
from selfinstruct_local.train.trainable import add_lora, freeze_unreached

if TYPE_CHECKING:
    from transformers import GenerationConfig, PreTrainedTokenizerBase, TrainingArguments


def load_network(model: ModelFolder, settings: TrainSettings, arguments: "TrainingArguments") -> Any:
    """Return the model to train.

    Args:
        model: base model.
        settings: method, LoRA and sharding.
        arguments: precision and gradient checkpointing as resolved for this machine.

    Raises:
        RunError: sharding was requested, and some weights are not sharded.
    """
    import torch
    from transformers import AutoModelForCausalLM, set_seed

    dropout = dropout_of(size_of(read_config(model.load_path), settings), settings)
    set_seed(settings.seed)  # LoRA matrices are initialised before the Trainer sets the seed
    # Trainable weights stay in float32: bf16 would round small updates away. A frozen base model can be bf16.
    frozen_dtype = torch.bfloat16 if arguments.bf16 else torch.float32
    options: dict[str, Any] = {"dtype": torch.float32 if settings.method == "full" else frozen_dtype}
    if settings.method == "qlora":
        options |= _in_four_bits(arguments)
    sharded = settings.fsdp and world_size() > 1
    if sharded:
        from transformers.distributed.configuration_utils import DistributedConfig

        options["distributed_config"] = DistributedConfig(fsdp_size=world_size(), fsdp_mixed_precision=arguments.bf16)
    network: Any = AutoModelForCausalLM.from_pretrained(model.load_path, local_files_only=True, **options)
    network.name_or_path = str(model.path)  # PEFT records it as the adapter's base model
    make_savable(network)
    if sharded:
        from selfinstruct_local.train.sharding import check_sharded

        check_sharded(network)
    if settings.pad_vocab_to:
        network.resize_token_embeddings(pad_to_multiple_of=settings.pad_vocab_to)
    if settings.method == "full":
        freeze_unreached(network)
        return network
    return _with_lora(network, settings, arguments, dropout=dropout)


def make_savable(network: Any) -> None:
    """Fix a generation config that transformers loads but refuses to save, before training starts.

    The common fault is a temperature or top_p without `do_sample`, as in Vicuna 1.5 and early copies of LLaMA 2 Chat.
    """
    from transformers import GenerationConfig

    config = network.generation_config
    if config is None or _is_valid(config):
        return
    config.do_sample = True
    if not _is_valid(config):
        network.generation_config = GenerationConfig.from_model_config(network.config)
    if not _is_valid(network.generation_config):
        make_config: Any = GenerationConfig  # has no type annotations
        network.generation_config = make_config(eos_token_id=network.config.eos_token_id)


def check_savable(network: Any, tokenizer: "PreTrainedTokenizerBase", model: ModelFolder) -> None:
    """Save everything except for the weights to a temporary folder, so that a failure appears before training.

    Raises:
        UsageError: transformers refuses to save config, generation config or tokenizer.
    """
    with TemporaryDirectory() as folder:
        try:
            network.config.save_pretrained(folder)
            if network.generation_config is not None:
                network.generation_config.save_pretrained(folder)
            tokenizer.save_pretrained(folder)
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            reason = " ".join(str(error).split())
            message = f"--model {model.path}: the trained model could not be saved ({reason}); correct its JSON files"
            raise UsageError(message) from error


def end_with(network: Any, token_id: int) -> None:
    """Add a token to `eos_token_id` of the generation config, which is saved with the model."""
    config = network.generation_config
    if config is None:
        return
    known = config.eos_token_id
    ends = [] if known is None else known if isinstance(known, list) else [known]
    if token_id not in ends:
        config.eos_token_id = [*ends, token_id]


def lay_over(network: Any, model: ModelFolder, adapter: Path) -> Any:
    """Return a loaded base model with a trained adapter on it.

    Args:
        network: base model.
        model: folder of the base model, for messages.
        adapter: a LoRA folder that passes `check_base`.

    Raises:
        UsageError: the adapter does not match the base model, its files are corrupt, or PEFT is missing.
    """
    try:
        from peft import PeftModel
        from safetensors import SafetensorError
    except ImportError as error:
        message = f"--adapter {adapter}: needs '{error.name}', which is missing; install this package's extra 'train'"
        raise UsageError(message) from error
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            tuned = PeftModel.from_pretrained(network, str(adapter))
    # An adapter made elsewhere does not record its base; torch detects other shapes, PEFT detects other layer names.
    except (RuntimeError, ValueError, SafetensorError) as error:
        reason = str(error).strip().splitlines()[-1].strip(" \t.")
        message = f"--adapter {adapter}: does not match {model.path} ({reason}); name its base model with --model"
        raise UsageError(message) from error
    _refuse_unloaded(caught, adapter)
    return tuned


def _refuse_unloaded(caught: list[warnings.WarningMessage], adapter: Path) -> None:
    """Raise UsageError if matrices of the adapter have other names, where PEFT leaves zeros and only warns."""
    missing = [str(each.message) for each in caught if "missing adapter keys" in str(each.message)]
    if missing:
        first = re.search(r"'([^']+)'", missing[0])
        message = (
            f"--adapter {adapter}: its file has no matrix for {first[1] if first else 'a module'}; it is incomplete or "
            "belongs to another base model; copy it again, or name its base model with --model"
        )
        raise UsageError(message)


def _is_valid(config: "GenerationConfig") -> bool:
    try:
        config.validate(strict=True)
    except ValueError:
        return False
    return True


def _in_four_bits(arguments: "TrainingArguments") -> dict[str, Any]:
    import torch
    from transformers import BitsAndBytesConfig

    make_config: Any = BitsAndBytesConfig  # has no type annotations
    quantization = make_config(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.bfloat16 if arguments.bf16 else torch.float32,
    )
    # Weights are quantised on the device they are loaded to, so each process names its own device.
    return {"quantization_config": quantization, "device_map": {"": arguments.device}}


def _with_lora(network: Any, settings: TrainSettings, arguments: "TrainingArguments", *, dropout: float) -> Any:
    if settings.method == "qlora":
        from peft import prepare_model_for_kbit_training

        network = prepare_model_for_kbit_training(network, use_gradient_checkpointing=arguments.gradient_checkpointing)
    elif arguments.gradient_checkpointing:
        network.enable_input_require_grads()  # else no gradient passes through a frozen, recomputed base
    return add_lora(
        network,
        targets=settings.lora_targets,
        rank=settings.lora_r,
        alpha=settings.lora_alpha,
        dropout=dropout,
    )
