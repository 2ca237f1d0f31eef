"""Outputs that repeat a text unchanged although the instruction asks for a rewording.

A correction may leave a text unchanged, because it may have been right. A text that is improved, shortened or
simplified must change. Applies to English only. Rejects two of the 52,002 records of Stanford Alpaca.
"""

# ruff: noqa: RUF001 (the typographic apostrophe is meant)

import difflib
import re
from collections.abc import Sequence

from selfinstruct_local.filters.asking import Asking
from selfinstruct_local.task import Task

# Every instruction that asks for a rewording contains at least one; the precheck searches for these words.
REWORDING = (
    *("rephrase", "rephrased", "rephrasing", "reword", "reworded", "rewording", "paraphrase", "paraphrased"),
    *("paraphrasing", "concise", "concisely", "shorten", "shorter", "simplify", "simplified", "simpler"),
    *("improve", "improved", "improving"),
)
# Shorter texts may be repeated unchanged.
MIN_WORDS = 5
# Share of common words, in the same order. A contraction lowers it, as in `they'd` for `they had`. In a shorter text,
# leaving out one word may be the whole task.
MAX_SIMILARITY = 0.9
LIKE_WORDS = range(15, 400)  # the search for common words is quadratic
# Only the first texts of each side are compared, because each is compared with each.
LIKE_TEXTS = 8

_ASKS = re.compile(rf"\b(?:{'|'.join(REWORDING)})\b", re.IGNORECASE)
# With these words, a small change may be all that is asked for.
_SMALL_CHANGES = re.compile(
    r"\b(?:grammar\w*|spelling|punctuat\w*|capital\w*|errors?|mistakes?|correct\w*|typos?|remov\w*|delet\w*|replac\w*"
    r"|insert\w*|add\w*|tense|words? in|code|function|conjunctions?|begins?|if (?:needed|necessary))\b",
    re.IGNORECASE,
)
# An output that discusses a text may quote it.
_SPEAKS_OF_IT = re.compile(
    r"\b(?:explain\w*|analy[sz]\w*|discuss\w*|suggest\w*|how (?:can|could|would|should|might|to))\b", re.IGNORECASE
)
_QUOTED = re.compile(r"[\"“]([^\"“”\n]+)[\"”]")
# Matches "The sentence is: The car was too expensive."
_BEHIND_A_COLON = re.compile(r"[^.!?:]{0,100}: ?([^.!?:]+[.!?])")
_WORD = re.compile(r"[^\W_]+(?:['’-][^\W_]+)*")


def not_reworded(task: Task) -> str | None:
    """Return a message if an output is, or quotes unchanged, the text that it should reword; otherwise None."""
    if not _ASKS.search(task.instruction) or _SPEAKS_OF_IT.search(task.instruction):
        return None
    asks = Asking(task.instruction)
    quoted = _QUOTED.findall(task.instruction)
    for instance in task.instances:
        given = [*quoted, *_QUOTED.findall(instance.input)] or [_text(instance.input)]
        made = _QUOTED.findall(instance.output) or [_text(instance.output)]
        if _have_same(given, made, small_changes=asks.for_any(_SMALL_CHANGES)):
            return "an output repeats unchanged the text that it should reword"
    return None


def _text(text: str) -> str:
    match = _BEHIND_A_COLON.match(text)
    return match[1] if match else text


def _have_same(given: Sequence[str], made: Sequence[str], *, small_changes: bool) -> bool:
    """Return whether both sides share a text of at least `MIN_WORDS` words.

    If the instruction asks for small changes, the texts must be identical. Otherwise the words must be the same, or
    nearly the same for the first `LIKE_TEXTS` texts per side whose number of words is in `LIKE_WORDS`.
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
    # `quick_ratio` is an upper bound on `ratio` and is cheap.
    return matcher.quick_ratio() >= MAX_SIMILARITY and matcher.ratio() >= MAX_SIMILARITY
