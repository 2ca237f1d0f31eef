"""Texts that should have been put in other words, and those that may stay as they are."""

import pytest

from selfinstruct_local.filters import rewording
from selfinstruct_local.filters.rewording import not_reworded
from selfinstruct_local.io.reader import read_tasks
from selfinstruct_local.seeds import seed_file
from selfinstruct_local.task import Task

CAR = "The car was too expensive."
TEAM = "The new member, along with the rest of the team, had to train for a project they had just finished."


@pytest.mark.parametrize(
    ("instruction", "given", "output"),
    [
        ("Make the sentence more concise.", CAR, CAR),
        ("Make the sentence more concise.", CAR, f'Here it is: "{CAR}" It says the same in fewer words.'),
        ("Make the sentence more concise.", f"The sentence is: {CAR}", f"It can be put so: {CAR} This is shorter."),
        (f'Rephrase "{CAR}" for a child.', "", CAR),
        (f"Rephrase “{CAR}” for a child.", "", f"“{CAR}”"),
        ("Improve the grammar of it.", f'The sentence is: "{CAR}"', f'The sentence is: "{CAR}"'),
        ("Reword it.", CAR, "the car was too expensive"),
        (f'Make this more concise: "{TEAM}"', "", f'"{TEAM.replace("they had", "they’d")}" has the same in it.'),
    ],
)
def test_a_text_that_stayed_as_it_was_is_seen(instruction: str, given: str, output: str) -> None:
    assert not_reworded(Task.single(instruction, given, output))


@pytest.mark.parametrize(
    ("instruction", "given", "output"),
    [
        ("Make the sentence more concise.", CAR, "The car cost too much."),
        ("Make the sentence more concise.", "This hat is both stylish and warm.", "This hat is stylish and warm."),
        ("Improve the grammar.", "the car was too expensive", CAR),
        ("Improve it by adding a word.", TEAM, TEAM.replace("new", "newest")),
        ("Correct the sentence.", CAR, CAR),
        ("Explain how the sentence could be improved.", CAR, f'"{CAR}" could name the price.'),
        ("Suggest a simpler word.", CAR, f'"{CAR}" could say "dear" in place of "expensive".'),
        ("Shorten it.", "Stop it now!", "Stop it now!"),
        ("How can I improve my car?", "", "Wash it. The car will be as new."),
        ("Paraphrase it.", f"The sentence is: {CAR}", "It can be put so: Nobody could pay for that car."),
    ],
)
def test_what_was_reworded_or_may_stay_is_left_alone(instruction: str, given: str, output: str) -> None:
    assert not_reworded(Task.single(instruction, given, output)) is None


def test_long_texts_are_held_against_one_another_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(rewording, "difflib")  # which would take the square of the number of words
    long = "one word and " * 50_000
    assert not_reworded(Task.single("Shorten the text.", long, f"{long} another")) is None
    assert not_reworded(Task.single("Shorten the text.", long, long.upper()))


@pytest.mark.parametrize("lang", ["en", "zh"])
def test_no_seed_stays_as_it_was(lang: str) -> None:
    assert [seed.id for seed in read_tasks(seed_file(lang)) if not_reworded(seed)] == []


@pytest.mark.parametrize(("before", "seen"), [(rewording.LIKE_TEXTS - 1, True), (rewording.LIKE_TEXTS, False)])
def test_nearly_equal_texts_are_sought_among_the_first(before: int, seen: bool) -> None:  # noqa: FBT001
    others = " ".join(f'"{" ".join(f"w{text}x{word}" for word in range(20))}"' for text in range(before))
    made = TEAM.replace("just", "only")
    assert bool(not_reworded(Task.single("Rephrase it.", f'{others} "{TEAM}"', f'"{made}"'))) == seen
    # Equal ones are, wherever they stand.
    assert not_reworded(Task.single("Rephrase it.", f'{others} "{TEAM}"', f'{made} "{TEAM}"'))
