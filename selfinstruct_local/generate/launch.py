"""From settings to an engine: which model, and what answers for it."""

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

# Weights below this many bytes are those of a model of less than a billion parameters, or one of little more that was
# quantised: what it writes at length breaks off, goes in circles, or is invented.
SMALL_WEIGHTS = 2 * 10**9


@dataclass(frozen=True, slots=True)
class ChosenModel:
    """What writes the tasks.

    Attributes:
        folder: where its weights lie, when that is known here.
        served: the name under which servers offer it; None when it runs on this machine.
        adapter: a LoRA folder over it.
    """

    folder: ModelFolder | None
    served: str | None = None
    adapter: Path | None = None

    @property
    def chats(self) -> bool:
        """Whether it is known to have a chat template."""
        return self.folder is not None and self.folder.has_chat_template

    @property
    def small(self) -> bool:
        """Whether it is known to be of the smallest, which do better with short answers."""
        return self.folder is not None and self.folder.weight_bytes < SMALL_WEIGHTS

    def facts(self) -> dict[str, Any]:
        """What a run notes of it; fingerprints decide, the path does not, and the files show what differs."""
        return {
            "model_path": str(self.folder.path) if self.folder else self.served,
            "model_fingerprint": self.folder.fingerprint if self.folder else f"served as {self.served}",
            **({"model_files": dict(self.folder.files)} if self.folder else {}),
            "adapter_fingerprint": adapter_fingerprint(self.adapter) if self.adapter else None,
        }


def fit_to_model(
    settings: GenerateSettings, model: ChosenModel, config: Path | None, flags: Mapping[str, Any]
) -> GenerateSettings:
    """The settings with what was left open decided by the model: prompt format and length of answers.

    Args:
        settings: as `config` and `flags` give them.
        model: a chat model if its tokenizer has a chat template; small if its weights are.
        config: the YAML file they come from.
        flags: the flags they come from.

    Raises:
        UsageError: chat is asked for, and the model is known to have no template for it; or magpie without chat; or
            the profile needs the files of a model that is only served.
    """
    given = settings.model_fields_set
    decided = {"prompt_format": "chat" if model.chats else "completion"}
    if "answers" not in PROFILES[settings.profile].unused:
        decided["answers"] = "short" if model.small else "full"
    left_open = {name: value for name, value in decided.items() if name not in given}
    fitted = load_settings(GenerateSettings, config, {**flags, **left_open}) if left_open else settings
    if fitted.profile == "magpie" and fitted.prompt_format == "completion":
        message = "--prompt-format completion: profile magpie is a conversation; leave it out, or use --profile alpaca"
        raise UsageError(message)
    if fitted.prompt_format == "chat" and model.folder is not None and not model.chats:
        what = "--profile magpie" if fitted.profile == "magpie" else "--prompt-format chat"
        message = (
            f"{what}: {model.folder.path.name} has no chat template; name a chat model, or use --profile alpaca "
            "with --prompt-format completion"
        )
        raise UsageError(message)
    if model.folder is None and fitted.prompt_format in PROFILES[fitted.profile].needs_model_files:
        message = (
            f"--profile {fitted.profile} --prompt-format {fitted.prompt_format}: needs the files of the model; name "
            "the folder that is served with --model, or use --profile alpaca"
        )
        raise UsageError(message)
    return fitted


def choose_model(
    name: str | None,
    settings: GenerateSettings,
    find_folder: Callable[[str | None], ModelFolder],
    adapter: Path | None = None,
) -> ChosenModel:
    """The model that is named: on this machine, or as the servers of `engine.endpoint` offer it.

    Args:
        name: a folder, or the name of a prepared or served model; None for the base that the adapter names, the
            embedded one or the only one served.
        settings: `engine.endpoint` names the servers.
        find_folder: gives the folder of a model on this machine by its name, and that of the embedded one for None.
        adapter: a LoRA folder over it.

    Raises:
        UsageError: there is no such model, it is not whole or not safe, its context is too short, or the adapter
            was trained on another; or no server answers in time, or they do not serve it.
    """
    if settings.engine.endpoint:
        if adapter:
            message = "--adapter: servers load adapters themselves; name the one they serve with --model"
            raise UsageError(message)
        return choose_served_model(name, settings)
    folder = base_of(adapter, name) if adapter else find_folder(name)
    folder.check_context(settings.max_model_len)
    return ChosenModel(folder, adapter=adapter)


def choose_served_model(name: str | None, settings: GenerateSettings) -> ChosenModel:
    """The model that servers answer with.

    Args:
        name: a folder or prepared model that they serve, whose files then tell the run what it is; or the name they
            serve it under; None for the only one they serve.
        settings: `engine.endpoint` names the servers.

    Raises:
        UsageError: no server answers in time, or they do not serve it.
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
    """Starts the engine that the settings ask for; it may still be loading when this returns.

    Args:
        model: what writes.
        settings: of the engine.
        log: takes what the engine prints.
        deaths: of earlier starts, and where those of this one are noted; None forgets them.

    Raises:
        UsageError: the model is not one for that engine; see `choose_model`.
    """
    if settings.engine.endpoint:
        from selfinstruct_local.engines.endpoints import EndpointEngine

        if model.served is None:
            message = "a model on this machine is no server's; choose one that the servers of --endpoint serve"
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
        message = "a model that is only served cannot be loaded here; name its folder with --model"
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
