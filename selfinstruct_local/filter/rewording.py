"""Outputs that should say a text in other words and give it back as it was.

A text that is corrected may have been right; one that is made better, shorter or plainer is another one. English alone.
Of the 52,002 records of Stanford Alpaca it hits three, one of them sound. Leans on nothing.
"""

# ruff: noqa: RUF001 (the typographic apostrophe is meant)

import difflib
import re

from selfinstruct_local.tasks import Task

# One of these stands in every instruction that asks for other words; the screen looks for them.
REWORDING = (
    *("rephrase", "rephrased", "rephrasing", "reword", "reworded", "rewording", "paraphrase", "paraphrased"),
    *("paraphrasing", "concise", "concisely", "shorten", "shorter", "simplify", "simplified", "simpler"),
    *("impactful", "improve", "improved", "improving"),
)
# Shorter ones may well stay as they are.
LEAST_WORDS = 5
# Of words in common, in their order; a contraction leaves more, as in `they'd` for `they had`. In a shorter text one
# word that is left out may be all there was to do.
MAX_SIMILARITY = 0.9
LIKE_WORDS = range(15, 400)  # what finds the words in common takes the square of their number

_ASKS = re.compile(rf"\b(?:{'|'.join(REWORDING)})\b", re.IGNORECASE)
# Here so little may be all that was wanted.
_SMALL_CHANGES = re.compile(
    r"\b(?:grammar\w*|spelling|punctuat\w*|capital\w*|errors?|mistakes?|correct\w*|typos?|remov\w*|delet\w*|replac\w*"
    r"|insert\w*|add\w*|tense|words? in|code|function|conjunctions?|begins?|if (?:needed|necessary))\b",
    re.IGNORECASE,
)
_QUOTED = re.compile(r"[\"“]([^\"“”\n]+)[\"”]")
# The sentence is: The car was too expensive.
_BEHIND_A_COLON = re.compile(r"[^.!?:]{0,100}: ?([^.!?:]+[.!?])")
_WORD = re.compile(r"[^\W_]+(?:['’-][^\W_]+)*")


def not_reworded(task: Task) -> str | None:
    """Tells of an output that is the text which it should have reworded, or quotes it so."""
    if not _ASKS.search(task.instruction):
        return None
    for instance in task.instances:
        given = _QUOTED.findall(f"{task.instruction}\n{instance.input}") or [_text(instance.input)]
        made = _QUOTED.findall(instance.output) or [_text(instance.output)]
        if any(_is_same(before, after, task.instruction) for before in given for after in made):
            return "an output has the text that it should have put in other words as it was"
    return None


def _text(text: str) -> str:
    match = _BEHIND_A_COLON.match(text)
    return match[1] if match else text


def _is_same(before: str, after: str, instruction: str) -> bool:
    words, others = _WORD.findall(before.lower()), _WORD.findall(after.lower())
    if min(len(words), len(others)) < LEAST_WORDS:
        return False
    if before.strip() == after.strip():
        return True
    if _SMALL_CHANGES.search(instruction):
        return False
    if words == others or len(words) not in LIKE_WORDS or len(others) not in LIKE_WORDS:
        return words == others
    return difflib.SequenceMatcher(None, words, others, autojunk=False).ratio() >= MAX_SIMILARITY
