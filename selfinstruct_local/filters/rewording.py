"""Outputs that should say a text in other words and give it back as it was.

A text that is corrected may have been right; one that is made better, shorter or plainer is another one. English alone.
Of the 52,002 records of Stanford Alpaca it hits two.
"""

# ruff: noqa: RUF001 (the typographic apostrophe is meant)

import difflib
import re
from collections.abc import Sequence

from selfinstruct_local.filters.asking import Asking
from selfinstruct_local.task import Task

# One of these stands in every instruction that asks for other words; the screen looks for them.
REWORDING = (
    *("rephrase", "rephrased", "rephrasing", "reword", "reworded", "rewording", "paraphrase", "paraphrased"),
    *("paraphrasing", "concise", "concisely", "shorten", "shorter", "simplify", "simplified", "simpler"),
    *("improve", "improved", "improving"),
)
# Shorter ones may well stay as they are.
MIN_WORDS = 5
# Of words in common, in their order; a contraction leaves more, as in `they'd` for `they had`. In a shorter text one
# word that is left out may be all there was to do.
MAX_SIMILARITY = 0.9
LIKE_WORDS = range(15, 400)  # what finds the words in common takes the square of their number
# Of the texts given and of those made, so many are compared so: each is with each.
LIKE_TEXTS = 8

_ASKS = re.compile(rf"\b(?:{'|'.join(REWORDING)})\b", re.IGNORECASE)
# Here so little may be all that was wanted.
_SMALL_CHANGES = re.compile(
    r"\b(?:grammar\w*|spelling|punctuat\w*|capital\w*|errors?|mistakes?|correct\w*|typos?|remov\w*|delet\w*|replac\w*"
    r"|insert\w*|add\w*|tense|words? in|code|function|conjunctions?|begins?|if (?:needed|necessary))\b",
    re.IGNORECASE,
)
# Who speaks of a text may quote it.
_SPEAKS_OF_IT = re.compile(
    r"\b(?:explain\w*|analy[sz]\w*|discuss\w*|suggest\w*|how (?:can|could|would|should|might|to))\b", re.IGNORECASE
)
_QUOTED = re.compile(r"[\"“]([^\"“”\n]+)[\"”]")
# The sentence is: The car was too expensive.
_BEHIND_A_COLON = re.compile(r"[^.!?:]{0,100}: ?([^.!?:]+[.!?])")
_WORD = re.compile(r"[^\W_]+(?:['’-][^\W_]+)*")


def not_reworded(task: Task) -> str | None:
    """Return that an output is the text which it should have reworded, or quotes it so, or None."""
    if not _ASKS.search(task.instruction) or _SPEAKS_OF_IT.search(task.instruction):
        return None
    asks = Asking(task.instruction)
    quoted = _QUOTED.findall(task.instruction)
    for instance in task.instances:
        given = [*quoted, *_QUOTED.findall(instance.input)] or [_text(instance.input)]
        made = _QUOTED.findall(instance.output) or [_text(instance.output)]
        if _have_same(given, made, small_changes=asks.for_any(_SMALL_CHANGES)):
            return "an output has the text that it should have put in other words as it was"
    return None


def _text(text: str) -> str:
    match = _BEHIND_A_COLON.match(text)
    return match[1] if match else text


def _have_same(given: Sequence[str], made: Sequence[str], *, small_changes: bool) -> bool:
    """Whether a text of at least `MIN_WORDS` words is among both, to the letter where small changes are asked for.

    Otherwise its words decide: all of them, or nearly all for the first `LIKE_TEXTS` texts of each side that have
    `LIKE_WORDS` words.
    """
    if small_changes:
        made_texts = {text.strip() for text in made}
        return any(text.strip() in made_texts and len(_words(text)) >= MIN_WORDS for text in given)
    before, after = ([words for text in texts if len(words := _words(text)) >= MIN_WORDS] for texts in (given, made))
    if not set(map(tuple, before)).isdisjoint(map(tuple, after)):
        return True
    before, after = ([words for words in each if len(words) in LIKE_WORDS][:LIKE_TEXTS] for each in (before, after))
    return any(_are_alike(words, others) for words in before for others in after)


def _words(text: str) -> list[str]:
    return _WORD.findall(text.lower())


def _are_alike(words: list[str], others: list[str]) -> bool:
    matcher = difflib.SequenceMatcher(None, words, others, autojunk=False)
    # The second is never less than the third, and cheap.
    return matcher.quick_ratio() >= MAX_SIMILARITY and matcher.ratio() >= MAX_SIMILARITY
