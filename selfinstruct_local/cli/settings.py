"""Which settings each command takes from `--config`, what they come to, and how `config show` writes them down.

Leans on `config.py`, which merges and checks; imports pydantic, so commands import it when they are called.
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
# Of what a run measured of its candidates, which files of tasks do not tell.
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
# The commands that make use of some settings of their model alone; the others use all.
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
# What stands in place of the defaults of the model.
LLAMA_CONTEXT = 2048
EVAL_BASE = {"num": 200, "max_tokens": 256, "max_model_len": LLAMA_CONTEXT, "temperature": 0.0}
# What a setting means to a command, where that is not what its model says.
MEANINGS: dict[str, dict[str, str]] = {
    "translate": {"seed": "of the choice of tasks"},
    "polish": {"seed": "of the choice of tasks"},
    "eval": {
        "num": "the most tasks, drawn by seed",
        "lang": "of the tasks: en or zh; decides the tokens of ROUGE-L",
        "max_tokens": "the most tokens of an answer",
        "seed": "of the draw of tasks",
        "prompts": "folder of templates; that of the judge replaces the built-in one",
    },
    "filter": {"lang": "of the rules: en or zh", "rules": "rule set"},
}
# What settles a setting that nobody gave, when it is not its default.
FROM_PROFILE = frozenset(name for values in PROFILE_DEFAULTS.values() for name in values)
BY_PROFILE = "by the profile"
BY_ANSWERS = "by the profile and the answers"
FROM_RUN = dict.fromkeys(("rules", "threshold"), "as in --run")
SETTLED_BY: dict[str, dict[str, str]] = {
    "generate": {
        **dict.fromkeys(sorted(FROM_PROFILE), BY_PROFILE),
        **dict.fromkeys((name for values in SHORT_ANSWER_DEFAULTS.values() for name in values), BY_ANSWERS),
        "profile": "by default",
        "prompt_format": "by the model: chat if it has a template",
        "answers": "by the model: short if it is of the smallest",
        "window": "by the requests in flight",
    },
    "translate": {**FROM_RUN, "prompt_format": "by the model", "window": "by the requests in flight"},
    "polish": {**FROM_RUN, "prompt_format": "by the model", "window": "by the requests in flight"},
    "eval": {"max_model_len": "by the shortest of the models"},
    "filter": dict.fromkeys(sorted(FILTER), "as in --run, where one is decided again"),
}


def check_config(command: str, config: Path | None) -> None:
    """Refuses a setting that stands in a file and that the command makes no use of.

    Names that are no setting at all, and bad values, are left to `load_settings`.

    Raises:
        UsageError: naming the file and the setting.
    """
    used = USED.get(command)
    if config is None or used is None:
        return
    given = _given(read_yaml(config))
    for name, _ in leaves(MODELS[command]):
        if name in given and name not in used:
            message = f"--config {config}: {name}: '{command}' makes no use of it; take it out"
            raise UsageError(message)


def leaves(model: type[BaseModel], above: str = "") -> Iterator[tuple[str, FieldInfo]]:
    """The settings of a model in its order, those of a group with the group's name before them: `engine.dtype`."""
    for name, field in model.model_fields.items():
        group = field.annotation
        if isinstance(group, type) and issubclass(group, BaseModel):
            yield from leaves(group, f"{above}{name}.")
        else:
            yield f"{above}{name}", field


class Resolved(NamedTuple):
    """What the settings of a command come to.

    Attributes:
        settings: all of them.
        origins: of those that are no default, where they come from.
        left_open: of those that are settled when the command is given, by what.
    """

    settings: BaseModel
    origins: Mapping[str, str]
    left_open: Mapping[str, str]


def resolve(command: str, config: Path | None, preset: str | None = None, profile: str | None = None) -> Resolved:
    """The settings that a command would begin with.

    Args:
        command: one of `MODELS`.
        config: as `--config` names it.
        preset: of `train` alone.
        profile: of `generate` alone.

    Raises:
        UsageError: there is no such command, preset or profile, or a key or value of the file will not do.
    """
    if command not in MODELS:
        message = f"{command}: takes no --config; one of {', '.join(MODELS)}"
        raise UsageError(message)
    for flag, value, owner in (("--preset", preset, "train"), ("--profile", profile, "generate")):
        if value is not None and command != owner:
            message = f"{flag} {value}: is of '{owner}' alone"
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
    """Where the settings come from that are no default, the strongest of all places."""
    origins: dict[str, str] = {}
    if preset is not None:
        origins |= dict.fromkeys(_given(read_preset(preset)), f"of preset {preset}")
    in_file = _given(read_yaml(config)) if config else frozenset()
    if profile is not None or "profile" in in_file:
        chosen, answers = getattr(settings, "profile", ""), getattr(settings, "answers", "")
        if chosen in SHORT_ANSWER_DEFAULTS and "answers" not in in_file:
            own = set(PROFILE_DEFAULTS[chosen]) - set(SHORT_ANSWER_DEFAULTS[chosen])
        else:
            own = set(profile_defaults(chosen, answers))
        origins |= dict.fromkeys(own, f"of profile {chosen}")
    origins |= dict.fromkeys(in_file, f"of {one_line(str(config))}")
    return origins | ({"profile": "of --profile"} if profile is not None else {})


def _given(values: Mapping[str, Any], above: str = "") -> frozenset[str]:
    """The names that stand in a mapping, those of groups as `leaves` has them."""
    names: set[str] = set()
    for name, value in values.items():
        if isinstance(value, dict):
            names |= _given(value, f"{above}{name}.")
        else:
            names.add(f"{above}{name}")
    return frozenset(names)


def as_yaml(command: str, resolved: Resolved) -> str:
    """The settings as a file for `--config`, a comment above each; what is left open stands as a comment itself."""
    values = resolved.settings.model_dump(mode="json")
    used = USED.get(command)
    lines = [f"# Settings of 'selfinstruct {command}', for its --config. What stands as a comment is settled later."]
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
        told = f"  # settled {by}" if by else f"  # {origin}" if origin else ""
        meaning = MEANINGS.get(command, {}).get(name, field.description)
        lines += [f"{margin}# {meaning}", f"{margin}{'# ' * bool(by)}{value}{told}"]
    return "\n".join(lines)


def _scalar(value: Any) -> str:
    """A value as YAML on one line."""
    text = yaml.safe_dump([value], default_flow_style=True, width=2**31, allow_unicode=True)
    return text.strip().removeprefix("[").removesuffix("]")
