import pytest

from selfinstruct_local.filters.faults import OPENING
from selfinstruct_local.filters.rules import apply_rules
from selfinstruct_local.filters.rulesets import refuses_echoes, rule_set
from selfinstruct_local.filters.thresholds import DEFAULT_THRESHOLDS, Thresholds
from selfinstruct_local.task import Instance, Task


def rule_of(instruction: str, task_input: str = "", output: str = "An answer.", lang: str = "en") -> str:
    return apply_rules(rule_set("alpaca", lang), Task.single(instruction, task_input, output)).rule


@pytest.mark.parametrize(
    ("output", "rule"),
    [
        ("I'm sorry, but I can't help with that.", "refusal"),
        ("I’m sorry, but I can’t provide that.", "refusal"),
        ("Sorry, this task involves drawing, which the model cannot do.", "refusal"),
        ("As an AI language model, I do not have opinions.", "refusal"),
        ("I cannot assist with that request.", "refusal"),
        ("Unfortunately, I am unable to access the internet.", "refusal"),
        ("作为一个AI语言模型，我无法回答这个问题。", "refusal"),
        ("很抱歉，我无法提供这方面的帮助。", "refusal"),
        ("As an air mass rises, it cannot hold its water.", ""),
        ("I cannot help but admire the river.", ""),
        ("The model cannot do that.", ""),
        ("x" * OPENING + " I'm sorry, but I can't help with that.", ""),
    ],
)
def test_refusal(output: str, rule: str) -> None:
    assert rule_of("Name the capital of every country", "", output) == rule


def test_a_refusal_that_is_asked_for_is_an_answer() -> None:
    assert rule_of("Write a reply that declines the offer", "", "I'm sorry, but I can't provide a quote.") == ""
    assert rule_of("请写一条拒绝加班的短信。", "", "很抱歉，我无法完成这项工作。", "zh") == ""
    off = rule_set("alpaca", "en", DEFAULT_THRESHOLDS._replace(refuse_refusals=False))
    assert apply_rules(off, Task.single("Name the longest river", "", "I cannot assist with that.")).keep


@pytest.mark.parametrize(
    ("instruction", "rule"),
    [
        ("Shorten the following sentence", "missing_input"),
        ("Translate this sentence into French.", "missing_input"),
        ("Summarize the given article in a few words.", "missing_input"),
        ("Given a paragraph, find the topic that it is about.", "missing_input"),
        ("Sort the words in the list below.", "missing_input"),
        ("Correct the grammar of this sentence:", "missing_input"),
        ("Sum up the given text and name its topic. Provide at least 5 key points.", "missing_input"),
        ("Explain the following proverb: 'Haste makes waste'", ""),
        ("Shorten the following sentence. The cat that was black sat.", ""),
        ("Sort the following numbers: 3, 1, 2", ""),
        ("Write a function that reverses the given string", ""),
        ("Make a plan for the following week", ""),
        ("Create a proverb about respect:", ""),
        ("Write a poem about the sea and give this poem a title", ""),
        ("Name people who are following a vegan diet", ""),
    ],
)
def test_missing_input(instruction: str, rule: str) -> None:
    assert rule_of(instruction) == rule
    assert rule_of(instruction, "Here it is.") == ""
    assert apply_rules(rule_set("alpaca"), Task(instruction)).keep


@pytest.mark.parametrize(
    ("instruction", "rule"),
    [
        ("请把下面的句子改写得更正式。", "missing_input"),
        ("概括这段话的大意。", "missing_input"),
        ("请翻译以下句子：", "missing_input"),
        ("请把下面的句子改写得更正式：我没空。", ""),
        ("“我没空”这句话怎么说更客气？", ""),
        ("写一段话介绍西湖，并给这段话起个标题。", ""),
        ("十八岁以下的人能办信用卡吗？", ""),
    ],
)
def test_missing_input_in_chinese(instruction: str, rule: str) -> None:
    assert rule_of(instruction, "", "好的，答案如下。", "zh") == rule
    assert rule_of(instruction, "今天天气不错。", "好的，答案如下。", "zh") == ""


@pytest.mark.parametrize(
    ("instruction", "task_input", "output", "rule"),
    [
        ("Name the capital of France", "", "法国的首都是巴黎。", "foreign_script"),
        ("Name the capital of France", "", "Paris, или Париж, столица Франции.", "foreign_script"),
        ("Write 你好 in French letters and 再见请你告诉我 too now", "", "Bonjour.", "foreign_script"),
        ("Name the capital of France in Russian", "", "Столица — Париж.", ""),
        ("Translate this to another tongue", "Paris", "巴黎是首都", ""),
        ("Name the capital of France", "巴黎", "巴黎是法国的首都", ""),
        ("Give the area of a circle", "", "A = π·r², where π ≈ 3.14", ""),
        ("Name the capital of France", "", "L’été à Paris, déjà vu, naïve œuvre.", ""),
        ("Name the capital of France", "", "```\nпечать(1) и так далее\n``` prints one", ""),
    ],
)
def test_foreign_script(instruction: str, task_input: str, output: str, rule: str) -> None:
    assert rule_of(instruction, task_input, output) == rule


@pytest.mark.parametrize(
    ("instruction", "output", "rule"),
    [
        ("介绍一下西湖的风景。", "West Lake is a famous lake in Hangzhou with hills around it.", "foreign_script"),
        ("介绍一下西湖的风景。", "Западное озеро очень красиво.", "foreign_script"),
        ("用英语介绍一下西湖的风景。", "West Lake is a famous lake in Hangzhou with hills around it.", ""),
        ("用Python打印一到十。", "for number in range one to ten print number and stop", ""),
        ("列出五家科技企业。", "Google, Apple, Amazon, Meta, Intel", ""),
    ],
)
def test_foreign_script_in_chinese(instruction: str, output: str, rule: str) -> None:
    assert rule_of(instruction, "", output, "zh") == rule


@pytest.mark.parametrize(
    ("measures", "limits", "rule"),
    [
        (None, Thresholds(min_confidence=-1.0), ""),
        ({"confidence": -1.5}, Thresholds(), ""),
        ({"confidence": -1.5}, Thresholds(min_confidence=-1.0), "low_confidence"),
        ({"confidence": -0.5}, Thresholds(min_confidence=-1.0, min_output_confidence=-1.0), ""),
        ({"output_confidence": -1.5}, Thresholds(min_output_confidence=-1.0), "low_confidence"),
        ({"output_confidence": -1.5}, Thresholds(min_confidence=-1.0), ""),
        ({"judge.clear": 4.0, "judge.right": 2.0}, Thresholds(), "judged_low"),
        ({"judge.clear": 4.0, "judge.right": 2.0}, Thresholds(min_judge=2.0), ""),
    ],
)
def test_what_was_measured(measures: dict[str, float] | None, limits: Thresholds, rule: str) -> None:
    task = Task("Name the longest river", (Instance("", "The Nile."),), measures=measures)
    for lang in ("en", "zh"):
        rules = [each for each in rule_set("alpaca", lang, limits) if each.name in {"low_confidence", "judged_low"}]
        assert apply_rules(rules, task).rule == rule


def test_the_published_sets_have_the_published_rules_alone() -> None:
    names = ["too_short", "too_long", "asks_for_program", "starts_with_punctuation", "starts_with_non_ascii"]
    for name in ("alpaca-2023", "self-instruct-2022"):
        assert [rule.name for rule in rule_set(name)] == [*names, "unsuitable_word"]
        assert not refuses_echoes(name)
    assert refuses_echoes("alpaca")
