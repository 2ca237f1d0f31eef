"""The allowed values of options, for shell completion, which must be fast, and for validation.

The modules that use these values import numba or pydantic and define them again; `tests/test_cli_manners.py` checks
that both agree.
"""

from collections.abc import Callable, Collection, Sequence

from selfinstruct_local.languages.base import LANGUAGES

PROFILES = ("alpaca", "self-instruct", "magpie", "alpaca-2023", "self-instruct-2022")
RULE_SETS = ("alpaca", "self-instruct", "alpaca-2023", "self-instruct-2022", "none")
PRESETS = ("alpaca-7b", "lora-7b", "qlora-7b", "demo-cpu")
FORMATS = ("alpaca", "regen", "self-instruct", "sharegpt", "messages", "prompt-completion")
PROMPT_FORMATS = ("completion", "chat")
TEMPLATES = ("alpaca", "chat")
ANSWERS = ("short", "full")
SUBJECTS = ("any", "seeds")
SWITCH = ("on", "off", "auto")
DTYPES = ("auto", "float32", "bfloat16", "float16")
METHODS = ("lora", "qlora", "full")
BATCHINGS = ("padding-free", "padded", "packed")
OVERLONG = ("drop", "truncate")
PREFILTERS = ("exact", "minhash", "none", "auto")
TOKENIZER_NAMES = ("rouge", "unicode")
BACKENDS = ("mp", "ray")
FILTER_ENGINES = ("local", "ray")
REVIEW_PER = ("sample", "source", "rule")
# Commands with a --config option.
CONFIGURABLE = ("generate", "translate", "polish", "train", "eval", "filter", "serve")

Complete = Callable[[str], list[str]]


def completing(names: Sequence[str]) -> Complete:
    """Return a shell-completion function for typer: it gives the names that start with the typed text."""

    def complete(incomplete: str) -> list[str]:
        return [name for name in names if name.startswith(incomplete)]

    return complete


languages = completing(LANGUAGES)


def check_choice(flag: str, value: str | None, choices: Collection[str | None]) -> None:
    """Raise UsageError if the value is not one of the choices.

    Raises:
        UsageError: the value is not allowed; the message names the flag and the choices.
    """
    from selfinstruct_local.errors import UsageError

    if value not in choices:
        message = f"{flag} {value}: use one of {', '.join(choice for choice in choices if choice)}"
        raise UsageError(message)
