"""What the tests of the seeds' facts share: the seeds themselves, and small readers of their texts."""

import json
import re
import shutil
import sys
from pathlib import Path
from types import FrameType
from typing import Any, TypedDict

import pytest

SEEDS_PATH = Path(__file__).resolve().parent.parent.parent / "seeds" / "en.jsonl"


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
    "go_dedupe": "go",
    "rust_moved_string": "rust",
    "java_month_asserts": "java",
    "ts_payment_union": "typescript",
    "sql_largest_order": "sql",
    "sql_injection": "python",
    "bash_gzip_logs": "bash",
    "html_signup": "html",
    "css_centred_card": "css",
    "python_type_error": "python",
    "js_early_return": "javascript",
    "duplicate_search_growth": "python",
    "broken_json": "json",
}
# Seeds whose inputs are Python.
PYTHON_INPUT_SEEDS = [
    "second_largest_fix",
    "initials_to_js",
    "loop_complexity",
    "sql_injection",
    "duplicate_search_growth",
    "bug_kind",
]

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


def cases_of(name: str) -> list[tuple[str, str]]:
    """Input and output of every instance of a seed."""
    return [(instance["input"], instance["output"]) for instance in BY_NAME[name]["instances"]]


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


def line_events(code: str, **names: object) -> int:
    """How many lines Python executes when it runs the code with these names."""
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
        exec(compiled, dict(names))  # noqa: S102  (our own seeds)
    finally:
        sys.settrace(before)
    return count


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
