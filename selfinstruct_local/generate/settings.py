"""The settings of `selfinstruct generate`.

A run has two kinds of settings. *Deciding* settings affect the prompts and which tasks are accepted; they are fixed
when the run is created. *Executing* settings are stop conditions and performance settings; they can change on every
resume.
"""

from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, PlainSerializer, PlainValidator, model_validator

from selfinstruct_local.config.loading import LARGEST
from selfinstruct_local.engines.settings import EngineSettings
from selfinstruct_local.filters.thresholds import DEFAULT_THRESHOLDS, Thresholds
from selfinstruct_local.languages.base import Language
from selfinstruct_local.prompts import Prompts, read_prompts

ProfileName = Literal["alpaca", "self-instruct", "magpie", "alpaca-2023", "self-instruct-2022"]
RuleSetName = Literal["alpaca", "self-instruct", "alpaca-2023", "self-instruct-2022", "none"]
ENGLISH_ONLY = frozenset({"alpaca-2023", "self-instruct-2022"})
PromptFormat = Literal["completion", "chat"]
# Lag of the prompt pool in jobs, as a multiple of the requests in flight. With a smaller window one slow request
# empties the engine while all others wait for its decision.
WINDOW_FACTOR = 8
# The same for profiles with several concurrent requests per job, as a multiple of the jobs that fill the engine.
TURNS_WINDOW_FACTORS = {"magpie": 4, "self-instruct": 2}


# Defaults per profile. Those of the profiles with a year are from the published programs: generate_instruction.py of
# stanford_alpaca, and bootstrap_instructions.py of self-instruct.
PROFILE_DEFAULTS: dict[str, dict[str, Any]] = {
    "alpaca": {},
    # The minimum confidences were chosen on one model of 1.5 billion parameters: among 42 free answers that two readers
    # judged, 8 of the 11 below -0.35 were wrong, and 13 of the 31 above.
    "self-instruct": {
        "temperature": 0.8,
        "min_confidence": -1.9,
        "min_output_confidence": -0.35,
        "tasks_per_prompt": 4,
        # Above the resulting shares of 15 % and 30 %, because more of these tasks are rejected: with 0.3 and 0.25, 16 %
        # of 56 tasks of a model of 1.5 billion parameters were classification, and 27 % had an input.
        "classification_share": 0.3,
        "input_share": 0.35,
    },
    # A stricter threshold and a minimum confidence, because no prompt keeps the generated user turns from repeating
    # themselves or being incoherent.
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

# Overrides of the defaults for short answers.
SHORT_ANSWER_DEFAULTS: dict[str, dict[str, Any]] = {
    "magpie": {"min_confidence": -1.5, "min_output_confidence": -0.7, "max_tokens": 256},
    "self-instruct": {"min_output_confidence": -0.7, "max_tokens": 256},
}


def profile_defaults(profile: str, answers: str) -> dict[str, Any]:
    """Return the default settings of a profile; empty for an unknown profile."""
    defaults = PROFILE_DEFAULTS.get(profile, {})
    return {**defaults, **SHORT_ANSWER_DEFAULTS.get(profile, {})} if answers == "short" else defaults


def _as_prompts(value: Any) -> Prompts:
    """Return the prompt templates of a folder; None selects the built-in ones."""
    if isinstance(value, Prompts):
        return value
    if value is not None and not isinstance(value, str | Path):
        message = "expected a folder path"
        raise ValueError(message)
    return Prompts() if value is None else read_prompts(Path(value))


def _folder_of(prompts: Prompts) -> str | None:
    return str(prompts.folder) if prompts.folder else None


class DecidingSettings(BaseModel):
    """Settings that affect the tasks of a run; fixed when the run is created."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    profile: ProfileName = Field("self-instruct", description="generation profile")
    lang: Language = Field("en", description="language of prompts, seeds and rules: en or zh")
    threshold: float = Field(0.7, gt=0, le=1, description="ROUGE-L F above which an instruction is a near copy")
    prompt_format: PromptFormat = Field(
        "completion", description="completion, for base models, or chat, with the model's own chat template"
    )
    answers: Literal["short", "full"] = Field(
        "short", description="output length in self-instruct and magpie: short is one paragraph, full is any length"
    )
    structured: bool = Field(
        default=False, description="constrained decoding to a JSON schema or to the allowed labels"
    )
    rules: RuleSetName = Field("alpaca", description="rule set; the profile's by default")
    max_repetition: float = Field(
        DEFAULT_THRESHOLDS.max_repetition,
        ge=0,
        le=1,
        description="maximum fraction of a text that repeats earlier parts of it",
    )
    max_echo: float = Field(
        DEFAULT_THRESHOLDS.max_echo,
        ge=0,
        le=1,
        description="maximum ROUGE-L F of an output with its instruction or a few-shot example",
    )
    max_foreign: float = Field(
        DEFAULT_THRESHOLDS.max_foreign, ge=0, le=1, description="maximum fraction of an output in an unexpected script"
    )
    refuse_refusals: bool = Field(
        DEFAULT_THRESHOLDS.refuse_refusals, description="rejection of outputs that decline to answer"
    )
    min_confidence: float | None = Field(
        DEFAULT_THRESHOLDS.min_confidence,
        le=0,
        description="minimum mean log-probability per token of instructions, in nats",
    )
    min_output_confidence: float | None = Field(
        DEFAULT_THRESHOLDS.min_output_confidence,
        le=0,
        description="minimum mean log-probability per token of outputs, in nats",
    )
    judge: bool = Field(default=False, description="scoring of each task by the model, from 1 to 5")
    min_judge: float = Field(DEFAULT_THRESHOLDS.min_judge, ge=1, le=5, description="minimum judge score")
    temperature: float = Field(0.7, ge=0, le=2, description="sampling temperature; 0 is greedy")
    top_p: float = Field(0.95, gt=0, le=1, description="nucleus sampling probability")
    max_tokens: int = Field(
        768,
        ge=1,
        le=LARGEST,
        description="maximum tokens per completion; clamped to the context minus the prompt",
    )
    max_model_len: int = Field(
        2048, ge=256, le=LARGEST, description="context length in tokens, including prompt and completion"
    )
    tasks_per_prompt: int = Field(5, ge=1, le=20, description="new tasks per prompt")
    answers_per_task: int = Field(
        1, ge=1, le=64, description="outputs requested per task, of which the most common one is kept"
    )
    instances_per_task: int = Field(1, ge=1, le=5, description="maximum instances per task")
    subject: Literal["any", "seeds"] = Field(
        "any", description="subject of new tasks of profile self-instruct: any, or the field of the seeds"
    )
    topics: tuple[str, ...] = Field((), description="topics, of which one is drawn per prompt")
    classification_share: float | None = Field(
        None,
        ge=0,
        le=1,
        description="fraction of prompts that request classification tasks; left to the model if unset",
    )
    input_share: float | None = Field(
        None,
        ge=0,
        le=1,
        description="fraction of the other prompts that request tasks with an input; left to the model if unset",
    )
    favor_rare: bool = Field(
        default=False, description="preference for few-shot examples that differ from the rest of the pool"
    )
    seed: int = Field(0, ge=0, le=LARGEST, description="random seed")
    quantization: str | None = Field(
        None,
        description="vLLM quantization method for the weights (fp8, ...); the model folder's own by default",
    )
    window: int | None = Field(
        None,
        ge=1,
        le=LARGEST,
        description="lag of the prompt pool, in jobs; 8 times the requests in flight by default",
    )

    # Given as a folder and read only once, so that the prompts in use are the ones that were checked and stored.
    prompts: Annotated[Prompts, PlainValidator(_as_prompts), PlainSerializer(_folder_of)] = Field(
        Prompts(), description="folder of prompt templates that replace built-in ones of the same names"
    )

    def thresholds(self) -> Thresholds:
        """Return the thresholds of the rules."""
        return Thresholds(**{name: getattr(self, name) for name in Thresholds._fields})


class ExecutingSettings(BaseModel):
    """Stop conditions and performance settings of a run; can change on every resume."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    num: int = Field(100, ge=1, le=LARGEST, description="target number of accepted tasks")
    patience: int = Field(
        200, ge=1, le=LARGEST, description="consecutive jobs without an accepted task after which the run stops"
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
        # An unknown profile is reported together with the other invalid fields.
        return {**profile_defaults(str(profile), str(answers)), **values}

    @model_validator(mode="after")
    def _check_language(self) -> Self:
        if self.lang == "zh" and not ENGLISH_ONLY.isdisjoint({self.profile, self.rules}):
            message = "--lang zh: the profiles and rules of 2022 and 2023 support only English; choose others"
            raise ValueError(message)
        return self

    @model_validator(mode="after")
    def _resolve(self) -> Self:
        if self.window is None:
            if factor := TURNS_WINDOW_FACTORS.get(self.profile):
                self.window = max(1, factor * self.engine.in_flight // self.tasks_per_prompt)
            else:
                self.window = WINDOW_FACTOR * self.engine.in_flight
            # An existing run keeps its own window, regardless of the current requests in flight; see `open_run`.
            self.model_fields_set.discard("window")
        return self

    def deciding(self) -> dict[str, Any]:
        """Return the deciding settings as JSON values, without the prompts folder: its texts are compared instead."""
        return self.model_dump(mode="json", include=set(DecidingSettings.model_fields) - {"prompts"})

    def executing(self) -> dict[str, Any]:
        """Return the executing settings as JSON values."""
        return self.model_dump(mode="json", include=set(ExecutingSettings.model_fields))
