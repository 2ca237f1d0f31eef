"""The languages of prompts, seeds and rules, and the ROUGE-L tokenizer of each."""

from typing import Literal, get_args

Language = Literal["en", "zh"]
LANGUAGES: tuple[str, ...] = get_args(Language)
# English uses the tokenizer of the published programs, which keeps only a-z and 0-9; Chinese needs another one.
TOKENIZERS: dict[Language, Literal["rouge", "unicode"]] = {"en": "rouge", "zh": "unicode"}
