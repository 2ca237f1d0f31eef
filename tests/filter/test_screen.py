import pytest
from hypothesis import given
from hypothesis import strategies as st

from selfinstruct_local.filter.decide import Decider
from selfinstruct_local.filter.rules import ALPACA_UNSUITABLE, RULE_SETS, Rule, apply_rules
from selfinstruct_local.filter.rulesets import rule_set
from selfinstruct_local.filter.screen import FEW, surely_kept
from selfinstruct_local.kernels import NoveltyIndex
from selfinstruct_local.seeds import seed_file
from selfinstruct_local.taskfiles import read_tasks
from selfinstruct_local.tasks import Instance, Task

PUBLISHED = ("alpaca", "self-instruct")
GOOD = Task.single("Name three long rivers of Africa.", "", "The Nile, the Congo and the Niger.")

# Texts near the edge of every rule: white space of all kinds, marks, letters that are ASCII only in another case.
word = st.one_of(
    st.sampled_from(
        ["a", "b", "Go", "to", "image", "Maps", "go_to", "e-file", "Write", "program", "\u212a", "\u017fo"]
    ),
    st.text(alphabet="abé“_.\x1c\x85\xa0\u2003K\u212a", max_size=3),
)
text = st.builds(
    lambda head, words, gap, tail: head + gap.join(words) + tail,
    st.sampled_from(["", " ", "\t", "#", "Write a program", "é", "\ud800"]),
    st.one_of(st.lists(word, max_size=9), st.builds(lambda part, n: part * n, st.lists(word, max_size=9), st.just(8))),
    st.sampled_from([" ", "  ", "\n", "\x1f", ""]),
    st.sampled_from(["", " ", "\n"]),
)
long_text = st.builds(lambda n: "w " * n, st.sampled_from([11, 12, 149, 150, 151]))
any_text = st.one_of(text, text, long_text, st.just("Name three long rivers"), st.just("name THREE long rivers "))
instances = st.lists(st.builds(Instance, st.one_of(st.just(""), any_text), any_text), max_size=2).map(tuple)
tasks = st.lists(st.builds(Task, any_text, instances), min_size=1, max_size=8)


def screened(rules: tuple[Rule, ...], batch: list[Task]) -> list[bool]:
    """What is sure of `batch`, whose few tasks are filled up to a batch that is looked at."""
    return surely_kept(rules, batch + [GOOD] * FEW)[: len(batch)]


@pytest.mark.parametrize("name", PUBLISHED)
@given(batch=tasks)
def test_what_is_sure_the_rules_keep(name: str, batch: list[Task]) -> None:
    rules = rule_set(name)
    for task, sure in zip(batch, screened(rules, batch), strict=True):
        if sure:
            assert apply_rules(rules, task).keep


@pytest.mark.parametrize("name", PUBLISHED)
@given(batch=tasks)
def test_a_batch_is_decided_as_one_by_one(name: str, batch: list[Task]) -> None:
    batch = [*batch, *[GOOD] * FEW]
    verdicts = Decider(rule_set(name), NoveltyIndex())._screen(batch)
    assert verdicts == [apply_rules(rule_set(name), task) for task in batch]


@pytest.mark.parametrize("name", PUBLISHED)
def test_nearly_every_plain_task_is_sure(name: str) -> None:
    seeds = [task._replace(instances=task.instances[:1]) for task in read_tasks(seed_file("en"))]
    plain = [task for task in seeds if task.instruction.isascii()]
    rules = rule_set(name)
    assert all(apply_rules(rules, task).keep for task in plain)
    assert sum(surely_kept(rules, plain)) > 0.95 * len(plain) > 100


@pytest.mark.parametrize("phrase", ALPACA_UNSUITABLE)
@pytest.mark.parametrize("around", ["We {}", "We saw the ({}), twice", "{} and so on now", "Is it a {}?"])
def test_no_unsuitable_word_is_sure(phrase: str, around: str) -> None:
    task = GOOD._replace(instruction=around.format(phrase.capitalize()))
    assert screened(RULE_SETS["alpaca"], [task]) == [False]


@pytest.mark.parametrize(
    "task",
    [
        GOOD._replace(instruction="Name three rivers"),
        GOOD._replace(instruction="w " * 151),
        GOOD._replace(instruction="Write a programme of the day"),
        GOOD._replace(instruction="_Name three long rivers"),
        GOOD._replace(instances=(Instance("", "\x1c \n"),)),
        GOOD._replace(instances=(Instance("the nile", " the nile\n"),)),
        GOOD._replace(instances=(Instance("", GOOD.instruction.upper()),)),
        GOOD._replace(instances=(Instance("so on and " * 8, "Fine."),)),
        GOOD._replace(instances=(Instance("", "so on and " * 8),)),
        GOOD._replace(instances=(Instance("", ""), Instance("", "Nile"))),
        GOOD._replace(instances=(Instance("", "\xa0\u3000"),)),
        GOOD._replace(instances=(Instance("", "so\xa0on\xa0and\xa0" * 8),)),
        GOOD._replace(instances=(Instance("", "und für und für " * 8),)),
        Task.single("Name KKKK and its kin", "", "name \u212a\u212a\u212a\u212a and its kin"),
        Task(""),
    ],
)
def test_what_a_rule_might_refuse_is_not_sure(task: Task) -> None:
    assert screened(RULE_SETS["alpaca"], [task, GOOD]) == [False, True]


def test_a_rule_that_is_new_in_a_set_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    more = (*RULE_SETS["alpaca"], Rule("no_rivers", lambda task: "a river" if "river" in task.instruction else None))
    monkeypatch.setitem(RULE_SETS, "alpaca", more)
    assert surely_kept(more, [GOOD] * FEW) == [False] * FEW


def test_the_kelvin_sign_is_the_only_letter_that_lowers_into_ascii() -> None:
    beyond = map(chr, range(0x80, 0x110000))
    assert [each for each in beyond if each.lower().isascii()] == ["\u212a"]


def test_rules_that_were_not_published_are_asked() -> None:
    batch = [GOOD] * FEW
    assert surely_kept(RULE_SETS["alpaca"], batch) == [True] * FEW
    assert surely_kept(RULE_SETS["alpaca"][1:], batch) == [False] * FEW
    assert surely_kept(rule_set("alpaca", "zh"), batch) == [False] * FEW
    assert surely_kept((), batch) == [False] * FEW
    assert surely_kept(RULE_SETS["alpaca"], [Task("", (Instance("", ""),))] * FEW) == [False] * FEW
