"""Choose the model and start the engine that the settings select."""

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from selfinstruct_local.config.loading import load_settings
from selfinstruct_local.engines.base import Engine
from selfinstruct_local.engines.process import EngineProcess
from selfinstruct_local.engines.serve import API_KEY_VARIABLE
from selfinstruct_local.engines.suspects import DeathRecord
from selfinstruct_local.engines.vllm_engine import VllmEngine, describe_vllm
from selfinstruct_local.errors import UsageError
from selfinstruct_local.generate.profiles.registry import PROFILES
from selfinstruct_local.generate.settings import GenerateSettings
from selfinstruct_local.models import ModelFolder, find_model
from selfinstruct_local.models.adapter import adapter_fingerprint, base_of
from selfinstruct_local.models.folder import prepared_models

# Weights of fewer bytes belong to a model of less than a billion parameters, or to a slightly larger quantized one. Its
# long completions are truncated, repetitive or made up.
SMALL_WEIGHTS = 2 * 10**9


@dataclass(frozen=True, slots=True)
class ChosenModel:
    """The model that generates the tasks.

    Attributes:
        folder: model folder, if available on this machine.
        served: name under which servers serve the model; None if it runs on this machine.
        adapter: folder of a LoRA adapter for the model.
    """

    folder: ModelFolder | None
    served: str | None = None
    adapter: Path | None = None

    @property
    def chats(self) -> bool:
        """Whether the model is known to have a chat template."""
        return self.folder is not None and self.folder.has_chat_template

    @property
    def small(self) -> bool:
        """Whether the model is known to be small; small models do better with short answers."""
        return self.folder is not None and self.folder.weight_bytes < SMALL_WEIGHTS

    def facts(self) -> dict[str, Any]:
        """Return the model facts that a run records: fingerprints, which must match on resume, path and files."""
        return {
            "model_path": str(self.folder.path) if self.folder else self.served,
            "model_fingerprint": self.folder.fingerprint if self.folder else f"served as {self.served}",
            **({"model_files": dict(self.folder.files)} if self.folder else {}),
            "adapter_fingerprint": adapter_fingerprint(self.adapter) if self.adapter else None,
        }


def fit_to_model(
    settings: GenerateSettings,
    model: ChosenModel,
    config: Path | None,
    flags: Mapping[str, Any],
    *,
    own_seeds: bool = False,
) -> GenerateSettings:
    """Return the settings with unset prompt format, answer length and subject chosen for the model and the seeds.

    Args:
        settings: settings from `config` and `flags`.
        model: the model; it is a chat model if its tokenizer has a chat template.
        config: YAML file of the settings.
        flags: settings from command-line flags.
        own_seeds: the seeds are the user's own, so that new tasks keep to their field.

    Raises:
        UsageError: chat is requested and the model is known to have no chat template, or magpie is requested without
            chat, or the profile needs the files of a model that is only served.
    """
    given = settings.model_fields_set
    decided = {"prompt_format": "chat" if model.chats else "completion"}
    if "answers" not in PROFILES[settings.profile].unused:
        decided["answers"] = "short" if model.small else "full"
    if own_seeds and "subject" not in PROFILES[settings.profile].unused:
        decided["subject"] = "seeds"
    left_open = {name: value for name, value in decided.items() if name not in given}
    fitted = load_settings(GenerateSettings, config, {**flags, **left_open}) if left_open else settings
    if fitted.profile == "magpie" and fitted.prompt_format == "completion":
        message = "--prompt-format completion: profile magpie needs chat; leave it out, or use --profile alpaca"
        raise UsageError(message)
    if fitted.prompt_format == "chat" and model.folder is not None and not model.chats:
        what = "--profile magpie" if fitted.profile == "magpie" else "--prompt-format chat"
        message = (
            f"{what}: {model.folder.path.name} has no chat template; choose a chat model, or use --profile alpaca "
            "with --prompt-format completion"
        )
        raise UsageError(message)
    if model.folder is None and fitted.prompt_format in PROFILES[fitted.profile].needs_model_files:
        message = (
            f"--profile {fitted.profile} --prompt-format {fitted.prompt_format}: needs the model's files; give "
            "the served model's folder with --model, or use --profile alpaca"
        )
        raise UsageError(message)
    return fitted


def choose_model(
    name: str | None,
    settings: GenerateSettings,
    find_folder: Callable[[str | None], ModelFolder],
    adapter: Path | None = None,
) -> ChosenModel:
    """Return the named model, on this machine or on the servers of `engine.endpoint`.

    Args:
        name: folder, or name of a prepared or served model; None selects the adapter's base model, the embedded model,
            or the only served one.
        settings: settings; `engine.endpoint` lists the servers.
        find_folder: returns the folder of a model on this machine by name, or the embedded model's for None.
        adapter: folder of a LoRA adapter for the model.

    Raises:
        UsageError: the model does not exist, is incomplete or unsafe, its context is too short, or the adapter was
            trained on another model; or no server responds in time, or the servers do not serve the model.
    """
    if settings.engine.endpoint:
        if adapter:
            message = "--adapter: servers load adapters themselves; give the served adapter's name with --model"
            raise UsageError(message)
        return choose_served_model(name, settings)
    folder = base_of(adapter, name) if adapter else find_folder(name)
    folder.check_context(settings.max_model_len)
    return ChosenModel(folder, adapter=adapter)


def choose_served_model(name: str | None, settings: GenerateSettings) -> ChosenModel:
    """Return the model on the servers.

    Args:
        name: folder or prepared model that is served, whose files then identify the model in the run; or the served
            name; None selects the only served model.
        settings: settings; `engine.endpoint` lists the servers.

    Raises:
        UsageError: no server responds in time, or the servers do not serve the model.
    """
    from selfinstruct_local.engines.endpoints import find_served_model

    folder = None
    if name is not None and (Path(name).expanduser().is_dir() or name in prepared_models()):
        folder = find_model(name)
    served = find_served_model(
        settings.engine.endpoint,
        None if folder else name,
        api_key=os.environ.get(API_KEY_VARIABLE),
        outage_seconds=settings.engine.outage_seconds,
        folder=folder.path if folder else None,
    )
    return ChosenModel(folder, served)


def launch(model: ChosenModel, settings: GenerateSettings, log: Path, deaths: DeathRecord | None = None) -> Engine:
    """Start the engine that the settings select and return it, possibly while it still loads.

    Args:
        model: model to run.
        settings: settings of the run and its engine.
        log: file for the engine's output.
        deaths: engine deaths of earlier starts, extended by those of this one; None keeps no record.

    Raises:
        UsageError: the model does not match the engine; see `choose_model`.
    """
    if settings.engine.endpoint:
        from selfinstruct_local.engines.endpoints import EndpointEngine

        if model.served is None:
            message = "the model is only on this machine; choose one that the servers of --endpoint serve"
            raise UsageError(message)
        return EndpointEngine(
            settings.engine.endpoint,
            model=model.served,
            settings=settings.engine,
            max_model_len=settings.max_model_len,
            api_key=os.environ.get(API_KEY_VARIABLE),
            folder=model.folder.load_path if model.folder else None,
        )
    if model.folder is None:
        message = "a model that is only served cannot be loaded here; give its folder with --model"
        raise UsageError(message)
    make_engine = partial(
        VllmEngine,
        model.folder,
        settings.engine,
        max_model_len=settings.max_model_len,
        seed=settings.seed,
        quantization=settings.quantization,
        adapter=model.adapter,
        log_file=log,
    )
    return EngineProcess(make_engine, settings.engine, describe_vllm(model.folder), log, deaths)
