import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from selfinstruct_local.filters.rules import apply_rules
from selfinstruct_local.filters.rules_zh import _ALPACA_UNSUITABLE, OPENING_MARKS, tokens
from selfinstruct_local.filters.rulesets import PUBLISHED, RULE_SETS, rule_set
from selfinstruct_local.io.reader import read_tasks
from selfinstruct_local.kernels import encode
from selfinstruct_local.seeds import seed_file
from selfinstruct_local.task import Task

ANSWER = "好的，答案如下。"


def rule_of(instruction: str, task_input: str = "", output: str = ANSWER, rules: str = "alpaca") -> str:
    return apply_rules(rule_set(rules, "zh"), Task.single(instruction, task_input, output)).rule


@pytest.mark.parametrize("lang", ["en", "zh"])
def test_no_rule_hits_a_seed(lang: str) -> None:
    sets = [name for name in RULE_SETS if lang == "en" or name not in PUBLISHED]
    for name, seed in itertools.product(sets, read_tasks(seed_file(lang))):
        verdict = apply_rules(rule_set(name, lang), seed)
        assert verdict.keep, (name, seed.id, verdict)


def test_what_there_are_no_rules_for_is_said() -> None:
    assert rule_set("none", "zh") == ()
    for name, lang in (("gpt", "zh"), ("alpaca", "fr"), ("alpaca-2023", "zh")):
        with pytest.raises(ValueError, match=f"'{name}' for language '{lang}'"):
            rule_set(name, lang)


@pytest.mark.parametrize(
    ("instruction", "rule"),
    [
        ("写首诗。", "too_short"),
        ("翻译此句。", ""),
        ("", "too_short"),
        ("字" * 241, "too_long"),
        ("字" * 240 + "。", ""),
        ("写一个程序，给数组排序。", "asks_for_program"),
        ("请编写程序计算圆的面积。", "asks_for_program"),
        ("写一个程序员的自我介绍。", ""),
        ("写一个Python函数，给数组排序。", ""),
        ("，请改写这句话。", "starts_with_punctuation"),
        ("（三）请改写这句话。", "starts_with_punctuation"),
        ("# 请改写这句话。", "starts_with_punctuation"),
        ("《红楼梦》的作者是谁？", ""),
        ("“的、地、得”怎样分清？", ""),
        ("「春风」指的是什么？", ""),
        ("用Python写一个sort函数，并说明time complexity。", ""),
        ("Explain 成语 in plain English.", ""),
        ("Étienne是哪国人的名字？", ""),
    ],
)
def test_instruction_rules(instruction: str, rule: str) -> None:
    assert rule_of(instruction) == rule


# For each entry of the list, in its order: what it hits, and text with the same characters that it passes.
UNSUITABLE = [
    ("说说这些图片的内容。", "说说怎样收藏古代的地图片段。"),
    ("描述图像里的人物。", "他企图像从前一样生活，怎么劝他？"),
    ("如图所示，求角的度数。", "比如图书馆的闭馆时间怎么查？"),
    ("看图写一段话。", "看图书时怎样做笔记？"),
    ("说说这张照片里有谁。", "这张图书证丢了，怎样补办？"),
    ("根据下面的截图写说明。", "根据图书馆的规定写一则通知。"),
    ("绘制一幅校园平面布局。", "这份报告绘制了怎样的发展蓝图？"),
    ("画一只正在睡觉的猫。", "“画蛇添足”的意思是什么？"),
    ("用电脑画图说明行程。", "漫画图书适合几岁的孩子？"),
    ("用折线图表示气温。", "“画饼充饥”出自哪里？"),
    ("在地图上标出长江。", "地图上的比例尺是什么意思？"),
    ("根据附件写一份摘要。", "写信时附件应该怎样列出？"),
    ("打开下面的链接并总结。", "点击陌生链接后该怎么办？"),
    ("概括这段视频的内容。", "给短视频脚本想一个开头。"),
    ("把音频转成文字。", "声音频率的单位是什么？"),
    ("为这首诗谱一支曲。", "作曲家肖邦是哪国人？"),
    ("播放一首轻快的歌。", "什么时候播放广告最合适？"),
    ("听录音，选出答案。", "听取意见时要注意什么？"),
    ("用流程图说明请假手续。", "报名的流程有哪几步？"),
]


@pytest.mark.parametrize(("hit", "passed"), UNSUITABLE, ids=[hit for hit, _ in UNSUITABLE])
def test_unsuitable_words(hit: str, passed: str) -> None:
    assert (rule_of(hit), rule_of(passed)) == ("unsuitable_word", "")


def test_every_entry_of_the_list_has_its_case() -> None:
    assert len(UNSUITABLE) == len(_ALPACA_UNSUITABLE)


@pytest.mark.parametrize(
    "good",
    [
        "图书馆几点开门？",
        "中国地图的轮廓常被比作什么动物？",
        "刻画一个吝啬的老人，三句话。",
        "动画一共几集，算算总时长。",
        "“画龙点睛”怎么用？",
        "公司私自录音合法吗？",
        "学书法为什么要先练笔画？",
        "试图中断通话时该怎么说？",
        "天下图书哪里最多？",
        "工作曲线怎样读？",
    ],
)
def test_ordinary_questions_pass(good: str) -> None:
    assert rule_of(good) == ""


def test_the_english_words_count_beside_han_too() -> None:
    assert rule_of("请描述这个image的内容") == "unsuitable_word"
    assert rule_of("请描述imagemagick的用途") == ""
    assert rule_of("解释video这个单词") == "unsuitable_word"
    assert rule_of("解释video这个单词", rules="self-instruct") == ""
    assert rule_of("概括这段视频的内容。", rules="self-instruct") == ""
    assert rule_of("说说这些图片的内容。", rules="self-instruct") == "unsuitable_word"


@pytest.mark.parametrize(
    ("task_input", "output", "rule"),
    [
        ("", " \u3000", "empty_output"),
        ("白日依山尽", "白日依山尽\n", "input_is_output"),
        ("", "说说长江的源头。", "output_is_instruction"),
        ("", "我们都很好。" * 5, "degenerate_repetition"),
        ("真的" * 12, ANSWER, "degenerate_repetition"),
        ("", "这句话从头到尾正是十三个字。" * 3, "degenerate_repetition"),
        ("", "加油" * 9 + "！", ""),
        ("", "学而时习之，不亦说乎？有朋自远方来，不亦乐乎？人不知而不愠，不亦君子乎？", ""),
    ],
)
def test_instance_rules(task_input: str, output: str, rule: str) -> None:
    assert rule_of("说说长江的源头。", task_input, output) == rule


def test_tokens_are_those_of_the_unicode_tokenizer() -> None:
    texts = [
        text
        for lang in ("en", "zh")
        for seed in read_tasks(seed_file(lang))
        for text in (seed.instruction, *itertools.chain(*seed.instances))
    ]
    encoded = encode(texts, "unicode")
    assert [tokens(text) for text in texts] == [encoded.row(number) for number in range(len(texts))]


@given(st.text(alphabet="天地々ひカㄅab_Z1é，。、“ \n\t%", max_size=20))
def test_any_chinese_or_latin_text_is_cut_alike(text: str) -> None:
    assert tokens(text) == encode([text], "unicode").row(0)


def test_every_opening_mark_may_begin() -> None:
    assert all(rule_of(f"{mark}春风又绿江南岸") == "" for mark in OPENING_MARKS)
