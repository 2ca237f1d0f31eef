"""The rule sets by name and language."""

from selfinstruct_local.filter.rules import RULE_SETS, Rule
from selfinstruct_local.filter.rules_zh import RULE_SETS_ZH
from selfinstruct_local.language import LANGUAGES


def rule_set(name: str, lang: str = "en") -> tuple[Rule, ...]:
    """The rules of that name for texts in that language.

    Args:
        name: a key of `RULE_SETS`.
        lang: `en`, or `zh` for Chinese, also with Latin words in it.

    Raises:
        ValueError: there are no rules of that name, or none for that language.
    """
    if name not in RULE_SETS or lang not in LANGUAGES:
        message = f"no rules {name!r} for language {lang!r}; {', '.join(RULE_SETS)} for {' and '.join(LANGUAGES)}"
        raise ValueError(message)
    if lang == "en":
        return RULE_SETS[name]
    return RULE_SETS_ZH[name]
