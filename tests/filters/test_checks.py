"""Checks of answers: what passes, what fails, and what is left alone."""

from typing import get_args

import pytest

from selfinstruct_local.filters.checks import CHECKS, FailedCheck, outcomes, passed_checks
from selfinstruct_local.filters.rules import apply_rules
from selfinstruct_local.filters.rulesets import rule_set
from selfinstruct_local.io.reader import read_tasks
from selfinstruct_local.languages.base import Language
from selfinstruct_local.seeds import seed_file
from selfinstruct_local.task import Instance, Task


def outcome(check: str, instruction: str, output: str, task_input: str = "", lang: str = "en") -> str | None:
    """What a check says of an output: "passed", "failed", or None where it does not apply."""
    task = Task.single(instruction, task_input, output)
    fault = outcomes(task, "zh" if lang == "zh" else "en")[0].get(check)
    return None if fault is None else "failed" if fault else "passed"


@pytest.mark.parametrize(
    ("instruction", "output", "wanted"),
    [
        ("Describe the harbour in at most five words.", "Boats sleep under grey fog.", "passed"),
        ("Describe the harbour in at most five words.", "The boats sleep under the grey fog.", "failed"),
        ("Describe the harbour in five words or less.", "The boats sleep under the grey fog.", "failed"),
        ("Write at least six words on fog.", "It is grey.", "failed"),
        ("Sum up the harbour in exactly three words.", "Well-kept and small.", "passed"),  # or four
        ("Sum up the harbour in exactly three words.", "Small and old and grey.", "failed"),
        ("Write a 20-word story.", "One two three four five six seven eight nine ten eleven.", "passed"),
        ("Write a 20-word story.", "One two three.", "failed"),
        ("Tell the story in about 20 words.", "One two three.", "failed"),
        ("Describe fog in one sentence.", "Fog is a cloud, said Dr. Grey, that lies low.", "passed"),
        ("Describe fog in one sentence.", "Fog is a cloud. It lies low.", "failed"),
        ("Describe fog in two to three sentences.", "Fog is a cloud.", "failed"),
        ("Write a story of three sentences.", 'It rained. He said: "Run! Now!" They ran.', "passed"),
        ("Write a poem of two lines.", "The fog is near,\nthe bell is clear.", "passed"),
        ("Write a poem of two lines.", "a\nb\nc\nd", "failed"),
        ("Name the risks in three bullet points.", "- fog\n- ice\n- wind", "passed"),
        ("Name the risks in three bullet points.", "- fog\n- ice", "failed"),
        ("Summarise the 500-word text.", "It is about fog.", None),
        ("Describe each boat in one sentence.", "The first is red. The second is blue.", None),
        ("Name a boat and explain its name in one sentence.", "Gull. It flies. It is white.", None),
        ("Write a story with these three words: fog, bell, boat.", "The bell rang in the fog. A boat came.", None),
        ("Shorten the note to five words.", "Boats sleep.", "passed"),
        ("How many pages has a book with 300 words?", "Two.", None),
        ("Design a store for a dictionary of 5,000 words.", "Use a hash table.", None),
    ],
)
def test_stated_lengths(instruction: str, output: str, wanted: str | None) -> None:
    assert outcome("length", instruction, output) == wanted


@pytest.mark.parametrize(
    ("instruction", "output", "wanted"),
    [
        ("用不超过八个字描述港口。", "小船睡在雾里。", "passed"),
        ("用不超过八个字描述港口。", "许多小船静静地睡在灰色的雾里。", "failed"),
        ("概括这则消息，二十字以内。", "港口今天因为有大雾停航，船只明天早上八点以后才能恢复出发。", "failed"),
        ("请用一句话描述雾。", "雾是贴近地面的云。", "passed"),
        ("请用一句话描述雾。", "雾是云。它贴近地面。它很湿。", "failed"),
        ("写五种船，每种不超过五个字。", "一种又大又红又老的船，一种很小很小的船", None),
        ("猜一个字。", "谜底是“雾”。", None),
    ],
)
def test_stated_lengths_in_chinese(instruction: str, output: str, wanted: str | None) -> None:
    assert outcome("length", instruction, output, lang="zh") == wanted


@pytest.mark.parametrize(
    ("check", "instruction", "output", "wanted"),
    [
        ("json", "Give the boat as JSON.", '{"boat": "Gull", "length": 9}', "passed"),
        ("json", "Give the boat as JSON.", 'Here it is:\n```json\n{"boat": "Gull"}\n```', "passed"),
        ("json", "Give the boat as JSON.", '{"boat": Gull}', "failed"),
        ("json", "Give the boat as JSON.", "The boat is the Gull.", "failed"),
        ("json", "Give the boat as JSON.", '{"boats": [...]}', None),
        ("json", "Write a function that returns JSON.", "def boat(): ...", None),
        ("json", "What is the name in the JSON object?", "Gull", None),
        ("csv", "List the boats in CSV format.", "boat,length\nGull,9", "passed"),
        ("csv", "List the boats in CSV format.", "boat,length\nGull", "failed"),
        ("csv", "List the boats.", "boat,length\nGull", None),
        ("python", "Write a Python function that adds two numbers.", "def add(a, b):\n    return a + b", "passed"),
        ("python", "Write a Python function that adds two numbers.", "def add(a, b)\n    return a + b", "failed"),
        ("python", "Add.", "```python\nx = (1\n```", "failed"),
        ("python", "Write a Python statement that prints.", "print 'fog'", None),
        ("python", "Write a Python function.", "def add(a, b):\n    return a\n\nIt adds two numbers.", None),
        ("language", "Translate the word into Russian.", "туман", "passed"),
        ("language", "Translate the word into Russian.", "fog", "failed"),
        ("language", "Answer in Japanese.", "霧です", "passed"),
        ("language", "Translate the word into French.", "brouillard", None),
        ("language", "Describe a meal in Chinese culture.", "Dumplings.", None),
        ("language", "Translate it into Chinese and give the pinyin.", "wù", None),
        ("units", "Convert 5 km to metres.", "5 km are 5,000 metres.", "passed"),
        ("units", "Convert 5 km to metres.", "That is 500 metres.", "failed"),
        ("units", "Convert 68 degrees Fahrenheit to Celsius.", "20 °C", "passed"),
        ("units", "How many minutes are in 3 hours?", "180", "passed"),
        ("units", "Convert 1 inch to centimetres.", "2.5 cm", "passed"),  # rounded as it is written
        ("units", "Convert 5 km to kilograms.", "5", None),
        ("units", "Convert the sentence to the past.", "It was 5 km.", None),
        ("arithmetic", "Add them.", "2 + 3 = 5", "passed"),
        ("arithmetic", "Add them.", "2 + 3 = 6", "failed"),
        ("arithmetic", "Add them.", "Five.", None),
        ("labels", "Is the road wet or dry?", "Wet.", "passed"),
        ("labels", "Is the road wet or dry?", "green", "failed"),
        ("labels", "Is the road wet or dry?", "The road is wet.", None),
        ("labels", "Describe the road.", "green", None),
    ],
)
def test_what_is_checked(check: str, instruction: str, output: str, wanted: str | None) -> None:
    assert outcome(check, instruction, output) == wanted


@pytest.mark.parametrize("output", ["", " \n", "...", "\ud800"])
@pytest.mark.parametrize("lang", get_args(Language))
def test_no_output_stops_a_check(output: str, lang: Language) -> None:
    for instruction in ("Describe fog in two sentences.", "Give it as JSON.", "用两句话描述雾。", "Is it wet or dry?"):
        assert set(passed_checks(Task.single(instruction, "", output), lang)) <= set(CHECKS)
    assert FailedCheck("en")(Task.single("Describe fog in two sentences.", "", "Fog.")) is not None


def test_the_quantity_may_be_the_input() -> None:
    assert outcome("units", "Convert the weight to grams.", "2,000 g", "2 kg") == "passed"
    assert outcome("units", "Convert the weight to grams.", "200 g", "2 kg") == "failed"


def test_a_long_output_of_a_classification_task_must_mention_a_label() -> None:
    task = Task("Is the road wet or dry?", (Instance("", "This is a question about roads and their state."),), True)
    assert FailedCheck("en")(task) == "labels: an output is none of wet, dry"
    assert FailedCheck("en")(task._replace(is_classification=None)) is None


def test_a_task_passes_the_checks_that_all_its_outputs_pass() -> None:
    instruction = "Decide if the sum is even or odd. Answer with one word."
    right, wrong = Instance("2 + 3", "odd"), Instance("2 + 4", "It is green since 2 + 4 = 6.")
    assert passed_checks(Task(instruction, (right,)), "en") == ["length", "labels"]
    assert passed_checks(Task(instruction, (right, wrong), True), "en") == ["arithmetic"]
    assert passed_checks(Task("Decide if the sum is even or odd.", (right, right)), "en") == ["labels"]
    assert passed_checks(Task(instruction), "en") == []


def test_the_rule_rejects_what_fails_and_leaves_equations_to_theirs() -> None:
    rules = rule_set("alpaca")
    verdict = apply_rules(
        rules, Task.single("Describe the fog in one sentence.", "", "It is low. It is wet. It stays.")
    )
    assert (verdict.rule, verdict.detail) == ("failed_check", "length: an output has 3 sentences, 1 wanted")
    assert apply_rules(rules, Task.single("Add two and three for me.", "", "2 + 3 = 6")).rule == "wrong_arithmetic"


@pytest.mark.parametrize("output", ["", " \n"])
def test_an_answer_that_is_not_there_yet_fails_no_check(output: str) -> None:
    for instruction in (
        "Describe the fog in one sentence.",
        "Give the towns as JSON.",
        "Convert 5 km to metres.",
        "Translate the word fog into Russian.",
        "Decide whether the fog is dense or thin.",
    ):
        assert FailedCheck("en")(Task.single(instruction, "", output)) is None
    assert FailedCheck("zh")(Task.single("用JSON列出三个城市。", "", output)) is None


@pytest.mark.parametrize("lang", get_args(Language))
def test_the_seeds_fail_no_check_and_every_kind_that_they_have_is_passed(lang: Language) -> None:
    passed = set()
    for task in read_tasks(seed_file(lang)):
        assert FailedCheck(lang)(task) is None, task.instruction
        passed.update(passed_checks(task, lang))
    assert passed >= set(CHECKS) - {"units", "csv"}
