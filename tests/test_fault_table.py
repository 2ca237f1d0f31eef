"""docs/faults.md and the tests agree: each fault stands there once, and each test that it names is there."""

import ast
import re
from functools import cache
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[1]
TABLE = ROOT / "docs" / "faults.md"
FAULTS = 51
TEST = re.compile(r"`(tests/[\w/]+\.py)::([Tt]est\w+)`( \*\(soak\)\*)?")


class Row(NamedTuple):
    number: int
    fault: str
    behaviour: str
    tests: list[tuple[str, str, bool]]  # file, name, whether it is said to run in a soak alone


def table() -> list[Row]:
    lines = [line for line in TABLE.read_text(encoding="utf-8").splitlines() if re.match(r"\| \d+ \|", line)]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    return [
        Row(int(number), fault, behaviour, [(file, name, bool(soak)) for file, name, soak in TEST.findall(tests)])
        for number, fault, behaviour, tests in cells
    ]


@cache
def names_in(file: str) -> dict[str, bool]:
    """The tests of a file, and whether each runs in a soak alone, by its source: nothing is imported."""
    tree = ast.parse((ROOT / file).read_text(encoding="utf-8"))
    marks = {
        target.id
        for node in tree.body
        if isinstance(node, ast.Assign) and _is_for_soaks(node.value)
        for target in node.targets
        if isinstance(target, ast.Name)
    }
    found = {}
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test_"):
            found[node.name] = any(_is_for_soaks(each) or ast.unparse(each) in marks for each in node.decorator_list)
        elif isinstance(node, ast.Assign) and ast.unparse(node.targets[0]).startswith("Test"):
            found[ast.unparse(node.targets[0])] = False  # what hypothesis makes of a state machine
    return found


def _is_for_soaks(mark: ast.expr) -> bool:
    source = ast.unparse(mark)
    return "skipif" in source and "SOAK" in source


def test_every_fault_stands_in_the_table_once() -> None:
    rows = table()
    assert [row.number for row in rows] == list(range(1, FAULTS + 1))
    assert all(row.fault and row.behaviour and row.tests for row in rows)
    assert len({row.fault for row in rows}) == FAULTS


def test_every_test_that_is_named_is_there() -> None:
    missing = [f"{file}::{name}" for row in table() for file, name, _ in row.tests if name not in names_in(file)]
    assert missing == []
    # No name was passed over because it is written otherwise.
    assert sum(line.count("::") for line in TABLE.read_text(encoding="utf-8").splitlines()) == sum(
        len(row.tests) for row in table()
    )


def test_no_fault_hangs_on_a_soak_alone_and_what_is_one_says_so() -> None:
    for row in table():
        said = {name: soak for _, name, soak in row.tests}
        assert said == {name: names_in(file)[name] for file, name, _ in row.tests}, row.number
        assert not all(said.values()), row.number
