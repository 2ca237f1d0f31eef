"""Loads settings: defaults < YAML file < command line; unknown keys are rejected."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from selfinstruct_local.errors import UsageError

SettingsT = TypeVar("SettingsT", bound=BaseModel)
# The largest integer in an SQLite database.
LARGEST = 2**63 - 1


def load_settings(
    model: type[SettingsT], config_file: Path | None, flags: Mapping[str, Any], base: Mapping[str, Any] | None = None
) -> SettingsT:
    """Return the settings merged from the defaults, the YAML file and the given flags.

    Args:
        model: class of the settings.
        config_file: YAML file with settings by name; nested settings are below the name of their group.
        flags: values by name of the setting, nested or not. None means not given; names that are not settings of
            `model` are other options of the command and are ignored.
        base: values that replace the defaults.

    Raises:
        UsageError: the file cannot be read, or a key or value is invalid; the message names it.
    """
    values: dict[str, Any] = {**(base or {}), **(read_yaml(config_file) if config_file else {})}
    for name, field in model.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            group = {leaf: flags[leaf] for leaf in field.annotation.model_fields if flags.get(leaf) is not None}
            if group and isinstance(values.setdefault(name, {}), dict):
                values[name] |= group
        elif flags.get(name) is not None:
            values[name] = flags[name]
    try:
        return model.model_validate(values)
    except ValidationError as error:
        raise UsageError(_first_problem(error, config_file, flags)) from error


class _PlainLoader(yaml.SafeLoader):
    """A loader for plain data that rejects duplicate keys."""

    def construct_mapping(
        self,
        node: yaml.MappingNode,
        deep: bool = False,  # noqa: FBT001, FBT002 - the signature is PyYAML's
    ) -> dict[Any, Any]:
        """Return the mapping of a node; raise ConstructorError for a duplicate key."""
        seen: set[str] = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.value in seen:
                problem = f"duplicate key '{key.value}'"
                raise yaml.constructor.ConstructorError(problem=problem, problem_mark=key.start_mark)
            seen.add(str(key.value))
        return super().construct_mapping(node, deep)


def read_yaml(path: Path) -> dict[str, Any]:
    """Return the mapping in a YAML file (plain data only: tags that would create Python objects are rejected).

    A file with only comments is an empty mapping.

    Raises:
        UsageError: the file is missing, invalid, or not a mapping.
    """
    try:
        values = yaml.load(path.read_text(encoding="utf-8"), _PlainLoader)  # noqa: S506 - a SafeLoader
    except OSError as error:
        message = f"--config {path}: {(error.strerror or str(error)).lower()}"
        raise UsageError(message) from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:  # invalid bytes, dates and numbers; deep nesting
        message = f"--config {path}: not plain YAML ({' '.join(str(error).split())})"
        raise UsageError(message) from error
    if values is None:  # only comments, as `config show` prints for a command whose settings are all open
        return {}
    if not isinstance(values, dict):
        message = f"--config {path}: not a mapping; write 'key: value' lines"
        raise UsageError(message)
    return values


def _first_problem(error: ValidationError, config_file: Path | None, flags: Mapping[str, Any]) -> str:
    first = error.errors()[0]
    if not first["loc"]:  # from a check of several settings, whose message names them
        return str(first["ctx"]["error"])
    leaf = str(first["loc"][-1])
    if flags.get(leaf) is not None:
        where = f"--{leaf.replace('_', '-')} {first['input']}"
    else:
        where = f"--config {config_file}: {'.'.join(map(str, first['loc']))}"
    if first["type"] == "extra_forbidden":
        return f"{where}: no such setting"
    if first["type"] == "value_error":  # from a check of our own, whose message needs no prefix
        return f"{where}: {first['ctx']['error']}"
    return f"{where}: {first['msg'][0].lower()}{first['msg'][1:]}"
