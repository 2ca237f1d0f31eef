"""The facts inside the English seeds: code is run, sums are redone, JSON and tables are read back.

Schema, uniqueness, ROUGE-L and spread are tested elsewhere. Nothing here needs the network. Python, SQL and
regular expressions are always run. JavaScript, C and the shell are run when node, a C compiler and the shell
tools are there; where they are not, the tests whose names say "structure" are all that checks them.
"""

import ast
import calendar
import csv
import io
import itertools
import json
import re
import shutil
import sqlite3
import statistics
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterable
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from types import FrameType
from typing import Any, TypedDict

import pytest

SEEDS_PATH = Path(__file__).resolve().parent.parent / "seeds" / "en.jsonl"


class Instance(TypedDict):
    """One worked case of a seed."""

    input: str
    output: str


class Seed(TypedDict):
    """One line of the seed set."""

    id: str
    name: str
    instruction: str
    instances: list[Instance]
    is_classification: bool
    category: str
    verb: str
    topic: str


def load() -> list[Seed]:
    """Read the seeds, one JSON object a line."""
    rows: list[Seed] = [json.loads(line) for line in SEEDS_PATH.read_text(encoding="utf-8").splitlines()]
    return rows


SEEDS = load()
BY_NAME = {seed["name"]: seed for seed in SEEDS}

# Every seed with fenced code in an output, and its language. A new one must be added here and get a test.
CODE_SEEDS = {
    "chunk_function": "python",
    "second_largest_fix": "python",
    "no_orders_in_2024": "sql",
    "clock_regex": "regex",
    "scanf_crash": "c",
    "count_lines_shell": "bash",
    "initials_to_js": "javascript",
}
# Seeds whose input is Python.
PYTHON_INPUT_SEEDS = ["second_largest_fix", "initials_to_js", "loop_complexity"]

FENCE = re.compile(r"^```(\w+)\n(.*?)\n```$", re.DOTALL | re.MULTILINE)
NUMBER = re.compile(r"\d+(?:\.\d+)?")


def text_of(name: str) -> str:
    """The instruction of a seed."""
    return BY_NAME[name]["instruction"]


def input_of(name: str) -> str:
    """The input of a seed's first instance."""
    return BY_NAME[name]["instances"][0]["input"]


def output_of(name: str) -> str:
    """The output of a seed's first instance."""
    return BY_NAME[name]["instances"][0]["output"]


def code_of(name: str) -> str:
    """The one fenced code block in a seed's first output."""
    blocks = FENCE.findall(output_of(name))
    assert len(blocks) == 1
    language, code = blocks[0]
    assert language == CODE_SEEDS[name]
    return str(code)


def run_python(code: str) -> dict[str, Any]:
    """Execute Python source and hand back its names."""
    names: dict[str, Any] = {}
    exec(compile(code, "<seed>", "exec"), names)  # noqa: S102  (our own seeds)
    return names


def tool(*names: str) -> str:
    """The path of the first of these programs that is installed; skips the test if none is."""
    for name in names:
        path = shutil.which(name)
        if path is not None:
            return path
    pytest.skip(f"not installed: {' or '.join(names)}")


def minutes(clock: str) -> int:
    """Minutes since midnight of a time such as 09:05."""
    hours, mins = clock.split(":")
    return int(hours) * 60 + int(mins)


def sentences(text: str) -> int:
    """How many sentences a text has, by its full stops, question and exclamation marks."""
    return len(re.findall(r"[.!?](?=\s|$)", text))


def table_rows(markdown: str) -> list[list[str]]:
    """The cells of a Markdown table, heading first, the rule under it checked and left out."""
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in markdown.splitlines()]
    assert len({len(row) for row in rows}) == 1
    assert all(re.fullmatch(r"-{3,}", cell) for cell in rows[1])
    return [rows[0], *rows[2:]]


def balanced(code: str) -> bool:
    """True if the brackets outside strings and regular expressions close in order."""
    bare = re.sub(r"\"(?:\\.|[^\"\\])*\"|'(?:\\.|[^'\\])*'|/(?:\\.|[^/\\\n])+/", "", code)
    stack: list[str] = []
    for char in bare:
        if char in "([{":
            stack.append({"(": ")", "[": "]", "{": "}"}[char])
        elif char in ")]}" and (not stack or stack.pop() != char):
            return False
    return not stack


# Code


def test_every_code_block_has_its_test() -> None:
    """No fenced code slips into the seeds without a check here."""
    found = {
        (seed["name"], language)
        for seed in SEEDS
        for instance in seed["instances"]
        for language, _ in FENCE.findall(instance["output"])
    }
    assert found == set(CODE_SEEDS.items())
    assert all(instance["output"].count("```") % 2 == 0 for seed in SEEDS for instance in seed["instances"])


@pytest.mark.parametrize("name", PYTHON_INPUT_SEEDS)
def test_python_inputs_parse(name: str) -> None:
    """Python given as input is real Python."""
    for instance in BY_NAME[name]["instances"]:
        ast.parse(instance["input"])


def test_chunk() -> None:
    """chunk loses nothing, cuts evenly and refuses a size below one."""
    chunk: Callable[[list[int], int], list[list[int]]] = run_python(code_of("chunk_function"))["chunk"]
    assert chunk([1, 2, 3, 4, 5], 2) == [[1, 2], [3, 4], [5]]
    assert chunk([], 3) == []
    for length, size in itertools.product(range(12), range(1, 6)):
        pieces = chunk(list(range(length)), size)
        assert list(itertools.chain.from_iterable(pieces)) == list(range(length))
        assert all(len(piece) == size for piece in pieces[:-1])
        assert all(1 <= len(piece) <= size for piece in pieces)
    for size in (0, -1):
        with pytest.raises(ValueError, match="size"):
            chunk([1], size)


def test_second_largest() -> None:
    """The given function has the fault, the mended one has not and leaves the list alone."""
    broken = run_python(input_of("second_largest_fix"))["second_largest"]
    mended = run_python(code_of("second_largest_fix"))["second_largest"]
    assert broken([3, 9, 9]) == 9
    assert mended([3, 9, 9]) == 3
    assert mended([4, -1, 4, 7, 7]) == 4
    numbers = [5, 1, 5, 2]
    assert mended(numbers) == 2
    assert numbers == [5, 1, 5, 2]
    broken(numbers)
    assert numbers != [5, 1, 5, 2]


def line_events(code: str, n: int) -> int:
    """How many lines Python executes when it runs the code with this n."""
    count = 0

    def trace(frame: FrameType, event: str, _: object) -> Any:
        """Count the line events of the seed's own code."""
        nonlocal count
        if frame.f_code.co_filename != "<seed>":
            return None
        count += event == "line"
        return trace

    compiled = compile(code, "<seed>", "exec")
    before = sys.gettrace()
    sys.settrace(trace)
    try:
        exec(compiled, {"n": n})  # noqa: S102  (our own seeds)
    finally:
        sys.settrace(before)
    return count


def test_loop_complexity() -> None:
    """The growth that a line count shows is the growth the label names."""
    for instance in BY_NAME["loop_complexity"]["instances"]:
        small, large = line_events(instance["input"], 64), line_events(instance["input"], 256)
        ratio = large / small
        if small == large:
            label = "constant"
        elif ratio < 2:
            label = "logarithmic"
        else:
            label = "linear" if ratio < 6 else "quadratic"
        assert instance["output"] == label


def test_sql_runs() -> None:
    """The query gives the customers with no order in 2024, and only them."""
    database = sqlite3.connect(":memory:")
    database.executescript(
        """
        CREATE TABLE customers (id INTEGER PRIMARY KEY, name TEXT);
        CREATE TABLE orders (id INTEGER PRIMARY KEY, customer_id INTEGER, placed_on TEXT);
        INSERT INTO customers VALUES (1, 'Zed'), (2, 'Amy'), (3, 'Bo'), (4, 'Cy'), (5, 'Di');
        INSERT INTO orders VALUES (1, 1, '2023-12-31'), (2, 2, '2024-01-01'), (3, 3, '2024-12-31'),
                                  (4, 3, '2024-05-31'), (5, 4, '2025-01-01'), (6, 4, '2023-06-01');
        """
    )
    assert database.execute(code_of("no_orders_in_2024")).fetchall() == [("Cy",), ("Di",), ("Zed",)]
    database.close()


def test_clock_regex() -> None:
    """Exactly the 1,440 times of a day match."""
    pattern = re.compile(code_of("clock_regex"))
    for hour, minute in itertools.product(range(100), range(100)):
        assert bool(pattern.match(f"{hour:02}:{minute:02}")) == (hour < 24 and minute < 60)
    for text in ("7:45", "07:5", "07-45", " 07:45", "07:45 ", "007:45", "07:450", "0745", "", "ab:cd"):
        assert not pattern.match(text)
    assert "00 to 19 or 20 to 23, the minutes 00 to 59" in output_of("clock_regex")
    named = re.findall(r"\d+:\d+", text_of("clock_regex"))
    assert named == ["07:45", "23:59", "7:45", "24:00", "12:60"]
    assert [bool(pattern.match(text)) for text in named] == [True, True, False, False, False]


def test_initials_in_python() -> None:
    """The Python that is to be ported works, empty names included."""
    initials = run_python(input_of("initials_to_js"))["initials"]
    assert initials("ada king lovelace") == "AKL"
    assert initials("") == initials("   ") == ""


def test_initials_in_javascript_structure() -> None:
    """Structure only: one function of the right name, brackets closed, blanks filtered as in Python."""
    code = code_of("initials_to_js")
    assert re.match(r"function initials\(name\) \{\n", code)
    assert balanced(code)
    assert r".split(/\s+/)" in code
    assert ".filter(" in code


def test_initials_in_javascript_run() -> None:
    """Where node is installed, both languages give the same."""
    node = tool("node", "nodejs")
    names = ["ada king lovelace", "", "   ", " tab\there ", "x", "Already Upper"]
    script = f"{code_of('initials_to_js')}\nconsole.log(JSON.stringify({json.dumps(names)}.map(initials)));"
    done = subprocess.run([node, "-e", script], capture_output=True, text=True, check=True, timeout=60)
    initials = run_python(input_of("initials_to_js"))["initials"]
    assert json.loads(done.stdout) == [initials(name) for name in names]


def test_javascript_sort_by_its_rule() -> None:
    """The order that JavaScript's rule gives (compare as strings) is the order in the answer."""
    listed = re.search(r"\[(.*?)\]", input_of("js_sort_print"))
    assert listed is not None
    numbers = [int(part) for part in listed.group(1).split(",")]
    shown = ", ".join(str(number) for number in sorted(numbers, key=str))
    assert output_of("js_sort_print").startswith(f"It prints [ {shown} ].")
    assert sorted(numbers) != sorted(numbers, key=str)


def test_javascript_sort_run() -> None:
    """Where node is installed, the line prints what the answer says, and the advice sorts by number."""
    node = tool("node", "nodejs")
    script = input_of("js_sort_print") + "\nconsole.log(JSON.stringify([10, 9, 1].sort((a, b) => a - b)));"
    done = subprocess.run([node, "-e", script], capture_output=True, text=True, check=True, timeout=60)
    first, second = done.stdout.splitlines()
    assert output_of("js_sort_print").startswith(f"It prints {first}.")
    assert second == "[1,9,10]"
    assert '"10" comes before "9"' in output_of("js_sort_print")
    assert "sort((a, b) => a - b)" in output_of("js_sort_print")


def test_scanf_structure() -> None:
    """Structure only: the mend adds one &, nothing else."""
    broken = input_of("scanf_crash").splitlines()[1]
    mended = code_of("scanf_crash")
    assert mended == broken.replace(" age", " &age")
    assert broken.count("&") == 0
    assert mended.count("&") == 1
    assert balanced(mended)


def test_scanf_compiles(tmp_path: Path) -> None:
    """Where a C compiler is installed, it refuses the given line; the mended one compiles and reads 42."""
    compiler = tool("cc", "gcc", "clang")
    declaration, broken = input_of("scanf_crash").splitlines()
    program = '#include <stdio.h>\nint main(void) {{\n{}\n{}\nprintf("%d", age);\nreturn 0;\n}}\n'
    results = []
    for line in (broken, code_of("scanf_crash")):
        source, binary = tmp_path / "seed.c", tmp_path / "seed"
        source.write_text(program.format(declaration, line), encoding="utf-8")
        command = [compiler, "-Wformat", "-Werror=format", "-o", str(binary), str(source)]
        results.append(subprocess.run(command, capture_output=True, check=False, timeout=120).returncode)
    assert results[0] != 0
    assert results[1] == 0
    done = subprocess.run(
        [str(tmp_path / "seed")], input="42\n", capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout == "42"


def test_shell_pipeline_structure() -> None:
    """Structure only: sort, then count, then sort by the count, largest first."""
    steps = [step.split() for step in code_of("count_lines_shell").split("|")]
    assert steps == [["sort", "notes.txt"], ["uniq", "-c"], ["sort", "-rn"]]


def test_shell_pipeline_runs(tmp_path: Path) -> None:
    """Where the tools are installed, the counts are those that Python gets."""
    shell = tool("bash", "sh")
    tool("sort")
    tool("uniq")
    lines = ["tea", "milk", "tea", "bread", "milk", "tea"]
    (tmp_path / "notes.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    command = [shell, "-c", code_of("count_lines_shell")]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True, timeout=60)
    found = [(word, int(count)) for count, word in (line.split() for line in done.stdout.splitlines())]
    assert found == Counter(lines).most_common()


# JSON and tables


def test_json_outputs_parse() -> None:
    """Whatever looks like JSON is JSON."""
    parsed = 0
    for seed in SEEDS:
        for instance in seed["instances"]:
            if instance["output"][0] in "[{":
                json.loads(instance["output"])
                parsed += 1
    assert parsed >= 1


def test_csv_to_json() -> None:
    """The JSON holds what the csv module reads, with real numbers and booleans."""
    rows = [
        {"item": row["item"], "price": float(row["price"]), "in_stock": row["in_stock"] == "yes"}
        for row in csv.DictReader(io.StringIO(input_of("csv_to_json")))
    ]
    answer = json.loads(output_of("csv_to_json"))
    assert answer == rows
    assert all(isinstance(row["in_stock"], bool) and not isinstance(row["price"], str) for row in answer)


def test_river_table() -> None:
    """Each city stands with its country and its river, and all of it comes from the input."""
    heading, *rows = table_rows(output_of("river_table"))
    assert heading == ["City", "Country", "River"]
    facts = {
        "Budapest": ("Hungary", "Danube"),
        "Cairo": ("Egypt", "Nile"),
        "London": ("United Kingdom", "Thames"),
    }
    assert {city: (country, river) for city, country, river in rows} == facts
    assert all(cell in input_of("river_table") for row in rows for cell in row)


def test_price_per_litre() -> None:
    """The new column is price by litres, the rows are the old ones, cheapest first."""
    old_heading, *old = table_rows(input_of("price_per_litre"))
    heading, *rows = table_rows(output_of("price_per_litre"))
    assert heading == [*old_heading, "Price per litre"]
    assert sorted(row[:3] for row in rows) == sorted(old)
    for _, litres, price, unit in rows:
        assert unit == f"{float(price) / float(litres):.2f}"
    assert [float(row[3]) for row in rows] == sorted(float(row[3]) for row in rows)


# Arithmetic and units


def test_lamp_receipt() -> None:
    """Discount, tax and total, redone in cents."""
    lamps = 3 * 2400
    reduced = lamps - lamps * 15 // 100
    tax = reduced * 8 / 100
    total = reduced + round(tax)
    assert (lamps, reduced, tax, total) == (7200, 6120, 489.6, 6610)
    for cents in (lamps, lamps - reduced, reduced, round(tax), total):
        assert f"{cents / 100:.2f}" in output_of("lamp_receipt")
    assert output_of("lamp_receipt").endswith(f"= {total / 100:.2f}")


def test_metric_recipe() -> None:
    """Ounces, pounds and degrees, converted and rounded."""
    given = [float(number) for number in NUMBER.findall(input_of("metric_recipe"))]
    grams_per_ounce = 28.349523125
    expected = [
        round(given[0] * grams_per_ounce),
        round(given[1] * 16 * grams_per_ounce),
        round(given[2] * grams_per_ounce),
        round((given[3] - 32) * 5 / 9),
    ]
    assert [int(number) for number in NUMBER.findall(output_of("metric_recipe"))] == expected


def test_heartbeats() -> None:
    """Beats an hour, a day and a year."""
    for beats in (70 * 60, 70 * 60 * 24, 70 * 60 * 24 * 365):
        assert f"{beats:,}" in output_of("heartbeats_in_a_year")
    assert round(70 * 60 * 24 * 365 / 1e6) == 37
    assert output_of("heartbeats_in_a_year").endswith("roughly 37 million.")


def test_rainfall_figures() -> None:
    """Mean, median and range."""
    data = [int(number) for number in NUMBER.findall(input_of("rainfall_figures"))]
    mean, median, spread = output_of("rainfall_figures").splitlines()
    assert mean.endswith(f"/ {len(data)} = {statistics.mean(data)} mm")
    assert median.startswith(f"Median: {statistics.median(data)} mm")
    assert median.endswith(", ".join(str(value) for value in sorted(data)))
    assert spread == f"Range: {max(data)} - {min(data)} = {max(data) - min(data)} mm"


def test_tight_connection() -> None:
    """The steps add up, and the passenger arrives before the gate closes."""
    lands, closes = re.findall(r"\d\d:\d\d", input_of("tight_connection"))
    parts = [int(part) for part in re.findall(r"(\d+) minutes", input_of("tight_connection"))]
    arrival = minutes(lands) + sum(parts)
    spare = minutes(closes) - arrival
    answer = output_of("tight_connection")
    assert answer.startswith("Yes." if spare >= 0 else "No.")
    assert f"{' + '.join(map(str, parts))} = {sum(parts)} minutes after {lands}" in answer
    assert f"it is {arrival // 60:02}:{arrival % 60:02}, which leaves {spare} minutes" in answer


def test_two_laptops() -> None:
    """The differences named are the differences."""
    (kilos_a, hours_a, euros_a), (kilos_b, hours_b, euros_b) = (
        [float(number) for number in NUMBER.findall(line)] for line in input_of("two_laptops").splitlines()
    )
    answer = output_of("two_laptops")
    assert f"{kilos_a - kilos_b:.1f} kg lighter" in answer
    assert hours_b == 2 * hours_a
    assert f"({hours_b:.0f} hours against {hours_a:.0f})" in answer
    assert f"{euros_a - euros_b:.0f} euros less" in answer


def test_hospital_bus() -> None:
    """Of the buses that arrive before nine, the answer is the latest; the next to arrive is too late."""
    rows = [[cell.strip() for cell in line.split("|")] for line in input_of("hospital_bus").splitlines()[1:]]
    limit = minutes("09:00")
    line, start, _, arrival = max((row for row in rows if minutes(row[3]) < limit), key=lambda row: minutes(row[3]))
    late = min(row[3] for row in rows if minutes(row[3]) >= limit)
    expected = f"Catch bus {line} at {start}. It reaches the hospital at {arrival}; the next one to arrive, at"
    assert output_of("hospital_bus") == f"{expected} {late}, is too late."


# Calendar and history


def test_hundred_days() -> None:
    """100 days after any Tuesday."""
    tuesday = date(2024, 1, 2)
    assert tuesday.strftime("%A") == "Tuesday"
    answer = (tuesday + timedelta(days=100)).strftime("%A")
    assert output_of("hundred_days").endswith(f"It will be a {answer}.")
    assert "100 = 14 x 7 + 2" in output_of("hundred_days")
    assert "14 full weeks and 2 days" in output_of("hundred_days")
    assert divmod(100, 7) == (14, 2)


def test_leap_years() -> None:
    """The rule as told is the calendar's, and so are the four examples."""
    for year in range(1600, 2801):
        told = (year % 400 == 0) if year % 100 == 0 else (year % 4 == 0)
        assert told == calendar.isleap(year)
    years = [int(year) for year in re.findall(r"\b\d{4}\b", output_of("leap_year_rule"))]
    assert years == [2024, 2000, 2023, 1900]
    assert [calendar.isleap(year) for year in years] == [True, True, False, False]


def test_iso_dates() -> None:
    """Every date of the text, sorted, none added."""
    found = re.findall(r"\d{1,2} [A-Z][a-z]+ \d{4}", input_of("iso_dates"))
    dates = sorted(datetime.strptime(text, "%d %B %Y").replace(tzinfo=UTC).date().isoformat() for text in found)
    assert output_of("iso_dates").splitlines() == dates


def test_order_four_events() -> None:
    """The years are right, in order, and each event is one of those given."""
    years = {
        "the fall of the Berlin Wall": 1989,
        "the storming of the Bastille": 1789,
        "the first landing of people on the Moon": 1969,
        "the Ottoman conquest of Constantinople": 1453,
    }
    assert input_of("order_four_events").split("; ") == list(years)
    expected = [f"{years[event]}: {event}" for event in sorted(years, key=years.__getitem__)]
    assert output_of("order_four_events").splitlines() == expected


def test_century_of_event() -> None:
    """The label is the century of the year."""
    years = {
        "The Great Fire of London": 1666,
        "The American Declaration of Independence": 1776,
        "The opening of the Suez Canal": 1869,
        "The sinking of the Titanic": 1912,
    }
    for instance in BY_NAME["century_of_event"]["instances"]:
        assert instance["output"] == f"{(years[instance['input']] - 1) // 100 + 1}th"


def test_rosetta_stone() -> None:
    """The stone was found in 1799, Champollion's announcement is of 1822, and there are three sentences."""
    assert re.findall(r"\d{4}", output_of("rosetta_stone")) == ["1799", "1822"]
    assert sentences(output_of("rosetta_stone")) == 3


# Chemistry


def atoms(side: str) -> Counter[str]:
    """How many atoms of each element one side of an equation has."""
    total: Counter[str] = Counter()
    for term in side.split(" + "):
        match = re.fullmatch(r"(?:(\d+) )?([A-Za-z0-9]+)", term)
        assert match is not None
        for element, count in re.findall(r"([A-Z][a-z]?)(\d*)", match.group(2)):
            total[element] += int(match.group(1) or 1) * int(count or 1)
    return total


def test_balanced_equations() -> None:
    """Both sides have the same atoms, and the substances are those given."""
    for instance in BY_NAME["balance_equation"]["instances"]:
        given_left, given_right = instance["input"].split(" -> ")
        left, right = instance["output"].split(" -> ")
        assert atoms(given_left) != atoms(given_right)
        assert atoms(left) == atoms(right)
        assert re.sub(r"(?<!\w)\d+ ", "", instance["output"]) == instance["input"]


# Logic, planning and games


def test_pets_have_one_solution() -> None:
    """Of the six ways to share out the pets, the clues leave the one in the answer."""
    people = ("Ana", "Ben", "Chloe")
    furry, flying = {"cat"}, {"parrot"}
    ways = [dict(zip(people, pets, strict=True)) for pets in itertools.permutations(("cat", "parrot", "tortoise"))]
    left = [way for way in ways if way["Ana"] not in furry and way["Ben"] in flying]
    assert left == [{"Ana": "tortoise", "Ben": "parrot", "Chloe": "cat"}]
    for person, pet in left[0].items():
        assert re.search(rf"{person} keeps the {pet}", output_of("pets_from_clues"))


def test_runners_have_one_order() -> None:
    """Of the 120 orders, the clues leave the one in the answer."""
    orders = []
    for order in itertools.permutations(("Dana", "Eli", "Femi", "Gus", "Hana")):
        place = {runner: index for index, runner in enumerate(order)}
        if (
            place["Dana"] < place["Eli"]
            and place["Femi"] == 4
            and place["Gus"] == place["Dana"] + 1
            and place["Hana"] < place["Dana"]
        ):
            orders.append(order)
    assert len(orders) == 1
    assert output_of("runner_order").endswith(f"The order is {', '.join(orders[0])}.")


Thing = tuple[bool, bool, bool]
World = frozenset[Thing]


def worlds() -> Iterable[World]:
    """Every world in which three properties are shared out in every way: 256 of them."""
    kinds: list[Thing] = [(a, b, c) for a in (False, True) for b in (False, True) for c in (False, True)]
    for size in range(len(kinds) + 1):
        for chosen in itertools.combinations(kinds, size):
            yield frozenset(chosen)


def test_valid_or_invalid() -> None:
    """An argument is valid when no world makes its premises true and its conclusion false."""

    def violins(world: World) -> tuple[bool, bool]:
        """Violin, instrument, old."""
        premises = all(i for v, i, _ in world if v) and any(i and o for _, i, o in world)
        return premises, any(v and o for v, _, o in world)

    def parrots(world: World) -> tuple[bool, bool]:
        """Reptile, feathered, parrot."""
        premises = not any(r and f for r, f, _ in world) and all(f for _, f, p in world if p)
        return premises, not any(p and r for r, _, p in world)

    def shops(world: World) -> tuple[bool, bool]:
        """Open, lit; the world is one shop at one moment."""
        is_open, lit, _ = next(iter(world))
        return (not is_open or lit) and not lit, not is_open

    arguments = BY_NAME["valid_or_invalid"]["instances"]
    readings: list[tuple[str, Callable[[World], tuple[bool, bool]]]] = [
        ("violins", violins),
        ("parrot", parrots),
        ("shop", shops),
    ]
    for (word, reading), argument in zip(readings, arguments, strict=True):
        assert word in argument["input"]
        cases = [world for world in worlds() if reading is not shops or len(world) == 1]
        valid = all(conclusion for premises, conclusion in map(reading, cases) if premises)
        assert argument["output"] == ("valid" if valid else "invalid")


def test_saturday_chores() -> None:
    """No two hand chores overlap, the machine has its hour, and no plan can end earlier."""
    *lines, verdict = output_of("saturday_chores").splitlines()
    spans = []
    for line in lines:
        match = re.match(r"(\d\d:\d\d)-(\d\d:\d\d) ", line)
        assert match is not None
        spans.append((minutes(match.group(1)), minutes(match.group(2))))
    assert spans[0][0] == minutes("09:00")
    assert all(end <= start for (_, end), (start, _) in itertools.pairwise(spans))
    assert [end - start for start, end in spans] == [5, 30, 25, 5, 15]
    load, hang = spans[0], spans[-1]
    assert hang[0] - load[1] >= 60
    assert hang[1] - minutes("09:00") == 5 + 60 + 15 == 80
    assert verdict.startswith("All done at 10:20.")
    assert "5 + 60 + 15 = 80 minutes" in verdict
    assert minutes("10:20") == hang[1]
    given = re.findall(r"(\d+) minutes", text_of("saturday_chores"))
    assert [int(number) for number in given] == [5, 60, 15, 30, 25, 5]


def test_running_plan() -> None:
    """Six weeks, and no week has less running than the week before or a shorter run."""
    weeks = re.findall(r"^Week (\d): (.*)$", output_of("five_kilometre_plan"), re.MULTILINE)
    assert [int(week) for week, _ in weeks] == [1, 2, 3, 4, 5, 6]
    sets = [re.match(r"(\d+) x \((\d+) min running", plan) for _, plan in weeks[:5]]
    runs = [(int(found.group(1)), int(found.group(2))) for found in sets if found is not None]
    assert len(runs) == 5
    assert all(b[1] > a[1] and b[0] * b[1] > a[0] * a[1] for a, b in itertools.pairwise(runs))
    assert weeks[5][1].startswith("5 km")


def test_caesar() -> None:
    """Moved back by three letters, the message reads as the answer."""
    plain = "".join(chr((ord(c) - 65 - 3) % 26 + 65) if c.isalpha() else c for c in input_of("caesar_decode"))
    assert output_of("caesar_decode") == plain


def test_word_ladder() -> None:
    """From HAND to FOOT, one letter a step."""
    words = output_of("hand_to_foot").split(", ")
    assert (words[0], words[-1]) == ("HAND", "FOOT")
    assert len(set(words)) == len(words)
    assert set(words) <= {"HAND", "BAND", "BOND", "FOND", "FOOD", "FOOT"}
    for before, after in itertools.pairwise(words):
        assert len(before) == len(after)
        assert sum(a != b for a, b in zip(before, after, strict=True)) == 1


# Limits and sources: what the instruction asks of the text holds


def test_word_limits() -> None:
    """Outputs keep to the number of words their instruction allows."""
    limits = {"lift_closure_notice": 20, "bakery_mystery": 59, "honeybee_dance": 25, "fixed_or_variable": 69}
    for name, limit in limits.items():
        assert re.search(r"\b\d+ words", text_of(name))
        assert len(output_of(name).split()) <= limit
    assert "murder" not in output_of("bakery_mystery").lower()


def test_sentence_and_line_limits() -> None:
    """Outputs keep to the number of sentences, lines or items their instruction asks for."""
    assert sentences(output_of("neighbour_thank_you")) == 3
    assert sentences(output_of("green_door")) == 2
    assert sentences(output_of("patient_librarian")) in (2, 3)
    assert len(output_of("lighthouse_quatrain").splitlines()) == 4
    assert len(output_of("rainy_cabin_bag").splitlines()) <= 10
    assert len(output_of("empty_sandwich_shop").splitlines()) == 4
    names = output_of("tool_library_names").splitlines()
    assert len(set(names)) == 6
    assert all("library" not in name.lower() for name in names)


def test_numbered_lines_count_up() -> None:
    """Numbered lists run 1, 2, 3 without a gap."""
    for seed in SEEDS:
        for instance in seed["instances"]:
            numbers = [int(number) for number in re.findall(r"^(\d)\. ", instance["output"], re.MULTILINE)]
            assert numbers == list(range(1, len(numbers) + 1))


def test_shortened_notice_keeps_the_facts() -> None:
    """The day, the hours and the reason are still there."""
    for fact in ("Friday", "09:00", "14:00", "cable", "lift"):
        assert fact in input_of("lift_closure_notice")
        assert fact in output_of("lift_closure_notice")


def test_copied_sentence() -> None:
    """The sentence stands in the message once, word for word."""
    assert input_of("quote_the_admission").count(output_of("quote_the_admission")) == 1


def test_meeting_notes() -> None:
    """Every task, person and deadline comes from the notes."""
    lines = output_of("archive_boxes").splitlines()
    assert len(lines) == 2
    for line in lines:
        match = re.fullmatch(r"- (\w+): (.+)", line)
        assert match is not None
        person, task = match.groups()
        [sentence] = [part for part in input_of("archive_boxes").split(". ") if person in part]
        assert task in sentence


def test_garden_notes_add_no_numbers() -> None:
    """The paragraph has the numbers and the names of the notes, no others."""
    assert NUMBER.findall(output_of("garden_notes")) == NUMBER.findall(input_of("garden_notes"))
    capitals = re.findall(r"(?<![.] )(?<!^)\b[A-Z]\w+", output_of("garden_notes"))
    assert set(capitals) == {"Mill", "Street", "Sunday", "June"}
    assert all(word in input_of("garden_notes") for word in capitals)


def test_correction_changes_only_the_faults() -> None:
    """Five words differ, the rest is as it was."""
    before, after = input_of("correct_parcel_line").split(), output_of("correct_parcel_line").split()
    changed = [(a, b) for a, b in zip(before, after, strict=True) if a != b]
    assert changed == [
        ("Their", "There"),
        ("is", "are"),
        ("didnt", "didn't"),
        ("recieve", "receive"),
        ("you're", "your"),
    ]


def test_word_classes_name_a_word_in_capitals() -> None:
    """Every sentence has exactly one word in capitals, the same one, and every label comes up once."""
    instances = BY_NAME["light_word_class"]["instances"]
    assert all(re.findall(r"\b[A-Z]{2,}\b", instance["input"]) == ["LIGHT"] for instance in instances)
    assert {instance["output"] for instance in instances} == {"noun", "verb", "adjective", "adverb"}
