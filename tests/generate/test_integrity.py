"""What a rewritten text must keep: code, placeholders, numbers, form and language."""

import pytest

from selfinstruct_local.generate.rewriting.integrity import (
    code_changed,
    is_code,
    language_of,
    language_share,
    length_changed,
    lines_changed,
    not_translated,
    numbers_changed,
    placeholder_changed,
)

FENCED = "Fix this:\n```python\nprint('hello')\n```"


@pytest.mark.parametrize(
    ("source", "target"),
    [
        ("Run `pip list` now.", "现在运行 `pip list`。"),
        (FENCED, "修正：\n```python\nprint('hello')\n```"),
        ("See https://a.org/x?y=1.", "见https://a.org/x?y=1。"),
        ("See https://a.org/x, then `b` and `a`.", "先看`a`和`b`，再看https://a.org/x了解详情"),
        ("Mail ann@a.org, please.", "请写信给ann@a.org。"),
        ("What does this do?\nfor i in range(3):\n    print(i)", "这段做什么？\nfor i in range(3):\n    print(i)"),
        ("A plain sentence; with marks: and (brackets).", "一句普通的话。"),
        ("Dear {name},\nlet me know (soon);", "亲爱的 {name}，\n请尽快告诉我"),
    ],
)
def test_code_that_stands(source: str, target: str) -> None:
    assert code_changed(source, target) is None


@pytest.mark.parametrize(
    ("source", "target", "seen"),
    [
        ("Run `pip list` now.", "现在运行 `pip 列表`。", "'`pip list`' is missing"),
        ("Run it now.", "现在运行 `it`。", "'`it`' is new"),
        ("Use `a` and `a`.", "用 `a`。", "'`a`' is missing"),
        (FENCED, "修正：\n```python\nprint('你好')\n```", "is missing"),
        ("See https://a.org/x.", "见 https://a.org/y。", "'https://a.org/x' is missing"),
        ("Explain:\nx = load(path)", "解释：\nx = 加载(路径)", "'x = load(path)' is missing"),
    ],
)
def test_code_that_does_not(source: str, target: str, seen: str) -> None:
    assert seen in str(code_changed(source, target))


@pytest.mark.parametrize(
    ("source", "target"),
    [
        ("Dear {name}, pay {{sum}} to $USER or ${HOME}: %s of %(total)d, __ and ____.",) * 2,
        ("Dear {name}, welcome to [city].", "欢迎来到[city]，{name}。"),
        ("See [the manual](https://a.org).", "见[手册](https://a.org)。"),
        ("Make <b>this</b> bold, 5 < 6 and 8 > 7.", "把<b>这个</b>加粗，5 < 6，8 > 7。"),
        ("It costs $5, or 100% in sum.", "它要 5 美元，也就是总数的 100%。"),
        ("亲爱的{姓名}：", "Dear {姓名},"),
    ],
)
def test_placeholders_that_stand(source: str, target: str) -> None:
    assert placeholder_changed(source, target) is None


@pytest.mark.parametrize(
    ("source", "target", "seen"),
    [
        ("Dear {name},", "亲爱的{姓名}：", "'{name}' is missing"),
        ("Dear [name],", "亲爱的[姓名]：", "'[name]' is missing"),
        ("A <b>bold</b> word", "一个<b>粗体</i>词", "'</b>' is missing"),
        ("Print $PATH", "打印路径", "'$PATH' is missing"),
        ("Format %s here", "在此格式化", "'%s' is missing"),
        ("Dear friend,", "亲爱的{name}：", "'{name}' is new"),
        ("Fill the ____ in.", "填空。", "'____' is missing"),
    ],
)
def test_placeholders_that_do_not(source: str, target: str, seen: str) -> None:
    assert placeholder_changed(source, target) == seen


@pytest.mark.parametrize(
    ("source", "target"),
    [
        ("1,000 and 1000", "1000和1,000"),
        ("10,000 people", "1万人"),
        ("3 million people", "300万人"),
        ("1.5 billion", "15亿"),
        ("约2.5万元", "about 25,000 yuan"),
        ("5 kg", "5千克"),
        ("5000克", "5,000 g"),
        ("Name three rivers", "说出3条河"),
        ("Name three rivers", "说出三条河"),
        ("twenty-five words", "25个字"),
        ("写一百二十个字", "Write 120 words"),
        ("On March 5, 2021", "2021年3月5日"),
        ("2021年3月5日", "On March 5, 2021"),
        ("the 1st and the 20th", "第1和第20"),
        ("12 and 7%", "１２和７％"),
        ("100,200,300", "100、200、300"),
        ("Drink H2O in Python3", "用 Python 3 喝水"),
        ("Version 1.2.3 of 2 tools", "2个工具的1.2.3版"),
        ("Go to https://a.org/42 and run `f(7)`", "打开"),
    ],
)
def test_numbers_that_stand(source: str, target: str) -> None:
    assert numbers_changed(source, target) is None


@pytest.mark.parametrize(
    ("source", "target", "seen"),
    [
        ("1,000 trees", "100棵树", "'1000' is missing"),
        ("3 trees", "三棵树", "'3' is missing"),
        ("3 and 3", "3", "'3' is missing"),
        ("Name a river", "说出7条河", "'7' is new"),
        ("Name three rivers", "说出4条河", "'4' is new"),
        ("10,000 people", "1千人", "'10000' is missing"),
        ("3.5 m", "35 m", "'3.5' is missing"),
        ("1.2.3", "1.2.4", "'1.2.3' is missing"),
        ("3月5日", "April 5", "'3' is missing"),
    ],
)
def test_numbers_that_do_not(source: str, target: str, seen: str) -> None:
    assert numbers_changed(source, target) == seen


def test_the_length_is_alike() -> None:
    english = "Describe how a small river finds its way through the hills to the sea."
    assert length_changed(english, "描述一条小河如何穿过群山流入大海。") is None
    assert length_changed("Yes", "是的，没错") is None
    assert length_changed("Name a river.", "尼罗河。" * 30) == "13 bytes became 360"
    assert length_changed(english * 4, "河。") is not None


def test_a_line_stays_a_line() -> None:
    assert lines_changed("The Nile.", "好的，译文如下：\n\n尼罗河。") == "one line became 3"
    assert lines_changed("The Nile.", "尼罗河。\n") is None
    assert lines_changed("- a\n- b", "- 甲\n- 乙\n- 丙") is None


def test_the_language_is_the_wanted_one() -> None:
    assert not_translated("Use Python and pip.", "请使用 Python 和 pip。", "zh") is None
    assert not_translated("Name a river", "Name a river", "zh") == "only 0% of the words are Chinese"
    assert not_translated("说出一条河", "Name a 河", "en") is None
    assert not_translated("Name a river", "!", "zh") == "no words remain"
    assert not_translated("42", "42", "zh") is None
    assert language_share("42", "en") is None
    assert language_of("请把 Hello 译成中文") == "zh"
    assert language_of("Write 你好 ten times in a row") == "en"
    assert language_of("x + y = 5") is None


@pytest.mark.parametrize(
    "text",
    [
        "def f(x):\n    return x + 1",
        '{"name": "Ann", "age": 5}',
        "[1, 2, 3]",
        "SELECT name FROM people;",
        "print('hello')",
        "<br/>",
        "int main() {\n  return 0;\n}",
    ],
)
def test_pure_code_is_told(text: str) -> None:
    assert is_code(text)


@pytest.mark.parametrize(
    "text",
    ["", "Name a river.", "Dear {name}", "apples;\npears;", "For example:\nA river.", "{not json", "<p>Hello</p>"],
)
def test_words_are_no_code(text: str) -> None:
    assert not is_code(text)


@pytest.mark.parametrize("row", ["一" * 5000, "九亿" * 5000, "百" * 100_000])
def test_a_long_row_of_number_signs_is_no_number(row: str) -> None:
    assert numbers_changed(row, "Nine hundred") is None
    assert numbers_changed(f"{row}, 三百", "300") is None
    assert numbers_changed(row, "1")
