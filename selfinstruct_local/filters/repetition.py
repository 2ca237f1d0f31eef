"""Degenerate repetition: one phrase that follows itself, or the same items and sentences again and again.

Both are shares of a text's words and are compared with the same limit.
"""

import operator
import re
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

from selfinstruct_local.task import Task

MIN_WORDS = 12
MAX_PHRASE = 8

# A run of words over more than half of a text includes the middle word.
_HALF = 0.5
# Items and sentences end at the end of a line, at a mark that ends a sentence, and at an item mark.
_NUMBER = re.compile(r"(?<!\d)\d+[.)](?=\s)")
_ENDS = re.compile("[\\n.!?;*\u2022\u3002\uff01\uff1f\uff1b]+")
# The number of pieces from which repetition is a loop, not a refrain or a table of yes and no.
MIN_PIECES = 6
# For example the answers yes and no, or good, bad and neither, to a row of questions.
MAX_LABELS = 3
MAX_LABEL_WORDS = 2
_EDGES = " -,:\"'()*_\u201c\u201d\uff0c\u3001\uff1a"
_CODE = re.compile(r"[<>{}\[\]=|\\^@$]")
_LETTERS = re.compile(r"[^\W\d_]+")


@dataclass(frozen=True, slots=True)
class Repetition:
    """The check that no input or output is mostly one repeated phrase, and no output mostly repeated items.

    Attributes:
        cut: splits a text into words.
        least: texts of fewer words pass.
        longest: number of words of the longest phrase that is searched.
        characters: shorter texts cannot have `least` words and are not split.
        limit: the share, in [0, 1], above which a text is rejected.
        letters: returns the words of a text that consist only of letters, in lower case.
    """

    cut: Callable[[str], list[str]]
    least: int
    longest: int
    characters: int
    limit: float
    letters: Callable[[str], list[str]]

    def __call__(self, task: Task) -> str | None:
        """Return what is repeated too often in `task`, or None."""
        for instance in task.instances:
            for name, text in (("input", instance.input), ("output", instance.output)):
                if len(text) < self.characters:
                    continue
                words = self.cut(text)
                if could_loop(words, self.least, self.longest, self.limit):
                    share = repeated_share(words, self.least, self.longest)
                    if share > self.limit:
                        return f"{share:.0%} of an {name} is one repeated phrase"
        return self.recurs(task)

    def recurs(self, task: Task) -> str | None:
        """Return which share of an output's items and sentences is repeated, if it is above the limit, or None."""
        for instance in task.instances:
            if len(instance.output) >= self.characters:
                share = recurring_share(instance.output, self.letters, self.least)
                if share > self.limit:
                    return f"{share:.0%} of an output are repeated items or sentences"
        return None


def could_loop(words: list[str], least: int = MIN_WORDS, longest: int = MAX_PHRASE, limit: float = _HALF) -> bool:
    """Return whether a phrase could fill more than `limit` of `words`; a cheap test before the full search.

    Each word of the run occurs earlier, so the words are not mostly different. A run over more than half of the words
    includes the middle one, which then also occurs a few words earlier.
    """
    if len(words) < least:
        return False
    middle = len(words) // 2
    if limit >= _HALF and words[middle] not in words[max(0, middle - longest) : middle]:
        return False
    return len(set(words)) < len(words) * (1 - limit)


def repeated_share(words: list[str], least: int = MIN_WORDS, longest: int = MAX_PHRASE) -> float:
    """Return the largest share of `words` that one phrase covers by following itself, in [0, 1].

    Phrases of 1 to `longest` words are tried; the first occurrence of a phrase does not count. The longest run of each
    length counts, unless its phrase belongs to a table, a pattern or a sum. The share is 0 for texts under `least`
    words. O(longest * n) for n words.
    """
    total = len(words)
    if total < least:
        return 0.0
    longest_run = 0
    for period in range(1, longest + 1):
        # One byte per word: 1 if the word equals the one a period before.
        repeats = bytes(map(operator.eq, words[period:], words))
        run = max(map(len, repeats.split(b"\0")))
        if run > longest_run:
            start = repeats.index(b"\1" * run)
            longest_run = longest_run if _is_layout(words[start : start + period]) else run
    return longest_run / total


def _is_layout(phrase: list[str]) -> bool:
    """Return whether a phrase belongs to an empty table, a pattern or a sum: marks, with or without numbers."""
    text = "".join(phrase)
    return not any(map(str.isalpha, text)) and not all(any(map(str.isalnum, word)) for word in phrase)


def latin_letters(text: str) -> list[str]:
    """Return the words of `text` that consist only of letters, in lower case."""
    return _LETTERS.findall(text.lower())


def recurring_share(text: str, letters: Callable[[str], list[str]] = latin_letters, least: int = MIN_WORDS) -> float:
    """Return the share of the words of `text` in repeated items, lines or sentences, in [0, 1].

    Only words of letters count; the numbers of a list do not. What looks like code or a table never counts as repeated,
    and a text that consists only of a few labels is a valid answer. The share is 0 for texts of fewer than `least`
    words or `MIN_PIECES` pieces. O(n) for n characters.
    """
    pieces = [" ".join(part.split()).strip(_EDGES) for part in _ENDS.split(_NUMBER.sub("\n", text.lower()))]
    counts = Counter(piece for piece in pieces if piece and not piece.isdigit())
    if counts.total() < MIN_PIECES or len(counts) == counts.total():
        return 0.0
    if len(counts) <= MAX_LABELS and all(len(letters(piece)) <= MAX_LABEL_WORDS for piece in counts):
        return 0.0
    again = sum(
        (count - 1) * len(letters(piece)) for piece, count in counts.items() if count > 1 and not _CODE.search(piece)
    )
    words = len(letters(text)) if again else 0
    return again / words if words >= least else 0.0
