"""The settings that each command takes from `--config`, their resolved values, and their YAML for `config show`.

This module imports pydantic, so the commands import it inside their functions.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import yaml
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from selfinstruct_local.config.loading import load_settings, read_yaml
from selfinstruct_local.engines.serve import ServeSettings
from selfinstruct_local.engines.settings import EngineSettings
from selfinstruct_local.errors import UsageError, one_line
from selfinstruct_local.generate.settings import (
    PROFILE_DEFAULTS,
    SHORT_ANSWER_DEFAULTS,
    GenerateSettings,
    profile_defaults,
)
from selfinstruct_local.train.settings import TrainSettings, load_train_settings, read_preset

ENGINE = frozenset(f"engine.{name}" for name in EngineSettings.model_fields)
SERVERS = frozenset({"engine.endpoint", "engine.request_seconds", "engine.outage_seconds"})
REWRITE = ENGINE | {
    "rules",
    "prompt_format",
    "max_repetition",
    "max_foreign",
    "refuse_refusals",
    "max_model_len",
    "seed",
    "quantization",
    "prompts",
    "window",
    "token_budget",
    "request_budget",
    "minutes",
}
# Thresholds on values that a run measures for its candidates and that files of tasks do not have.
MEASURED = frozenset({"min_confidence", "min_output_confidence", "min_judge"})
FILTER = MEASURED | {
    "rules",
    "threshold",
    "lang",
    "max_repetition",
    "max_foreign",
    "refuse_refusals",
}
EVAL = (ENGINE - SERVERS) | {"prompts", "num", "lang", "max_tokens", "max_model_len", "seed", "quantization"}
# Commands that use only some settings of their model; the others use all of them.
USED = {"translate": REWRITE | {"threshold"}, "polish": REWRITE, "eval": EVAL, "filter": FILTER}
MODELS: dict[str, type[BaseModel]] = {
    "generate": GenerateSettings,
    "translate": GenerateSettings,
    "polish": GenerateSettings,
    "train": TrainSettings,
    "eval": GenerateSettings,
    "filter": GenerateSettings,
    "serve": ServeSettings,
}
# Values that replace the defaults of the settings model.
LLAMA_CONTEXT = 2048
EVAL_BASE = {"num": 200, "max_tokens": 256, "max_model_len": LLAMA_CONTEXT, "temperature": 0.0}
# Descriptions of settings for commands where they differ from those of the settings model.
MEANINGS: dict[str, dict[str, str]] = {
    "translate": {"seed": "random seed for the choice of tasks"},
    "polish": {"seed": "random seed for the choice of tasks"},
    "eval": {
        "num": "maximum number of tasks, sampled with seed",
        "lang": "language of the tasks: en or zh; selects the tokenizer of ROUGE-L",
        "max_tokens": "maximum tokens per completion",
        "seed": "random seed for the sample of tasks",
        "prompts": "folder of prompt templates; only the judge's template replaces a built-in one",
    },
    "filter": {"lang": "language of the rules: en or zh", "rules": "rule set"},
}
# What determines the value of a setting that the user leaves out, where that is not its default.
FROM_PROFILE = frozenset(name for values in PROFILE_DEFAULTS.values() for name in values)
BY_PROFILE = "set by the profile"
BY_ANSWERS = "set by the profile and by answers"
FROM_RUN = dict.fromkeys(("rules", "threshold"), "the value of --run")
SETTLED_BY: dict[str, dict[str, str]] = {
    "generate": {
        **dict.fromkeys(sorted(FROM_PROFILE), BY_PROFILE),
        **dict.fromkeys((name for values in SHORT_ANSWER_DEFAULTS.values() for name in values), BY_ANSWERS),
        "profile": "the default",
        "prompt_format": "set by the model: chat if it has a chat template",
        "answers": "set by the model: short for weights below 2 GB",
        "subject": "set by the seeds: seeds with --seeds",
        "window": "set by in_flight",
    },
    "translate": {**FROM_RUN, "prompt_format": "set by the model", "window": "set by in_flight"},
    "polish": {**FROM_RUN, "prompt_format": "set by the model", "window": "set by in_flight"},
    "eval": {"max_model_len": "set by the shortest context of the models"},
    "filter": dict.fromkeys(sorted(FILTER), "the value of --run, if a run is rejudged"),
}


def check_config(command: str, config: Path | None) -> None:
    """Raise UsageError if the file has a setting that the command does not use.

    `load_settings` reports unknown names and invalid values.

    Raises:
        UsageError: the command does not use a setting; the message names the file and the setting.
    """
    used = USED.get(command)
    if config is None or used is None:
        return
    given = _given(read_yaml(config))
    for name, _ in leaves(MODELS[command]):
        if name in given and name not in used:
            message = f"--config {config}: {name}: '{command}' does not use it; remove it"
            raise UsageError(message)


def leaves(model: type[BaseModel], above: str = "") -> Iterator[tuple[str, FieldInfo]]:
    """Yield the names and fields of a settings model in order; a nested one is named with its group: `engine.dtype`."""
    for name, field in model.model_fields.items():
        group = field.annotation
        if isinstance(group, type) and issubclass(group, BaseModel):
            yield from leaves(group, f"{above}{name}.")
        else:
            yield f"{above}{name}", field


class Resolved(NamedTuple):
    """The resolved settings of a command.

    Attributes:
        settings: all settings.
        origins: where each value that is not a default comes from, by setting.
        left_open: what determines each value that is only known when the command runs, by setting.
    """

    settings: BaseModel
    origins: Mapping[str, str]
    left_open: Mapping[str, str]


def resolve(command: str, config: Path | None, preset: str | None = None, profile: str | None = None) -> Resolved:
    """Return the settings with which a command would run.

    Args:
        command: one of `MODELS`.
        config: the file of `--config`, or None.
        preset: name of a training preset, only for `train`.
        profile: name of a generation profile, only for `generate`.

    Raises:
        UsageError: the command, preset or profile does not exist, or a key or value of the file is invalid.
    """
    if command not in MODELS:
        message = f"{command}: has no --config; name one of {', '.join(MODELS)}"
        raise UsageError(message)
    for flag, value, owner in (("--preset", preset, "train"), ("--profile", profile, "generate")):
        if value is not None and command != owner:
            message = f"{flag} {value}: is only for '{owner}'; remove it"
            raise UsageError(message)
    check_config(command, config)
    if command == "train":
        settings: BaseModel = load_train_settings(preset, config, {})
    else:
        base = EVAL_BASE if command == "eval" else None
        settings = load_settings(MODELS[command], config, {"profile": profile}, base=base)
    origins = _origins(settings, config, preset, profile)
    settled = set[str]()
    if "profile" in origins:
        by_answers = set() if getattr(settings, "profile", "") in SHORT_ANSWER_DEFAULTS else {BY_ANSWERS}
        settled = {BY_PROFILE} | by_answers
    open_now = {
        name: by for name, by in SETTLED_BY.get(command, {}).items() if name not in origins and by not in settled
    }
    return Resolved(settings, origins, open_now)


def _origins(settings: BaseModel, config: Path | None, preset: str | None, profile: str | None) -> dict[str, str]:
    """Return where each value that is not a default comes from; the source with the highest precedence wins."""
    origins: dict[str, str] = {}
    if preset is not None:
        origins |= dict.fromkeys(_given(read_preset(preset)), f"from preset {preset}")
    in_file = _given(read_yaml(config)) if config else frozenset()
    if profile is not None or "profile" in in_file:
        chosen, answers = getattr(settings, "profile", ""), getattr(settings, "answers", "")
        if chosen in SHORT_ANSWER_DEFAULTS and "answers" not in in_file:
            own = set(PROFILE_DEFAULTS[chosen]) - set(SHORT_ANSWER_DEFAULTS[chosen])
        else:
            own = set(profile_defaults(chosen, answers))
        origins |= dict.fromkeys(own, f"from profile {chosen}")
    origins |= dict.fromkeys(in_file, f"from {one_line(str(config))}")
    return origins | ({"profile": "from --profile"} if profile is not None else {})


def _given(values: Mapping[str, Any], above: str = "") -> frozenset[str]:
    """Return the names of the settings in a mapping, with nested ones named as in `leaves`."""
    names: set[str] = set()
    for name, value in values.items():
        if isinstance(value, dict):
            names |= _given(value, f"{above}{name}.")
        else:
            names.add(f"{above}{name}")
    return frozenset(names)


def as_yaml(command: str, resolved: Resolved) -> str:
    """Return the settings as YAML for `--config`, each below a comment; open settings are commented out."""
    values = resolved.settings.model_dump(mode="json")
    used = USED.get(command)
    lines = [f"# Settings of 'selfinstruct {command}', for its --config. Commented-out settings are resolved later."]
    group_before = ""
    for name, field in leaves(MODELS[command]):
        if used is not None and name not in used:
            continue
        group, _, leaf = name.rpartition(".")
        margin = "  " * bool(group)
        lines.append("")
        if group and group != group_before:
            lines.append(f"{group}:")
        group_before = group
        value = f"{leaf}: {_scalar((values[group] if group else values)[leaf])}"
        by, origin = resolved.left_open.get(name), resolved.origins.get(name)
        told = f"  # {by}" if by else f"  # {origin}" if origin else ""
        meaning = MEANINGS.get(command, {}).get(name, field.description)
        lines += [f"{margin}# {meaning}", f"{margin}{'# ' * bool(by)}{value}{told}"]
    return "\n".join(lines)


def _scalar(value: Any) -> str:
    """Return a value as YAML on one line."""
    text = yaml.safe_dump([value], default_flow_style=True, width=2**31, allow_unicode=True)
    return text.strip().removeprefix("[").removesuffix("]")
