"""The words that tell the field of the user's own seeds."""

from pathlib import Path

import pytest

from selfinstruct_local.generate.field_words import MAX_WORDS, field_words
from selfinstruct_local.io.reader import read_tasks
from selfinstruct_local.task import Task
from tests.generate.test_self_instruct import FORMATS, PLAIN, by_stage, job, settings, work_through

SEEDS = Path(__file__).parents[2] / "benchmarks/seeds"


@pytest.mark.parametrize(
    ("file", "words"), [("chemistry", {"substance", "compound", "mixture"}), ("gardening", {"plant", "soil", "sown"})]
)
def test_words_of_few_seeds_tell_their_field(file: str, words: set[str]) -> None:
    found = field_words(read_tasks(SEEDS / f"{file}.jsonl"))
    assert words <= set(found)
    assert len(found) == MAX_WORDS


def test_words_of_all_fields_tell_none() -> None:
    common = Task.single("Say in one sentence what this would be about, and answer with that only when there is time.")
    assert field_words([common] * 9) == []


@pytest.mark.parametrize("prompt_format", FORMATS)
@pytest.mark.parametrize(
    ("subject", "topics", "there"), [("seeds", [], True), ("any", [], False), ("seeds", ["tax"], False)]
)
def test_they_are_in_the_prompt_where_the_field_is_kept(
    prompt_format: str, subject: str, topics: list[str], *, there: bool
) -> None:
    chosen = settings("en", prompt_format, subject=subject, topics=topics)
    asked, _ = work_through(job(), chosen, by_stage(PLAIN["en"]))
    request = asked["question"][0]
    said = "\n".join([*(turn.content for turn in request.turns), request.prompt])
    assert ("from the field of these words: " in said) == there
