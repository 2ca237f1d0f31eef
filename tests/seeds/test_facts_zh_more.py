"""The facts inside the Chinese seeds, continued: code, JSON, tables, puzzles, quotations and wording."""

import contextlib
import io
import itertools
import json
import re
import shutil
import sqlite3
import subprocess
from collections import deque
from typing import Any

import pytest

from tests.seeds.test_facts_zh import FENCE, HAN, SEEDS, bare, given, pairs, said

# Every seed with a fenced block in an output, and its language. A new one must be added here and get a test.
CODE = {
    "assignment_in_if": "javascript",
    "broken_book_json": "json",
    "chinese_date_regex": "regex",
    "class_average_sql": "sql",
    "comment_the_counter": "python",
    "count_han": "python",
    "format_wan": "javascript",
    "keep_order_unique": "python",
    "null_comparison": "sql",
    "number_to_chinese": "python",
    "sort_scores_dict": "python",
}


def code(name: str) -> str:
    (block,) = FENCE.findall(said(name))
    first, _, rest = str(block).partition("\n")
    assert first == f"```{CODE[name]}"
    return rest.removesuffix("```").rstrip()


def run_python(source: str) -> tuple[dict[str, Any], str]:
    names: dict[str, Any] = {}
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(compile(source, "<seed>", "exec"), names)  # noqa: S102 (our own seeds)
    return names, printed.getvalue()


def run_javascript(source: str) -> str:
    node = shutil.which("node")
    if node is None:
        pytest.skip("node is not installed")
    return subprocess.run([node, "-e", source], capture_output=True, check=True, encoding="utf-8").stdout


def table(markdown: str) -> list[dict[str, str]]:
    head, rule, *rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in markdown.splitlines()]
    assert set(rule) == {"---"}
    return [dict(zip(head, row, strict=True)) for row in rows]


def lines(name: str) -> list[str]:
    return said(name).splitlines()


# Code


def test_every_fenced_block_has_its_test() -> None:
    found = {seed["name"] for seed in SEEDS for _, output in pairs(seed["name"]) if "```" in output}
    assert found == set(CODE)
    assert all(code(name) for name in CODE)


def test_count_han() -> None:
    count = run_python(code("count_han"))[0]["count_han"]
    assert [count(text) for text in ("", "abc，。", "茶a米\n饭1", "\u4dff\u4e00\u9fff\ua000")] == [0, 0, 3, 2]


def test_keep_order_unique() -> None:
    unique = run_python(code("keep_order_unique"))[0]["unique"]
    names = [f"名{number}" for number in (9, 3, 9, 7, 3, 1, 8, 5)]
    assert unique(names) == [f"名{number}" for number in (9, 3, 7, 1, 8, 5)]
    broken = run_python(given("keep_order_unique"))[0]["unique"]
    assert isinstance(broken(names), list)
    assert set(broken(names)) == set(names)


def test_shared_default_bag() -> None:
    first, second = run_python(given("shared_default_bag"))[1].splitlines()
    assert said("shared_default_bag").startswith(f"先输出{first}，再输出{second}。")


def test_comments_change_nothing() -> None:
    source, commented = given("comment_the_counter"), code("comment_the_counter")
    assert re.sub(r"  # .+", "", commented) == source
    assert all("  # " in line for line in commented.splitlines())
    assert run_python(source)[1] == run_python(commented)[1] == "[('茶', 3)]\n"


def test_number_to_chinese() -> None:
    to_chinese = run_python(code("number_to_chinese"))[0]["to_chinese"]
    ones = ["零", *"一二三四五六七八九"]
    wanted = ones + [(ten if ten != "一" else "") + "十" + one for ten in ones[1:] for one in ["", *ones[1:]]]
    assert [to_chinese(number) for number in range(100)] == wanted


def test_sort_scores() -> None:
    assert code("sort_scores_dict").startswith(given("sort_scores_dict"))
    assert run_python(code("sort_scores_dict"))[1] == "数学 95\n英语 91\n语文 88\n"


def test_date_regex() -> None:
    pattern = code("chinese_date_regex")
    for year, month, day in itertools.product(("2024", "0987", "24"), range(14), range(33)):
        good = len(year) == 4 and 1 <= month <= 12 and 1 <= day <= 31
        assert bool(re.search(pattern, f"{year}年{month}月{day}日")) is good
    assert not any(
        re.search(pattern, text) for text in ("2024年03月5日", "2024年3月05日", "于2024年3月5日", "2024年3月5号")
    )


def test_class_average_sql() -> None:
    base = sqlite3.connect(":memory:")
    base.execute("CREATE TABLE scores (student, class, score)")
    rows = [("a", "一班", 90), ("b", "一班", 80), ("c", "二班", 80), ("d", "三班", 99), ("e", "三班", 95)]
    base.executemany("INSERT INTO scores VALUES (?, ?, ?)", rows)
    assert base.execute(code("class_average_sql")).fetchall() == [("三班", 97.0), ("一班", 85.0)]


def test_null_comparison() -> None:
    base = sqlite3.connect(":memory:")
    base.execute("CREATE TABLE customers (name, phone)")
    base.executemany("INSERT INTO customers VALUES (?, ?)", [("甲", "1"), ("乙", None), ("丙", "")])
    assert base.execute(given("null_comparison")).fetchall() == []
    assert base.execute(code("null_comparison")).fetchall() == [("乙",)]


def test_kinds_of_sql() -> None:
    base = sqlite3.connect(":memory:")
    base.execute("CREATE TABLE goods (id INTEGER PRIMARY KEY, name, price, stock)")
    words = {"SELECT": "查询", "UPDATE": "更新", "DELETE": "删除", "INSERT": "插入"}
    for statement, label in pairs("kind_of_sql"):
        base.execute(statement)
        assert words[statement.split()[0]] == label


def test_format_wan() -> None:
    calls = "[0, 7, 9999, 10000, 12000, 123456].map(formatWan)"
    printed = run_javascript(f"{code('format_wan')}\nconsole.log(JSON.stringify({calls}));")
    assert json.loads(printed) == ["0", "7", "9999", "1.0万", "1.2万", "12.3万"]


def test_assignment_in_if() -> None:
    loop = "for (const start of [1, 3]) {{ let level = start; {} }}"
    assert run_javascript(loop.format(given("assignment_in_if"))) == "通关\n通关\n"
    assert run_javascript(loop.format(code("assignment_in_if"))) == "通关\n"


# JSON and tables


def test_json() -> None:
    parcel = json.loads(said("parcel_text_json"))
    assert list(parcel) == ["取件码", "地点", "截止时间"]
    assert all(text in given("parcel_text_json") for text in parcel.values())
    head, *rows = [line.split(",") for line in given("groceries_to_json").splitlines()]
    wanted = [dict(zip(head, [row[0], int(row[1]), row[2]], strict=True)) for row in rows]
    assert json.loads(said("groceries_to_json")) == wanted
    with pytest.raises(json.JSONDecodeError):
        json.loads(given("broken_book_json"))
    assert json.loads(code("broken_book_json")) == {"书名": "边城", "作者": "沈从文"}


def test_guesthouses() -> None:
    rows = table(said("guesthouse_table"))
    assert list(rows[0]) == ["名称", "每晚价格", "能否带宠物"]
    assert [list(row.values()) for row in rows] == [
        ["溪边小院", "260元", "能"],
        ["云上居", "320元", "不能"],
        ["老磨坊", "198元", "能"],
    ]
    assert all(row["名称"] in given("guesthouse_table") for row in rows)


def test_timetables() -> None:
    lessons = {row["星期"]: list(row.values()).index("体育") for row in table(given("earliest_pe_lesson"))}
    assert min(lessons, key=lessons.__getitem__) == "三"
    assert lessons == {"一": 3, "三": 2, "五": 3}
    trains = [row.split(" | ") for row in given("train_before_ten").splitlines()[1:]]
    cheapest = min((row for row in trains if row[2] < "10:00"), key=lambda row: int(row[3].removesuffix("元")))
    assert said("train_before_ten").startswith(
        f"挑{cheapest[0]}：{cheapest[2]}到，票价{cheapest[3]}，比G101便宜{158 - 112}元"
    )


def test_stationery() -> None:
    before, after = table(given("stationery_subtotals")), table(said("stationery_subtotals"))
    total = after.pop()
    for row in before:
        row["小计（元）"] = str(int(row["单价（元）"]) * int(row["数量"]))
    assert before == after
    assert total["小计（元）"] == str(sum(int(row["小计（元）"]) for row in before))
    assert total["数量"] == str(sum(int(row["数量"]) for row in before))


# Puzzles


def test_logic_puzzles() -> None:
    truths = {who: [who == "乙", who != "乙", who != "丙"] for who in "甲乙丙"}
    assert [who for who, told in truths.items() if sum(told) == 1] == ["丙"]
    assert said("broken_vase").endswith("所以花瓶是丙打碎的。")
    rows = ["".join(row) for row in itertools.permutations("甲乙丙丁")]
    rows = [row for row in rows if row[0] == "丙" and abs(row.index("甲") - row.index("丙")) == 1 and row[-1] != "丁"]
    assert rows == ["丙甲丁乙"]
    assert said("four_in_a_row").endswith("丙、甲、丁、乙。")


def test_the_fake_coin_is_found_in_two() -> None:
    def weigh(piles: list[list[int]], fake: int) -> list[int]:
        return next(pile for pile in piles if fake in pile)

    for fake in range(9):
        three = weigh([[0, 1, 2], [3, 4, 5], [6, 7, 8]], fake)
        assert weigh([[coin] for coin in three], fake) == [fake]
    assert 3**1 < 9 <= 3**2  # one weighing has three outcomes: too few for nine coins
    assert said("fake_coin").startswith("两次。")


def test_the_river_is_crossed() -> None:
    goods = ("狼", "羊", "白菜")
    start, goal = (frozenset(goods), True), (frozenset[str](), False)

    def moves(state: tuple[frozenset[str], bool]) -> list[tuple[frozenset[str], bool]]:
        near, at_near = state
        here = near if at_near else frozenset(goods) - near
        found = []
        for cargo in (None, *here):
            left = here - {cargo}
            if not ({"狼", "羊"} <= left or {"羊", "白菜"} <= left):
                found.append((left if at_near else frozenset(goods) - left, not at_near))
        return found

    distances, queue = {start: 0}, deque([start])
    while queue:
        state = queue.popleft()
        for new in moves(state):
            if new not in distances:
                distances[new] = distances[state] + 1
                queue.append(new)
    *steps, last = lines("wolf_goat_cabbage")
    assert last == f"一共{distances[goal]}趟，全都平安到了对岸。"
    assert len(steps) == distances[goal]
    state = start
    for step in steps:
        near, at_near = state
        assert step.endswith("过去。" if at_near else "回来。")
        cargo = set(re.findall(r"带(狼|羊|白菜)", step))
        after = (near - cargo if at_near else near | cargo, not at_near)
        assert after in moves(state)
        state = after
    assert state == goal


def test_idiom_chain() -> None:
    chain = said("idiom_chain").split("→")
    assert chain[0] == given("idiom_chain")
    assert len(set(chain)) == 5
    assert all(len(idiom) == 4 for idiom in chain)
    assert all(one[-1] == other[0] for one, other in itertools.pairwise(chain))


# Wording


@pytest.mark.parametrize("name", ["add_the_stops", "title_marks", "full_width_marks"])
def test_only_punctuation_changes(name: str) -> None:
    assert bare(said(name)) == bare(given(name))


def test_filled_blanks_keep_the_text() -> None:
    filled = re.sub(r"（[a-zǎáìòóǐěúùōēāà]+）", "（）", said("polyphone_pinyin"))
    assert filled == given("polyphone_pinyin")
    wanted = [text.split("（）") for text in given("fill_measure_words").split("、")]
    for (head, tail), phrase in zip(wanted, said("fill_measure_words").split("、"), strict=True):
        assert re.fullmatch(rf"{head}.{tail}", phrase)


def test_limits_on_length() -> None:
    assert len(said("library_hours_news")) <= 30
    assert len(said("soy_milk_title")) <= 8
    assert all(len(line.split(". ")[1].strip("。")) <= 12 for line in lines("lift_reasons"))
    assert len(said("astronomy_club")) <= 120
    assert all(len(line.split(". ")[1]) <= 15 for line in lines("old_water_tower"))
    assert len(lines("old_water_tower")) == 5
    assert len(said("market_at_dusk")) <= 60
    assert len(bare(said("cut_the_padding"))) <= len(bare(given("cut_the_padding"))) * 2 / 3
    assert len(said("power_cut_subject")) <= 15
    assert len(said("the_rain_stopped")) <= 70
    assert said("the_rain_stopped").endswith("雨停了。")
    assert all(len(bare(line.split(". ")[1])) <= 15 for line in lines("clean_plate_slogans"))
    assert len(said("calligraphy_teacher").rstrip("。").split("。")) <= 3
    assert len(said("dujiangyan").rstrip("。").split("。")) == 3
    assert len(re.findall(r"[.!?](?=\s|$)", said("dish_for_guests"))) <= 2
    assert [len(lines(name)) for name in ("rider_in_the_rain", "umbrella_dialogue", "salty_dish", "quiet_pupils")] == [
        4
    ] * 4
    assert [len(bare(line)) for line in lines("abacus_riddle")] == [5] * 4
    assert [len(HAN.findall(line)) - 2 for line in lines("alley_bookshop_couplet")] == [7, 7]
    assert len(lines("noodle_shop_names")) == 6


def test_words_that_must_or_must_not_stand() -> None:
    assert "辛苦" not in said("rider_in_the_rain")
    assert not set("香味") & set(said("noodle_shop_names"))
    assert all(line.count("花") for line in lines("flower_verses"))
    seasonings = said("braised_pork_seasonings").split("、")
    places = [given("braised_pork_seasonings").index(word) for word in seasonings]
    assert places == sorted(places)
    for line in lines("railway_engineer_years"):
        assert line.split("：")[0].removesuffix("年") in given("railway_engineer_years")
