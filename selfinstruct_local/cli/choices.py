"""Values of options that are one of a few: for shell completion, which must answer at once, and the check of them.

They stand in the modules that check them too, which import numba or pydantic; `tests/test_cli_manners.py` holds the two
together.
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
# Commands that take --config.
CONFIGURABLE = ("generate", "translate", "polish", "train", "eval", "filter", "serve")

Complete = Callable[[str], list[str]]


def completing(names: Sequence[str]) -> Complete:
    """What typer asks for the values that go on from what was typed."""

    def complete(incomplete: str) -> list[str]:
        return [name for name in names if name.startswith(incomplete)]

    return complete


languages = completing(LANGUAGES)


def check_choice(flag: str, value: str | None, choices: Collection[str | None]) -> None:
    """Refuses what is none of the choices.

    Raises:
        UsageError: naming the flag and the choices.
    """
    from selfinstruct_local.errors import UsageError

    if value not in choices:
        message = f"{flag} {value}: one of {', '.join(choice for choice in choices if choice)}"
        raise UsageError(message)
