"""The root verb of an instruction is the one its first sentence turns on."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

pytest.importorskip("spacy")

from verbs import RootVerb, root_verbs


def test_verbs_are_those_the_sentence_turns_on() -> None:
    found = list(
        root_verbs(["Write a short poem about the sea. Then read it aloud.", "Translated the sentences.", "Blue?", ""])
    )
    assert found == [RootVerb("write", "poem"), RootVerb("translate", "sentence"), RootVerb(), RootVerb()]
