"""Settings: defaults, then a YAML file, then the command line; unknown keys are refused.

The settings of a run are of two kinds. *Deciding* settings shape what is asked and what is accepted: they
are fixed when a run is created. *Executing* settings say how far and how fast to go: they may change
whenever it is resumed.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, Field, PlainSerializer, PlainValidator, ValidationError, model_validator

from selfinstruct_local.engine.settings import EngineSettings
from selfinstruct_local.errors import WrongUseError
from selfinstruct_local.filter.limits import DEFAULT_LIMITS, Limits
from selfinstruct_local.language import Language
from selfinstruct_local.prompts import Prompts, read_prompts

SettingsT = TypeVar("SettingsT", bound=BaseModel)
ProfileName = Literal["alpaca", "self-instruct", "magpie", "alpaca-2023", "self-instruct-2022"]
RuleSetName = Literal["alpaca", "self-instruct", "alpaca-2023", "self-instruct-2022", "none"]
ENGLISH_ONLY = frozenset({"alpaca-2023", "self-instruct-2022"})
PromptFormat = Literal["completion", "chat"]
# The largest whole number that a run's database holds.
LARGEST = 2**63 - 1
# Jobs a prompt may lag behind the pool, in multiples of the requests in flight: with less, one slow request
# drains the engine while all others wait for its decision.
WINDOW_FACTOR = 8
# Of profiles whose jobs hold several requests at a time, in multiples of the jobs that hold those in flight.
TURNS_WINDOW_FACTORS = {"magpie": 4, "self-instruct": 2}


# What a profile takes for settings that are left out. The dated ones stand in the published programs: stanford_alpaca,
# generate_instruction.py, and self-instruct, bootstrap_instructions.py.
PROFILE_DEFAULTS: dict[str, dict[str, Any]] = {
    "alpaca": {},
    # The minimum confidences were chosen on one model of 1.5 billion parameters: of 42 free answers that two readers
    # judged, 8 of the 11 below -0.35 were wrong, and 13 of the 31 above.
    "self-instruct": {
        "temperature": 0.8,
        "min_confidence": -1.9,
        "min_output_confidence": -0.35,
        "tasks_per_prompt": 4,
        # More than the 15 % and 30 % that result, because more of these tasks are rejected: with 0.3 and 0.25, 16 % of 56
        # tasks of a model of 1.5 billion parameters were classification, and 27 % had an input.
        "classification_share": 0.3,
        "input_share": 0.35,
    },
    # A stricter threshold and a floor under the model's own confidence, since nothing but its habits keeps the user
    # that it plays from asking the same things or talking at random.
    "magpie": {
        "prompt_format": "chat",
        "threshold": 0.6,
        "min_confidence": -1.6,
        "top_p": 0.9,
        "max_tokens": 1024,
        "tasks_per_prompt": 4,
    },
    "alpaca-2023": {
        "rules": "alpaca-2023",
        "prompt_format": "completion",
        "temperature": 1.0,
        "top_p": 1.0,
        "max_tokens": 3072,
        "tasks_per_prompt": 17,
    },
    "self-instruct-2022": {
        "rules": "self-instruct-2022",
        "prompt_format": "completion",
        "temperature": 0.7,
        "top_p": 0.5,
        "max_tokens": 1024,
        "tasks_per_prompt": 7,
        "instances_per_task": 5,
    },
}

# The same with short answers.
SHORT_ANSWER_DEFAULTS: dict[str, dict[str, Any]] = {
    "magpie": {"min_confidence": -1.5, "min_output_confidence": -0.7, "max_tokens": 256},
    "self-instruct": {"min_output_confidence": -0.7, "max_tokens": 256},
}


def profile_defaults(profile: str, answers: str) -> dict[str, Any]:
    """What a profile takes for settings that are left out; nothing if there is no such profile."""
    defaults = PROFILE_DEFAULTS.get(profile, {})
    return {**defaults, **SHORT_ANSWER_DEFAULTS.get(profile, {})} if answers == "short" else defaults


def _as_prompts(value: Any) -> Prompts:
    """Return the templates that a setting names: none are the user's own without a folder."""
    if isinstance(value, Prompts):
        return value
    if value is not None and not isinstance(value, str | Path):
        message = "expected the name of a folder"
        raise ValueError(message)
    return Prompts() if value is None else read_prompts(Path(value))


def _folder_of(prompts: Prompts) -> str | None:
    return str(prompts.folder) if prompts.folder else None


class DecidingSettings(BaseModel):
    """What shapes the tasks of a run; fixed when it is created."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    profile: ProfileName = Field("self-instruct", description="how tasks are asked for")
    lang: Language = Field("en", description="language of prompts, seeds and rules: en or zh")
    threshold: float = Field(0.7, gt=0, le=1, description="ROUGE-L F above which an instruction is a near copy")
    prompt_format: PromptFormat = Field(
        "completion", description="completion, for base models, or chat, in the model's own chat template"
    )
    answers: Literal["short", "full"] = Field(
        "short", description="of self-instruct and magpie: one paragraph, or as long as it takes"
    )
    structured: bool = Field(default=False, description="hold the model to a JSON schema or to the allowed answers")
    rules: RuleSetName = Field("alpaca", description="rule set; that of the profile when left out")
    max_repetition: float = Field(
        DEFAULT_LIMITS.max_repetition, ge=0, le=1, description="share of a text that may repeat what stood in it"
    )
    max_echo: float = Field(
        DEFAULT_LIMITS.max_echo,
        ge=0,
        le=1,
        description="ROUGE-L F of an output with its instruction or a demonstration",
    )
    max_foreign: float = Field(
        DEFAULT_LIMITS.max_foreign, ge=0, le=1, description="share of an output in a script that nothing calls for"
    )
    refuse_refusals: bool = Field(
        DEFAULT_LIMITS.refuse_refusals, description="turn away outputs that decline to answer"
    )
    min_confidence: float | None = Field(
        DEFAULT_LIMITS.min_confidence, le=0, description="least mean log-probability a token of instructions, in nats"
    )
    min_output_confidence: float | None = Field(
        DEFAULT_LIMITS.min_output_confidence, le=0, description="least mean log-probability a token of outputs, in nats"
    )
    judge: bool = Field(default=False, description="let the model give points from 1 to 5 to each task")
    min_judge: float = Field(DEFAULT_LIMITS.min_judge, ge=1, le=5, description="least of the judge's points")
    temperature: float = Field(0.7, ge=0, le=2, description="of sampling; 0 is greedy")
    top_p: float = Field(0.95, gt=0, le=1, description="nucleus share of sampling")
    max_tokens: int = Field(
        768,
        ge=1,
        le=LARGEST,
        description="the most tokens a completion may have; clamped to the context less the prompt",
    )
    max_model_len: int = Field(
        2048, ge=256, le=LARGEST, description="context in tokens, prompt and completion together"
    )
    tasks_per_prompt: int = Field(5, ge=1, le=20, description="new tasks asked for in one prompt")
    answers_per_task: int = Field(
        1, ge=1, le=64, description="answers asked for per task, of which the one that most agree on is kept"
    )
    instances_per_task: int = Field(1, ge=1, le=5, description="the most worked cases that are asked for in one task")
    topics: tuple[str, ...] = Field((), description="what tasks may be about; one is drawn for each prompt")
    classification_share: float | None = Field(
        None,
        ge=0,
        le=1,
        description="share of the prompts that ask for classification tasks; left to the model if none",
    )
    input_share: float | None = Field(
        None,
        ge=0,
        le=1,
        description="share of the other prompts that ask for tasks with an input; left to the model if none",
    )
    favor_rare: bool = Field(default=False, description="show tasks that are unlike the rest of the pool more often")
    seed: int = Field(0, ge=0, le=LARGEST, description="of all random choices of the run")
    quantization: str | None = Field(
        None,
        description="method of vLLM's that is applied to the weights (fp8, ...); none but the folder's if left out",
    )
    window: int | None = Field(
        None,
        ge=1,
        le=LARGEST,
        description="jobs a prompt may lag behind the pool; 8 times the requests in flight if left out",
    )

    # Given as a folder and read once, so that what is asked with is what was checked and stored.
    prompts: Annotated[Prompts, PlainValidator(_as_prompts), PlainSerializer(_folder_of)] = Field(
        Prompts(), description="folder of templates that replace the built-in ones of the same names"
    )

    def limits(self) -> Limits:
        """The thresholds of the rules."""
        return Limits(**{name: getattr(self, name) for name in Limits._fields})


class ExecutingSettings(BaseModel):
    """How far and how fast a run goes; may change when it is resumed."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    num: int = Field(100, ge=1, le=LARGEST, description="accepted tasks to stop at")
    patience: int = Field(
        200, ge=1, le=LARGEST, description="jobs in a row without an accepted task after which the run gives up"
    )
    token_budget: int | None = Field(None, ge=1, le=LARGEST, description="generated tokens after which the run stops")
    request_budget: int | None = Field(None, ge=1, le=LARGEST, description="completions after which the run stops")
    minutes: float | None = Field(None, gt=0, description="minutes after which this start stops")
    engine: EngineSettings = EngineSettings()


class GenerateSettings(DecidingSettings, ExecutingSettings):
    """All settings of `selfinstruct generate`."""

    @model_validator(mode="before")
    @classmethod
    def _fill_from_profile(cls, values: Any) -> Any:
        if not isinstance(values, dict):
            return values
        profile = values.get("profile") or cls.model_fields["profile"].default
        answers = values.get("answers") or cls.model_fields["answers"].default
        # An unknown profile is refused with the other fields.
        return {**profile_defaults(str(profile), str(answers)), **values}

    @model_validator(mode="after")
    def _check_language(self) -> Self:
        if self.lang == "zh" and not ENGLISH_ONLY.isdisjoint({self.profile, self.rules}):
            message = "--lang zh: the profiles and rules of 2022 and 2023 are English only"
            raise ValueError(message)
        return self

    @model_validator(mode="after")
    def _resolve(self) -> Self:
        if self.window is None:
            if factor := TURNS_WINDOW_FACTORS.get(self.profile):
                self.window = max(1, factor * self.engine.in_flight // self.tasks_per_prompt)
            else:
                self.window = WINDOW_FACTOR * self.engine.in_flight
            # A run that is there already has its own, however many are in flight now; see `open_run`.
            self.model_fields_set.discard("window")
        return self

    def deciding(self) -> dict[str, Any]:
        """The deciding settings alone, as JSON values; of the prompts, the texts decide and not their folder."""
        return self.model_dump(mode="json", include=set(DecidingSettings.model_fields) - {"prompts"})

    def executing(self) -> dict[str, Any]:
        """The executing settings alone, as JSON values."""
        return self.model_dump(mode="json", include=set(ExecutingSettings.model_fields))


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
        WrongUseError: the file cannot be read, or a key or value will not do; the message names it.
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
        raise WrongUseError(_first_problem(error, config_file, flags)) from error


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
        WrongUseError: the file is missing, broken, or not a mapping.
    """
    try:
        values = yaml.load(path.read_text(encoding="utf-8"), _PlainLoader)  # noqa: S506 - a SafeLoader
    except OSError as error:
        message = f"--config {path}: {(error.strerror or str(error)).lower()}"
        raise WrongUseError(message) from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:  # bytes, dates and numbers that are none; nesting
        message = f"--config {path}: not plain YAML ({' '.join(str(error).split())})"
        raise WrongUseError(message) from error
    if values is None:  # comments alone, as in what `config show` prints of a command whose settings are all open
        return {}
    if not isinstance(values, dict):
        message = f"--config {path}: expected 'key: value' lines"
        raise WrongUseError(message)
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
