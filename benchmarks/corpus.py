"""Benchmark instructions in any number, generated from the text of this repository.

An n-gram model is fitted to the seeds. Its vocabulary would be too small: real instructions keep adding new words
(Heaps' law), and the speed of an index depends on how rare the rarest word of a text is. So some content words are
replaced by words from an unlimited tail with frequencies by Zipf's law. The two constants below were chosen so that
52,002 instructions have the mean length and the number of distinct words of the 52,002 published Alpaca instructions
(10.15 tokens, 13,913 words); `python benchmarks/corpus.py FILE` prints the comparison with a file.
"""

import random
import re
import sys
from collections import defaultdict
from itertools import pairwise
from pathlib import Path

from selfinstruct_local.io.reader import read_tasks
from selfinstruct_local.kernels import NoveltyIndex, encode
from selfinstruct_local.seeds import seed_file

TAIL_SHARE = 0.4  # share of the words of four or more letters
TAIL_EXPONENT = 1.295  # exponent of the Zipf law of the tail
TRIGRAM_SHARE, BIGRAM_SHARE = 0.2, 0.5  # the rest are drawn from all words
MEAN_WORDS, MIN_WORDS, MAX_WORDS = 10.15, 3, 60
LONG_WORD = 4  # letters
SYLLABLES = [first + vowel for first in "bdfgklmnprstvz" for vowel in "aeiou"]


class InstructionModel:
    """An interpolated trigram model of the words of the seeds, with an unlimited tail of rare words."""

    def __init__(self, seed: int = 0) -> None:
        self._random = random.Random(seed)  # noqa: S311 - a corpus, not a secret
        self._words: list[str] = []
        self._after_one: dict[str, list[str]] = defaultdict(list)
        self._after_two: dict[tuple[str, str], list[str]] = defaultdict(list)
        self._starts: list[str] = []
        for task in read_tasks(seed_file()):
            for text in (task.instruction, *(part for each in task.instances for part in (each.input, each.output))):
                for sentence in re.split(r"[.!?\n]+", text):
                    self._learn(re.findall(r"[a-z0-9]+", sentence.lower()))
            self._starts.append(re.findall(r"[a-z0-9]+", task.instruction.lower())[0])

    def _learn(self, words: list[str]) -> None:
        self._words.extend(words)
        for one, two in pairwise(words):
            self._after_one[one].append(two)
        for one, two, three in zip(words, words[1:], words[2:], strict=False):
            self._after_two[one, two].append(three)

    def instruction(self) -> str:
        """Return one instruction; lengths are log-normal, roughly like those of Alpaca."""
        stream = self._random
        length = round(stream.lognormvariate(2.23, 0.42))
        length = min(max(length, MIN_WORDS), MAX_WORDS)
        words = [stream.choice(self._starts)]
        while len(words) < length:
            words.append(self._next(words))
        shown = [
            self._tail_word() if len(word) >= LONG_WORD and stream.random() < TAIL_SHARE else word for word in words
        ]
        return " ".join(shown).capitalize() + "."

    def _next(self, words: list[str]) -> str:
        stream = self._random
        draw = stream.random()
        if draw < TRIGRAM_SHARE and len(words) > 1 and (after := self._after_two.get((words[-2], words[-1]))):
            return stream.choice(after)
        if draw < TRIGRAM_SHARE + BIGRAM_SHARE and (after := self._after_one.get(words[-1])):
            return stream.choice(after)
        return stream.choice(self._words)

    def _tail_word(self) -> str:
        # The inverse of Zipf's distribution function, for exponents above 1.
        rank = int((1.0 - self._random.random()) ** (-1.0 / (TAIL_EXPONENT - 1.0)))
        rank = min(rank, 10**9)
        word = ""
        while rank:
            rank, digit = divmod(rank, len(SYLLABLES))
            word += SYLLABLES[digit]
        return word

    def near_copy(self, text: str) -> str:
        """Return `text` with one to four words replaced, dropped, added or moved: ROUGE-L F is mostly 0.6 to 0.95."""
        stream = self._random
        words = text.rstrip(".").split()
        for _ in range(stream.randrange(1, 5)):
            place = stream.randrange(len(words))
            change = stream.randrange(4)
            if change == 0:
                words[place] = stream.choice(self._words)
            elif change == 1 and len(words) > MIN_WORDS:
                del words[place]
            elif change == 2:  # noqa: PLR2004 - the third of four kinds
                words.insert(place, stream.choice(self._words))
            else:
                words.insert(stream.randrange(len(words)), words.pop(place))
        return " ".join(words) + "."


def instructions(count: int, *, near_copies: float = 0.0, seed: int = 0) -> list[str]:
    """Return `count` instructions; a share of `near_copies` of them are altered copies of earlier ones."""
    model = InstructionModel(seed)
    stream = random.Random(seed + 1)  # noqa: S311
    texts: list[str] = []
    for _ in range(count):
        if texts and stream.random() < near_copies:
            texts.append(model.near_copy(stream.choice(texts)))
        else:
            texts.append(model.instruction())
    return texts


def describe(texts: list[str]) -> str:
    """Return length, vocabulary and the number of texts that the filter keeps, on one line."""
    encoded = encode(texts)
    lengths = encoded.offsets[1:] - encoded.offsets[:-1]
    kept = int(NoveltyIndex().filter(encoded).kept.sum())
    return (
        f"{len(texts)} texts, mean {lengths.mean():.2f} tokens, longest {lengths.max()}, "
        f"{len(encoded.vocabulary)} distinct tokens, {kept} kept at 0.7"
    )


if __name__ == "__main__":
    print("generated:", describe(instructions(52_002)))
    if len(sys.argv) > 1:
        print(f"{sys.argv[1]}:", describe([task.instruction for task in read_tasks(Path(sys.argv[1]))]))
