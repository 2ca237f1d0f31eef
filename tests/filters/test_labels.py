"""The labels that an instruction names, and which of them an output is."""

import json
from pathlib import Path

import pytest

from selfinstruct_local.filters.labels import label_of, named_labels
from selfinstruct_local.languages.base import Language

SEEDS = Path(__file__).parents[2] / "seeds"


@pytest.mark.parametrize(
    ("instruction", "labels"),
    [
        ("Sort the bread as stale or fresh.", ("stale", "fresh")),
        ("Place the star by its colour: red, Yellow, or blue.", ("red", "Yellow", "blue")),
        ("Does the bolt fit the nut? Answer yes or no.", ("yes", "no")),
        ('Label the comment "spam" or "ham".', ("spam", "ham")),
        ("Classify the sentence (statement, question, command).", ("statement", "question", "command")),
        ("Decide whether the road is wet, dry or icy.", ("wet", "dry", "icy")),
        ("Is this sound a bell or a whistle?", ("bell", "whistle")),
        (
            "Judge the knot: tight if it holds, loose if it slips, and torn in all other cases.",
            ("tight", "loose", "torn"),
        ),
        ("Determine if the knot is safe: tight if it holds, loose if it slips.", ("tight", "loose")),
        ("Pick a shelf from the list of Maps, Arts & Crafts, and Food.", ("Maps", "Arts & Crafts", "Food")),
        ("Determine the mood of the tune. Options: merry, calm, sad.", ("merry", "calm", "sad")),
        ("Categorize the tyre into a summer or winter category.", ("summer", "winter")),
        ("Is the lamp on or off in the story? Output 1 for on and 0 for off.", ()),
        ("Write a poem about cats or dogs.", ()),
        ("Rate the stew on a scale from 1 to 5: bland or spicy.", ()),
        ("Answer the question in one or two sentences.", ()),
        ("List foods that are sweet or sour.", ()),
        ("Decide whether the road is wet or dry and explain why.", ()),
        ("Classify each shoe as left or right.", ()),
        ("Classify the following shoes as left or right.", ()),
        ("Decide whether the number is prime or not.", ()),
        ("What is the difference between a fork and a spoon?", ()),
    ],
)
def test_english_instructions_name_labels_where_one_of_them_is_the_answer(
    instruction: str, labels: tuple[str, ...]
) -> None:
    assert named_labels(instruction, "en") == labels


@pytest.mark.parametrize(
    ("instruction", "labels"),
    [
        ("判断这条留言的语气：客气、平淡或生硬。", ("客气", "平淡", "生硬")),
        ("这块石头是湿的还是干的？", ()),
        ("这件衣服是旧款还是新款？", ("旧款", "新款")),
        ("这道菜该放“冷藏”还是“冷冻”？", ("冷藏", "冷冻")),
        ("按材质归类，可选的有木、铁、布。", ("木", "铁", "布")),
        ("请判断下面的说法，只答对或错。", ("对", "错")),
        ("这种乐器是弦乐、管乐、打击乐中的哪一类？", ("弦乐", "管乐", "打击乐")),
        ("有问题答“漏水”，没有问题答“正常”，检查水管。", ("漏水", "正常")),
        ("写一首关于雨或雪的诗。", ()),
        ("列出五种水果或蔬菜。", ()),
        ("判断路是干还是湿，并说明理由。", ()),
        ("请从健康、经济两个方面分析骑车的好处。", ()),
    ],
)
def test_chinese_instructions_name_labels_where_one_of_them_is_the_answer(
    instruction: str, labels: tuple[str, ...]
) -> None:
    assert named_labels(instruction, "zh") == labels


@pytest.mark.parametrize("lang", ["en", "zh"])
def test_the_classification_seeds_name_their_labels_and_no_other_seed_names_any(lang: Language) -> None:
    with (SEEDS / f"{lang}.jsonl").open(encoding="utf-8") as lines:
        for line in lines:
            seed = json.loads(line)
            labels = named_labels(seed["instruction"], lang)
            assert bool(labels) == bool(seed.get("is_classification")), seed["instruction"]
            if labels:
                assert all(label_of(each["output"], labels) == each["output"] for each in seed["instances"])


@pytest.mark.parametrize(
    ("output", "label"),
    [
        ("wet", "Wet"),
        (" **Dry.** ", "dry"),
        ('"a dry"', "dry"),
        ("wets", "Wet"),
        ("The road is dry.", None),
        ("", None),
    ],
)
def test_an_output_is_a_label_whatever_its_case_and_marks(output: str, label: str | None) -> None:
    assert label_of(output, ("Wet", "dry")) == label


def test_a_noun_that_the_labels_share_may_be_left_out_or_added() -> None:
    labels = ("chemical", "physical change")
    assert label_of("Chemical change.", labels) == "chemical"
    assert label_of("physical", labels) == "physical change"
    assert label_of("mental change", labels) is None


def test_no_labels_no_label() -> None:
    assert label_of("wet", ()) is None
