"""Settings from defaults, then a YAML file, then the command line; unknown keys are rejected."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from selfinstruct_local.errors import UsageError

SettingsT = TypeVar("SettingsT", bound=BaseModel)
# The largest integer that a run's database holds.
LARGEST = 2**63 - 1


def load_settings(
    model: type[SettingsT], config_file: Path | None, flags: Mapping[str, Any], base: Mapping[str, Any] | None = None
) -> SettingsT:
    """Merges defaults, the YAML file and the flags that were given.

    Args:
        model: the settings to make.
        config_file: YAML with the names of the settings; nested ones stand below the name of their group.
        flags: values by the name of the setting, nested or not. None was not given; names that are no setting of
            `model` are other options of the command.
        base: values that stand in place of the defaults.

    Raises:
        UsageError: the file cannot be read, or a key or value will not do; the message names it.
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
    """Takes plain data, and no key twice."""

    def construct_mapping(
        self,
        node: yaml.MappingNode,
        deep: bool = False,  # noqa: FBT001, FBT002 - the signature is PyYAML's
    ) -> dict[Any, Any]:
        """The mapping of a node; raises `ConstructorError` where a key stands again."""
        seen: set[str] = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.value in seen:
                problem = f"'{key.value}' stands twice"
                raise yaml.constructor.ConstructorError(problem=problem, problem_mark=key.start_mark)
            seen.add(str(key.value))
        return super().construct_mapping(node, deep)


def read_yaml(path: Path) -> dict[str, Any]:
    """The mapping a YAML file holds (plain data only: tags that would build Python objects are refused).

    A file of comments alone is an empty one.

    Raises:
        UsageError: the file is missing, broken, or not a mapping.
    """
    try:
        values = yaml.load(path.read_text(encoding="utf-8"), _PlainLoader)  # noqa: S506 - a SafeLoader
    except OSError as error:
        message = f"--config {path}: {(error.strerror or str(error)).lower()}"
        raise UsageError(message) from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:  # bytes, dates and numbers that are none; nesting
        message = f"--config {path}: not plain YAML ({' '.join(str(error).split())})"
        raise UsageError(message) from error
    if values is None:  # comments alone, as in what `config show` prints of a command whose settings are all open
        return {}
    if not isinstance(values, dict):
        message = f"--config {path}: expected 'key: value' lines"
        raise UsageError(message)
    return values


def _first_problem(error: ValidationError, config_file: Path | None, flags: Mapping[str, Any]) -> str:
    first = error.errors()[0]
    if not first["loc"]:  # of several settings together: the message names them
        return str(first["ctx"]["error"])
    leaf = str(first["loc"][-1])
    if flags.get(leaf) is not None:
        where = f"--{leaf.replace('_', '-')} {first['input']}"
    else:
        where = f"--config {config_file}: {'.'.join(map(str, first['loc']))}"
    if first["type"] == "extra_forbidden":
        return f"{where}: no such setting"
    if first["type"] == "value_error":  # of a check of ours, whose message needs no preface
        return f"{where}: {first['ctx']['error']}"
    return f"{where}: {first['msg'][0].lower()}{first['msg'][1:]}"
