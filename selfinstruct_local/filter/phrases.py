"""The check for outputs that say the same few words again and again, though not in a row, or name one thing twice.

Repeated trigrams tell such texts from others: of what the embedded model wrote, nearly all with more than a quarter of
them are worthless, and of the 52,002 outputs of Stanford Alpaca three in a thousand have so many, most of them verse,
code and rows that are meant to be alike, which pass. A thing that is named beside itself is as bad a sign.
"""

# ruff: noqa: RUF001 (the typographic apostrophe is meant)

import re
from dataclasses import dataclass

from selfinstruct_local.filter.rules_zh import tokens
from selfinstruct_local.tasks import Task

PHRASE = 3
LEAST_WORDS = 24
_CALLS_FOR_RECURRENCE = re.compile(
    r"\b(?:songs?|poems?|lyrics|raps?|verses?|chorus|chants?|rhymes?|quiz\w*|code|functions?|programs?|scripts?|sql|html|css"
    r"|python|javascript|java|maze|tables?|json|xml|titles?|dialog\w*|conversations?|sequences?|patterns?|repeat\w*|match\w*"
    r"|categor\w*|classif\w*|schedules?|equations?|combinations?|permutations?)\b|诗|歌|代码|函数|程序|表格|对话|排列|重复",
    re.IGNORECASE,
)
# `Cohesive and cohesive`; `a marketing budget, and a marketing budget`; in a row, `mental health days, mental health
# days, and more`. Shorter words, and what is
# more so and more so, are doubled on purpose: `again and again`.
_SEVERAL_WORDS = r"(?:\w+[ '’-]){1,9}\w+"
_DOUBLED = re.compile(
    rf"\b({_SEVERAL_WORDS}|(?-i:[a-z]{{8,}}(?<!er))),? (?:and|or)(?: even)? \1\b"
    rf"|\b({_SEVERAL_WORDS}), \2(?:,| and\b| or\b)",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True)
class RecurringPhrases:
    """The check with its limit: the share of an output's trigrams, in [0, 1], that stood in it before.

    With a limit below 1, a thing that an output names beside itself is refused too.
    """

    limit: float

    def __call__(self, task: Task) -> str | None:
        """The share that is too high, or what is named twice, or None."""
        for instance in task.instances:
            share = recurring_share(instance.output)
            doubled = _DOUBLED.search(instance.output) if self.limit < 1 else None
            if (share <= self.limit and not doubled) or "```" in instance.output:
                continue
            if _CALLS_FOR_RECURRENCE.search(task.instruction):
                return None
            if share > self.limit:
                return f"{share:.0%} of an output's trigrams stood in it before, at most {self.limit:.0%} wanted"
            if doubled:
                return f"an output names one thing twice: '{' '.join(doubled[0].split())[:80]}'"
        return None


def recurring_share(text: str) -> float:
    """The share of the trigrams of words that stood in the text before, in [0, 1]; 0 for short texts."""
    words = tokens(text)
    if len(words) < LEAST_WORDS:
        return 0.0
    trigrams = [tuple(words[start : start + PHRASE]) for start in range(len(words) - PHRASE + 1)]
    return 1 - len(set(trigrams)) / len(trigrams)
