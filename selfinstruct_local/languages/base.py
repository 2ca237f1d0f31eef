"""The languages that prompts, seeds and rules are written in, and what each needs of the similarity core."""

from typing import Literal, get_args

Language = Literal["en", "zh"]
LANGUAGES: tuple[str, ...] = get_args(Language)
# English is decided by the tokens of the published programs, which see a-z and 0-9 alone; Chinese needs its own.
TOKENIZERS: dict[Language, Literal["rouge", "unicode"]] = {"en": "rouge", "zh": "unicode"}
