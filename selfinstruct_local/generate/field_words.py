"""Words that tell the field of seeds: frequent in them and rare in the built-in seeds, which are of all fields.

The weight is tf-idf (Sparck Jones 1972) with the built-in seeds as the collection; a word of an instruction counts
twice. English only: Chinese has no spaces, and pairs of its characters are seldom words.
"""

import functools
import math
import re
from collections import Counter
from collections.abc import Sequence

from selfinstruct_local.io.reader import read_tasks
from selfinstruct_local.seeds import seed_file
from selfinstruct_local.task import Task

MAX_WORDS = 12
# Share of the built-in seeds that a word may occur in; a more frequent one tells no field.
MAX_SHARE = 0.05
_WORD = re.compile(r"[a-z]{4,}")


def field_words(seeds: Sequence[Task]) -> list[str]:
    """Return the words that tell the field of the seeds best, at most `MAX_WORDS`, in descending weight."""
    size, collection = _collection()
    weights: Counter[str] = Counter()
    for seed in seeds:
        weights.update(_words(_text(seed)))
        weights.update(_words(seed.instruction))
    scores = {
        word: weight * math.log((size + 1) / (collection[word] + 1))
        for word, weight in weights.items()
        if collection[word] <= MAX_SHARE * size
    }
    return sorted(scores, key=lambda word: (-scores[word], word))[:MAX_WORDS]


@functools.cache
def _collection() -> tuple[int, Counter[str]]:
    """Return the number of built-in seeds, and in how many of them each word occurs."""
    seeds = read_tasks(seed_file())
    return len(seeds), Counter(word for seed in seeds for word in _words(_text(seed)))


def _text(task: Task) -> str:
    return "\n".join([task.instruction, *(text for each in task.instances for text in each)])


def _words(text: str) -> frozenset[str]:
    return frozenset(_WORD.findall(text.lower()))
