"""Outputs that pose as a person, and those that may speak of one."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from selfinstruct_local.filter.persona import poses
from selfinstruct_local.seeds import seed_file
from selfinstruct_local.taskfiles import read_tasks
from selfinstruct_local.tasks import Instance, Task

HELP = "I need a new job. Where do I begin?"


@pytest.mark.parametrize(
    "output",
    [
        "As a career coach, I would begin with your strengths.",
        "I'm a freelance writer, and happy to help.",
        "Begin at home. I’m only a human.",
        "I am not just a professional, and you can count on me.",
        "I've worked on many resumes.",
        "The list I mentioned earlier has ten places.",
        "One of my students began with a letter.",
        "My team and I look for new people.",
        "I specialize in jobs at sea.",
        "I work with people like you.",
        "I am excited to begin.",
    ],
)
def test_who_speaks_of_its_own_work_is_seen(output: str) -> None:
    assert (seen := poses(Task.single(HELP, "", output)))
    assert seen.startswith("an output poses as a person: '")


@pytest.mark.parametrize(
    ("instruction", "output"),
    [
        (HELP, "Begin with a list of what you do well. As a nurse, you have many choices."),
        (HELP, "I would begin with a list. I hope this helps."),
        (HELP, 'Say on the phone: "I\'m a nurse, and I have worked in Rome."'),
        (HELP, "Say on the phone: “I’m a nurse.”"),
        ("Name three ways to a new job.", "As a career coach, I would begin with your strengths."),
        ("Write a letter about my job.", "I'm a nurse, and I have worked in Rome."),
        ("Pretend to be my boss.", "As a manager, I am glad of you."),
        ("Tell me what my story lacks.", "One of my favourites has no end."),
    ],
)
def test_advice_and_texts_in_a_voice_are_left_alone(instruction: str, output: str) -> None:
    assert poses(Task.single(instruction, "", output)) is None


def test_every_case_is_looked_at() -> None:
    cases = (Instance("", "Begin with a list."), Instance("", "As a writer, I begin with a list."))
    assert poses(Task(HELP, cases))


@pytest.mark.parametrize("lang", ["en", "zh"])
def test_no_seed_poses(lang: str) -> None:
    assert [seed.id for seed in read_tasks(seed_file(lang)) if poses(seed)] == []


@given(st.text(), st.text())
def test_whatever_stands_there_it_gives_an_answer(instruction: str, output: str) -> None:
    assert poses(Task.single(instruction, "", output)) is None or "I" in output.upper()
