"""What the Chinese seed file must hold, and the facts inside it that a program can check.

Code, JSON, tables, puzzles and wording are in test_facts_zh_more.py.
"""

import ast
import json
import re
import unicodedata
from collections import Counter
from datetime import date, timedelta
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from selfinstruct_local.kernels import rouge_l_matrix

SEEDS: list[dict[str, Any]] = [
    json.loads(line)
    for line in (Path(__file__).resolve().parents[2] / "seeds" / "zh.jsonl").read_text(encoding="utf-8").splitlines()
]
BY_NAME = {seed["name"]: seed for seed in SEEDS}
FIELDS = ["id", "name", "instruction", "instances", "is_classification", "category", "verb", "topic"]
LABELS = {
    "change_of_state": "汽化 液化 升华 凝华",
    "dynasty_of_person": "唐 宋 明 清",
    "fact_or_opinion": "事实 观点",
    "figure_of_speech": "比喻 拟人 夸张 排比",
    "follows_or_not": "能 不能",
    "function_of_zhi": "代词 助词 动词",
    "idiom_colour": "褒义 贬义 中性",
    "idiom_fits": "恰当 不恰当",
    "judge_translation": "准确 漏译 误译",
    "kind_of_dispute": "劳动纠纷 消费纠纷 邻里纠纷 租房纠纷",
    "kind_of_name": "人名 地名 机构名 时间",
    "kind_of_passage": "记叙文 说明文 议论文 书信",
    "kind_of_scam": "刷单返利 冒充客服 冒充公检法 假投资",
    "kind_of_sql": "查询 插入 更新 删除",
    "must_or_necessary": "必须 必需",
    "pick_measure_word": "头 匹 条 只",
    "punctuation_right": "正确 错误",
    "reading_of_hang": "háng xíng",
    "season_of_term": "春 夏 秋 冬",
    "shop_message_intent": "咨询 催单 投诉 退换",
    "sick_sentence_kind": "成分残缺 搭配不当 语序不当 前后矛盾",
    "six_scripts": "象形 指事 会意 形声",
    "spoken_or_written": "口语 书面语",
    "supported_by_text": "符合 不符 未提及",
    "urgent_or_important": "重要且紧急 重要不紧急 紧急不重要 不重要不紧急",
    "verse_theme": "边塞 送别 田园 思乡",
    "which_bin": "厨余垃圾 可回收物 有害垃圾 其他垃圾",
    "which_clinic": "眼科 口腔科 皮肤科 骨科",
    "which_dialect": "粤语 四川话 东北话 上海话",
    "which_document": "通知 请假条 感谢信 启事",
}
# Asked of no seed: text cannot do it.
UNSUITABLE = ["图片", "图像", "画图", "绘制", "音频", "视频", "音乐", "文件", "地图", "流程图", "录音", "照片"]
TRADITIONAL = set(
    "們個來這時說對話語國學東車馬鳥魚見貝長門開關書寫讀頭實點為與從發現經過還進樂龍鄉術業員買賣寶錢銀鐵聽"
)
RESERVED = re.compile(r"^\s*(instruction|input|output|指令|输入|输出)s?\s*[:：]", re.IGNORECASE | re.MULTILINE)
FENCE = re.compile(r"```\w+\n.*?\n```", re.DOTALL)
HAN = re.compile(r"[\u4e00-\u9fff]")
EQUATION = re.compile(r"[\d.()+\-×÷%]+(?:=[\d.()+\-×÷%]+)+")


def texts(seed: dict[str, Any]) -> list[str]:
    return [seed["instruction"], *(text for each in seed["instances"] for text in each.values())]


def said(name: str, index: int = 0) -> str:
    return str(BY_NAME[name]["instances"][index]["output"])


def given(name: str, index: int = 0) -> str:
    return str(BY_NAME[name]["instances"][index]["input"])


def pairs(name: str) -> list[tuple[str, str]]:
    return [(each["input"], each["output"]) for each in BY_NAME[name]["instances"]]


def bare(text: str) -> str:
    return "".join(char for char in text if not unicodedata.category(char).startswith(("P", "Z", "C")))


def value(expression: str) -> Fraction:
    source = re.sub(r"([\d.]+)%", r"(\1/100)", expression).replace("×", "*").replace("÷", "/")

    def walk(node: ast.expr) -> Fraction:
        if isinstance(node, ast.BinOp):
            left, right = walk(node.left), walk(node.right)
            match node.op:
                case ast.Add():
                    return left + right
                case ast.Sub():
                    return left - right
                case ast.Mult():
                    return left * right
                case ast.Div():
                    return left / right
        assert isinstance(node, ast.Constant), expression
        return Fraction(str(node.value))

    return walk(ast.parse(source, mode="eval").body)


# The file


def test_the_rows() -> None:
    assert [seed["id"] for seed in SEEDS] == [f"zh-{number:03d}" for number in range(1, 176)]
    for seed in SEEDS:
        assert list(seed) == FIELDS
        assert re.fullmatch(r"[a-z][a-z0-9_]*", seed["name"])
        assert re.fullmatch(r"[a-z]+(_[a-z]+)*", seed["category"])
        assert seed["instances"]
        assert all(list(each) == ["input", "output"] for each in seed["instances"])
        assert seed["verb"] in seed["instruction"]
        assert seed["topic"]
    for field in ("name", "instruction"):
        assert len({seed[field] for seed in SEEDS}) == 175


def test_the_labels() -> None:
    assert {seed["name"] for seed in SEEDS if seed["is_classification"]} == set(LABELS)
    assert 26 <= len(LABELS) <= 40
    for name, names in LABELS.items():
        labels = set(names.split())
        assert 2 <= len(labels) <= 6
        assert all(label in BY_NAME[name]["instruction"] for label in labels)
        outputs = [output for _, output in pairs(name)]
        assert set(outputs) <= labels
        assert len(set(outputs)) >= 2
        assert 3 <= len(outputs) <= 4


def test_the_spread() -> None:
    assert 50 <= sum(all(not each["input"] for each in seed["instances"]) for seed in SEEDS) <= 62
    assert len({seed["verb"] for seed in SEEDS}) >= 50
    assert max(Counter(seed["instruction"][:4] for seed in SEEDS).values()) <= 6
    assert all(6 <= len(seed["instruction"]) <= 120 for seed in SEEDS)
    sizes = [max(len(seed["instruction"] + a + b) for a, b in pairs(seed["name"])) for seed in SEEDS]
    assert max(sizes) < 350
    assert sum(size < 180 for size in sizes) > len(sizes) / 2


def test_no_two_instructions_are_alike() -> None:
    instructions = [seed["instruction"] for seed in SEEDS]
    scores = rouge_l_matrix(instructions, instructions, tokenizer="unicode")
    np.fill_diagonal(scores, 0)
    assert scores.max() <= 0.5


def test_the_text_is_clean_simplified_chinese() -> None:
    for seed in SEEDS:
        instruction = seed["instruction"]
        assert "\n" not in instruction
        assert len(HAN.findall(instruction)) > len(instruction) / 2, seed["name"]
        assert not any(word in instruction for word in UNSUITABLE), seed["name"]
        for text in texts(seed):
            assert unicodedata.is_normalized("NFC", text)
            assert text == text.strip()
            assert not re.search(r"[ \t\u3000]$", text, re.MULTILINE)
            assert "###" not in text
            assert not RESERVED.search(text)
            assert not TRADITIONAL & set(text), seed["name"]
        for each in seed["instances"]:
            assert each["output"]
            assert each["output"] != each["input"]


def test_punctuation_is_full_width_and_paired() -> None:
    for seed in SEEDS:
        for text in (seed["instruction"], *(output for _, output in pairs(seed["name"]))):
            prose = FENCE.sub("", text)
            if prose[:1] in "{[|":
                continue
            assert not re.search(r"[\u4e00-\u9fff][,.;:?!]|[,;:?!][\u4e00-\u9fff]", prose), seed["name"]
            for left, right in ("“”", "‘’", "（）", "《》", "()"):
                assert prose.count(left) == prose.count(right), seed["name"]


# Numbers


def test_every_equation_is_true() -> None:
    found = [
        match for seed in SEEDS for _, out in pairs(seed["name"]) for match in EQUATION.findall(FENCE.sub("", out))
    ]
    assert len(found) >= 25
    for equation in found:
        if equation != "153÷7=21":  # with a remainder
            assert len({value(side) for side in equation.split("=")}) == 1, equation


@pytest.mark.parametrize(
    ("name", "answer"),
    [
        ("chalk_boxes", f"大约要买{24 * 2 * 200 // 40}盒。"),
        ("grain_harvest", f"一共收了{(3 * 900 + 5 * 1100) // 2}千克。"),
        ("two_shoe_shops", f"去乙店便宜，便宜{360 * 80 // 100 - (360 - 60) * 95 // 100}元。"),
        ("two_year_deposit", f"到期能取回{20000 + 20000 * 15 * 2 // 1000}元。"),
        ("meeting_on_the_road", f"{18 // (5 + 4)}小时后相遇，相遇处离甲村{18 // 9 * 5 * 500 // 1000}千米。"),
        ("two_phone_plans", f"选甲更省钱，每月省{59 - (39 + (25 - 20) * 3)}元。"),
        ("lease_amounts", f"月租：2800元\n押金：2800元\n违约金：{2800 * 3 // 2}元"),
    ],
)
def test_the_sums_come_out(name: str, answer: str) -> None:
    assert said(name).endswith(answer)


def test_scores() -> None:
    scores = sorted(map(int, given("score_statistics").split("、")))
    assert f"={sum(scores) // 9}\n" in said("score_statistics")
    assert sum(scores) % 9 == 0
    assert "、".join(map(str, scores)) in said("score_statistics")
    assert f"中位数是{scores[4]}\n" in said("score_statistics")
    assert f"众数是{Counter(scores).most_common(1)[0][0]}" in said("score_statistics")


def test_old_units() -> None:
    for old, unit, factor, new in (("里", "千米", Fraction(1, 2), "离镇上"), ("斤", "千克", Fraction(1, 2), "收了")):
        (count,) = re.findall(rf"(\d+){old}", given("old_units_to_metric"))
        assert f"{count}{old}={int(count) * factor}{unit}" in said("old_units_to_metric")
        assert f"{new}{int(count) * factor}{unit}" in said("old_units_to_metric")
    assert "9尺=3米" in said("old_units_to_metric")


def in_capitals(amount: str) -> str:
    whole, _, cents = amount.partition(".")
    digits, units, text = "零壹贰叁肆伍陆柒捌玖", ["", "拾", "佰", "仟", "万", "拾", "佰", "仟"], ""
    for place, digit in zip(range(len(whole) - 1, -1, -1), whole, strict=True):
        text += digits[int(digit)] + (units[place] if int(digit) or place == 4 else "")
    text = re.sub("零+", "零", re.sub("零+万", "万零", text)).rstrip("零") + "元"
    return f"人民币{text}{digits[int(cents[0])]}角整" if cents else f"人民币{text}整"


def test_amounts_in_capitals() -> None:
    for amount, words in pairs("amount_in_capitals"):
        assert in_capitals(amount.removesuffix("元")) == words


def test_pheasants_and_rabbits() -> None:
    (birds,) = [n for n in range(36) if 2 * n + 4 * (35 - n) == 94]
    assert said("pheasants_and_rabbits").endswith(f"雉{birds}只，兔{35 - birds}只。")


def test_twenty_four() -> None:
    for numbers, answer in pairs("twenty_four"):
        expression, _, result = answer.partition("=")
        assert value(expression) == Fraction(result) == 24
        assert sorted(re.findall(r"\d+", expression)) == sorted(numbers.split("、"))


def test_days_and_years() -> None:
    for year in range(1990, 2030):
        gap = (date(year, 10, 1) - date(year, 5, 1)).days
        assert gap == 153
        assert divmod(gap, 7) == (21, 6)
        assert date(year, 10, 1) == date(year, 5, 1) + timedelta(days=153)
    assert "一二三四五六日"[(3 + 153) % 7] == "三"
    assert said("national_day_weekday").endswith("国庆节是星期三。")
    stems, branches, animals = "甲乙丙丁戊己庚辛壬癸", "子丑寅卯辰巳午未申酉戌亥", "鼠牛虎兔龙蛇马羊猴鸡狗猪"
    names = [stems[(year - 4) % 10] + branches[(year - 4) % 12] + animals[(year - 4) % 12] for year in (2024, 2030)]
    assert f"2024年是{names[0][:2]}{names[0][2]}年" in BY_NAME["zodiac_2030"]["instruction"]
    assert said("zodiac_2030").endswith(f"2030年是{names[1]}年。")
    for steps in re.findall(r"(\S(?:→\S)+)，", said("zodiac_2030")):
        assert steps.replace("→", "") in stems + branches
        assert steps.count("→") == 6
    start = (branches.index("午") * 2 - 1) % 24
    assert f"午时是{start}点到{start + 2}点" in said("midnight_watch")
    assert round(365.2422 - 12 * 29.5306) == 11
    assert round(19 * 365.2422 / 29.5306) == 19 * 12 + 7


def test_dinner() -> None:
    clock = 19 * 60
    for dish, length in (("炒青菜", 5), ("蒸鱼", 15), ("排骨汤", 80)):
        assert f"{dish}：{length}" in given("dinner_backwards") or f"{dish}：炖{length}" in given("dinner_backwards")
        line = next(line for line in said("dinner_backwards").splitlines() if line.startswith(dish))
        times = [int(hour) * 60 + int(minute) for hour, minute in re.findall(r"(\d+):(\d+)", line)]
        assert times == [clock - length, clock]
        clock -= length
    assert "最晚17:20" in said("dinner_backwards")
    assert clock == 17 * 60 + 20
