"""Outputs that say next to nothing that was not in the question."""

from selfinstruct_local.filter.limits import DEFAULT_LIMITS
from selfinstruct_local.filter.rules import apply_rules
from selfinstruct_local.filter.rulesets import rule_set
from selfinstruct_local.filter.substance import LittleNew, meaningful_words
from selfinstruct_local.tasks import Instance, Task

QUESTION = "How can a team of 20 plan a launch?"
ROUND = (
    "To plan a launch, a team of 20 can plan the launch with the team, and then the team will launch what it planned, "
    "so that the launch that the team of 20 has planned can be launched by that team."
)
PLAN = (
    "Agree on a date, name somebody who decides, and write down what must be ready by then. Divide the work among "
    "small groups, meet each Monday, test everything with a few customers, and keep a week in reserve for repairs."
)


def test_words_that_carry_a_meaning_are_counted_once_whatever_their_end() -> None:
    assert meaningful_words("Market, marketing and the MARKETS, but not they and 1234.") == ["market"] * 3
    of_one = "The harbour, its harbours, and harbouring. " * 6
    assert LittleNew(1, "en")(Task.single(QUESTION, "planning", of_one)) is None
    assert LittleNew(2, "en")(Task.single(QUESTION, "", of_one))


def test_a_long_output_needs_as_many_new_words_as_the_limit_says() -> None:
    task = Task.single("Name a river.", "The Nile", "Thames, Danube, Volga and the Nile " * 5)
    assert LittleNew(3, "en")(task) is None
    assert LittleNew(4, "en")(task) == "of 30 words of an output 3 are new, at least 4 wanted"


def test_a_short_answer_is_left_alone() -> None:
    assert LittleNew(16, "en")(Task.single("What is the capital of France?", "", "Paris.")) is None
    assert LittleNew(16, "en")(Task.single("Name a river.", "", " ".join(["Nile"] * 29))) is None
    assert LittleNew(16, "en")(Task.single("Name a river.", "", " ".join(["Nile"] * 30)))


def test_a_sentence_that_tells_how_needs_a_handful() -> None:
    question = "How can a farmer use social media to sell honey?"
    empty = "A farmer can use social media to sell honey by using social media and honey."
    told = "Post clips of the hives each week, name the village, and take orders by private message."
    assert (
        LittleNew(16, "en")(Task.single(question, "", empty)) == "of 15 words of an output 0 are new, at least 6 wanted"
    )
    assert LittleNew(16, "en")(Task.single(question, "", told)) is None
    assert LittleNew(16, "en")(Task.single(question, "", "By social media.")) is None
    assert LittleNew(16, "en")(Task.single(question, "Some notes", empty)) is None
    assert LittleNew(16, "en")(Task.single("Say that a farmer sells honey.", "", empty)) is None
    assert LittleNew(0, "en")(Task.single(question, "", empty)) is None


def test_a_question_turned_round_is_refused_where_somebody_asks_for_it() -> None:
    rules = rule_set("alpaca", "en", DEFAULT_LIMITS._replace(min_new_words=16))
    assert apply_rules(rules, Task.single(QUESTION, "", ROUND)).rule == "little_new"
    assert apply_rules(rules, Task.single(QUESTION, "", PLAN)).keep
    assert apply_rules(rule_set("alpaca"), Task.single(QUESTION, "", ROUND)).keep


def test_in_chinese_characters_are_counted() -> None:
    task = Task.single("怎样泡茶？", "", "泡茶很好。" * 15)
    assert LittleNew(2, "zh")(task) is None
    assert LittleNew(3, "zh")(task)


def test_an_empty_output_is_left_to_the_rule_of_that_name() -> None:
    assert LittleNew(16, "en")(Task(QUESTION, (Instance("", " \n"),))) is None
    assert LittleNew(16, "en")(Task(QUESTION)) is None
