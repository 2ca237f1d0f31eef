"""Rule sets by name, language and thresholds."""

import functools

from selfinstruct_local.filters.arithmetic import wrong_arithmetic
from selfinstruct_local.filters.checks import FailedCheck
from selfinstruct_local.filters.clarifying import clarifying_question
from selfinstruct_local.filters.faults import missing_input, missing_input_zh, refusal
from selfinstruct_local.filters.measured import JudgedLow, LowConfidence
from selfinstruct_local.filters.placeholders import placeholder
from selfinstruct_local.filters.repetition import MAX_PHRASE, MIN_WORDS, Repetition, latin_letters
from selfinstruct_local.filters.rewording import not_reworded
from selfinstruct_local.filters.rules import INSTANCE_RULES, UNSUITABLE, Rule, published_rules
from selfinstruct_local.filters.rules_zh import chinese_repetition, chinese_rules
from selfinstruct_local.filters.scripts import ForeignScript
from selfinstruct_local.filters.thresholds import DEFAULT_THRESHOLDS, Thresholds
from selfinstruct_local.filters.unfinished import copied, cut_off
from selfinstruct_local.languages.base import LANGUAGES, Language

# Exactly the published decisions, for English only: an empty output passes.
PUBLISHED = {"alpaca-2023": "alpaca", "self-instruct-2022": "self-instruct"}
RULE_SETS = (*UNSUITABLE, *PUBLISHED, "none")

OUTPUT_RULES = (
    Rule("cut_off", cut_off),
    Rule("copied", copied),
    Rule("clarifying_question", clarifying_question),
    Rule("not_reworded", not_reworded),
    Rule("wrong_arithmetic", wrong_arithmetic),
)


@functools.cache
def rule_set(name: str, lang: str = "en", limits: Thresholds = DEFAULT_THRESHOLDS) -> tuple[Rule, ...]:
    """Return the rules of a rule set for texts in a language.

    Args:
        name: one of `RULE_SETS`.
        lang: `en`, or `zh` for Chinese, also with Latin words in it.
        limits: the thresholds; a rule that they disable is left out.

    Raises:
        ValueError: there is no rule set of that name, or none for that language.
    """
    if name not in RULE_SETS or lang not in LANGUAGES or (name in PUBLISHED and lang != "en"):
        known = f"{', '.join(RULE_SETS)} for {' and '.join(LANGUAGES)}, {' and '.join(PUBLISHED)} only for en"
        message = f"no rules {name!r} for language {lang!r}; {known}"
        raise ValueError(message)
    if name == "none":
        return ()
    if name in PUBLISHED:
        return published_rules(PUBLISHED[name])
    if lang == "en":
        return (*published_rules(name), Rule("missing_input", missing_input), *_rules_of_instances("en", limits))
    return (*chinese_rules(name), Rule("missing_input", missing_input_zh), *_rules_of_instances("zh", limits))


def refuses_echoes(name: str) -> bool:
    """Return whether a rule set also rejects prompt echoes where the prompt is known; see echo.py."""
    return name in UNSUITABLE


def _rules_of_instances(lang: Language, limits: Thresholds) -> tuple[Rule, ...]:
    """Return the rules on inputs and outputs, on measures, and on anything with a threshold."""
    english = Repetition(
        str.split,
        MIN_WORDS,
        MAX_PHRASE,
        characters=2 * MIN_WORDS - 1,  # one character per word and a space between words
        limit=limits.max_repetition,
        letters=latin_letters,
    )
    asks_for_confidence = limits.min_confidence is not None or limits.min_output_confidence is not None
    return (
        *INSTANCE_RULES,
        *([Rule("refusal", refusal)] if limits.refuse_refusals else []),
        Rule("placeholder", placeholder),
        *OUTPUT_RULES,
        Rule("failed_check", FailedCheck(lang)),
        Rule("foreign_script", ForeignScript(lang, limits.max_foreign)),
        Rule("degenerate_repetition", english if lang == "en" else chinese_repetition(limits.max_repetition)),
        *(
            [Rule("low_confidence", LowConfidence(limits.min_confidence, limits.min_output_confidence))]
            if asks_for_confidence
            else []
        ),
        Rule("judged_low", JudgedLow(limits.min_judge)),
    )
