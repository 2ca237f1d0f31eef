"""Texts that go round in circles: one phrase that follows itself, or the same items and sentences again and again.

Both are shares of a text's words, held against one limit. Leans on nothing.
"""

import operator
import re
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

from selfinstruct_local.task import Task

MIN_WORDS = 12
MAX_PHRASE = 8

# A run of words over half of a text goes through the middle one.
_HALF = 0.5
# Items and sentences end at a line's end, at a mark that ends a sentence, and at the mark of an item.
_NUMBER = re.compile(r"(?<!\d)\d+[.)](?=\s)")
_ENDS = re.compile("[\\n.!?;*\u2022\u3002\uff01\uff1f\uff1b]+")
# So many must be there before what comes again is a loop, and no refrain and no table of yes and no.
MIN_PIECES = 6
# Answers yes and no, or good, bad and neither, to a row of questions.
MAX_LABELS = 3
MAX_LABEL_WORDS = 2
_EDGES = " -,:\"'()*_\u201c\u201d\uff0c\u3001\uff1a"
_CODE = re.compile(r"[<>{}\[\]=|\\^@$]")
_LETTERS = re.compile(r"[^\W\d_]+")


@dataclass(frozen=True, slots=True)
class Repetition:
    """The check that no input or output is mostly one phrase over and over, and no output mostly the same items.

    Attributes:
        cut: gives the words of a text.
        least: texts of fewer words pass.
        longest: words of the longest phrase that is looked for.
        characters: shorter texts cannot have `least` words and are not cut.
        limit: the share, in [0, 1], above which a text is refused.
        letters: gives the words of a text that are of letters alone, in lower case.
    """

    cut: Callable[[str], list[str]]
    least: int
    longest: int
    characters: int
    limit: float
    letters: Callable[[str], list[str]]

    def __call__(self, task: Task) -> str | None:
        """What stands too often in `task`, or None."""
        for instance in task.instances:
            for name, text in (("input", instance.input), ("output", instance.output)):
                if len(text) < self.characters:
                    continue
                words = self.cut(text)
                if could_loop(words, self.least, self.longest, self.limit):
                    share = repeated_share(words, self.least, self.longest)
                    if share > self.limit:
                        return f"{share:.0%} of an {name} is one phrase over and over"
        return self.recurs(task)

    def recurs(self, task: Task) -> str | None:
        """What of the items and sentences of an output stood there before, or None."""
        for instance in task.instances:
            if len(instance.output) >= self.characters:
                share = recurring_share(instance.output, self.letters, self.least)
                if share > self.limit:
                    return f"{share:.0%} of an output are items or sentences that stood before"
        return None


def could_loop(words: list[str], least: int = MIN_WORDS, longest: int = MAX_PHRASE, limit: float = _HALF) -> bool:
    """Whether a phrase could fill more than `limit` of `words`; asked first, it spares nearly all texts the search.

    Each word of the run stands earlier, so the words are not mostly different. And a run over more than half of the
    words goes through the middle one, which then stands a few words earlier too.
    """
    if len(words) < least:
        return False
    middle = len(words) // 2
    if limit >= _HALF and words[middle] not in words[max(0, middle - longest) : middle]:
        return False
    return len(set(words)) < len(words) * (1 - limit)


def repeated_share(words: list[str], least: int = MIN_WORDS, longest: int = MAX_PHRASE) -> float:
    """Return the largest share of `words` that one phrase covers by following itself, in [0, 1].

    Phrases of 1 to `longest` words are tried; the first time a phrase stands does not count. The longest run of each
    length counts, unless its phrase is of a table, a pattern or a sum. Texts under `least` words give 0.
    O(longest * n) for n words.
    """
    total = len(words)
    if total < least:
        return 0.0
    longest_run = 0
    for period in range(1, longest + 1):
        # One byte a word: 1 where the word is the one a period before.
        repeats = bytes(map(operator.eq, words[period:], words))
        run = max(map(len, repeats.split(b"\0")))
        if run > longest_run:
            start = repeats.index(b"\1" * run)
            longest_run = longest_run if _is_layout(words[start : start + period]) else run
    return longest_run / total


def _is_layout(phrase: list[str]) -> bool:
    """Return whether a phrase is of an empty table, a pattern or a sum: marks, with or without numbers."""
    text = "".join(phrase)
    return not any(map(str.isalpha, text)) and not all(any(map(str.isalnum, word)) for word in phrase)


def latin_letters(text: str) -> list[str]:
    """The words of `text` that are of letters alone, in lower case."""
    return _LETTERS.findall(text.lower())


def recurring_share(text: str, letters: Callable[[str], list[str]] = latin_letters, least: int = MIN_WORDS) -> float:
    """The share of the words of `text` in items, lines or sentences that stood in it before, in [0, 1].

    Words are of letters alone here: the numbers of a list are none. What looks like code or a table never counts as
    having stood before, and nothing but a few labels is an answer. A text of fewer than `least` words or `MIN_PIECES`
    pieces gives 0. O(n) for n characters.
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
