"""Outputs that say the same few words again and again."""

import pytest

from selfinstruct_local.filter.limits import DEFAULT_LIMITS
from selfinstruct_local.filter.phrases import LEAST_WORDS, RecurringPhrases, recurring_share
from selfinstruct_local.filter.rules import apply_rules
from selfinstruct_local.filter.rulesets import rule_set
from selfinstruct_local.seeds import seed_file
from selfinstruct_local.taskfiles import read_tasks
from selfinstruct_local.tasks import Task

MIXED = (
    "I suggest a mix of food and drinks for the guests. The buffet can have a mix of food and drinks, and the bar can "
    "have a mix of food and drinks for the guests as well as a mix of food and drinks."
)


def test_the_share_is_that_of_trigrams_seen_before() -> None:
    words = [str(number) for number in range(LEAST_WORDS)]
    assert recurring_share(" ".join(words)) == 0
    assert recurring_share(" ".join(words[:-1])) == 0
    # 30 trigrams, of which the last four ("5 0 1" is new) stood before.
    again = " ".join([*words, *words[:6]])
    assert recurring_share(again) == pytest.approx(4 / 28)


def test_a_text_that_goes_round_is_refused_where_nobody_asks_for_it() -> None:
    rules = rule_set("alpaca", "en", DEFAULT_LIMITS._replace(max_recurrence=0.25))
    assert apply_rules(rules, Task.single("Plan the catering of a party.", "", MIXED)).rule == "recurring_phrases"
    assert apply_rules(rules, Task.single("Write a song about a party.", "", MIXED)).keep
    assert apply_rules(rule_set("alpaca"), Task.single("Plan the catering of a party.", "", MIXED)).keep


@pytest.mark.parametrize(
    "output",
    [
        "It makes a cohesive and cohesive team.",
        "It needs a goal, a marketing budget, and a marketing budget.",
        "They offer mental health days, mental health days, and more.",
        "They give product recommendations or even product recommendations.",
    ],
)
def test_a_thing_named_beside_itself_is_refused(output: str) -> None:
    task = Task.single("Tell how a team works.", "", output)
    assert "one thing twice" in str(RecurringPhrases(0.25)(task))
    assert RecurringPhrases(1.0)(task) is None
    assert RecurringPhrases(0.25)(task._replace(instruction="Write a song about a team.")) is None


@pytest.mark.parametrize(
    "output",
    [
        "Try it again and again, and it gets brighter and brighter.",
        "University and university towns, and Business and Business Weekly.",
        "They give product recommendations and product descriptions.",
        "Call the shop, the shop is open.",
    ],
)
def test_what_is_doubled_on_purpose_passes(output: str) -> None:
    assert RecurringPhrases(0.25)(Task.single("Tell how a team works.", "", output)) is None


@pytest.mark.parametrize("lang", ["en", "zh"])
def test_no_seed_goes_round(lang: str) -> None:
    check = RecurringPhrases(0.25)
    assert [seed.id for seed in read_tasks(seed_file(lang)) if check(seed)] == []
