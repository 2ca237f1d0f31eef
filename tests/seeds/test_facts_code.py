"""Code in the seeds, first part: Python is always run.

JavaScript, C and the shell are run when node, a C compiler and the shell tools are there; where they are not, the
tests whose names say "structure" are all that checks them. SQL and regular expressions
are in test_facts_queries.py, the other languages in test_facts_languages.py. Nothing here needs the network.
"""

import ast
import contextlib
import io
import itertools
import json
import re
import subprocess
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.seeds.facts import (
    BY_NAME,
    CODE_SEEDS,
    FENCE,
    PYTHON_INPUT_SEEDS,
    SEEDS,
    balanced,
    cases_of,
    code_of,
    input_of,
    line_events,
    output_of,
    run_python,
    tool,
)


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


# Python


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


def test_loop_complexity() -> None:
    """The growth that a line count shows is the growth the label names."""
    for instance in BY_NAME["loop_complexity"]["instances"]:
        small, large = line_events(instance["input"], n=64), line_events(instance["input"], n=256)
        ratio = large / small
        if small == large:
            label = "constant"
        elif ratio < 2:
            label = "logarithmic"
        else:
            label = "linear" if ratio < 6 else "quadratic"
        assert instance["output"] == label


def test_duplicate_search() -> None:
    """Both versions agree; the given one grows with the square of the length, the new one in line with it."""
    slow: Callable[[list[int]], bool] = run_python(input_of("duplicate_search_growth"))["has_duplicate"]
    fast: Callable[[list[int]], bool] = run_python(code_of("duplicate_search_growth"))["has_duplicate"]
    for length in range(5):
        for items in itertools.product(range(3), repeat=length):
            assert slow(list(items)) == fast(list(items)) == (len(set(items)) < length)
    ratios = []
    for code in (input_of("duplicate_search_growth"), code_of("duplicate_search_growth")):
        counts = [line_events(f"{code}\nhas_duplicate(list(range(n)))", n=n) for n in (100, 200)]
        ratios.append(counts[1] / counts[0])
    assert 3.5 < ratios[0] < 4.5
    assert 1.5 < ratios[1] < 2.5
    assert "O(n^2)" in output_of("duplicate_search_growth")
    assert "O(n):" in output_of("duplicate_search_growth")


def test_python_type_error() -> None:
    """The code fails with the message given, and with the new line it adds up."""
    code, message = input_of("python_type_error").split("\n\n")
    with pytest.raises(TypeError) as caught:
        run_python(code)
    assert message == f"TypeError: {caught.value}"
    *kept, faulty = code.splitlines()
    indent = faulty[: len(faulty) - len(faulty.lstrip())]
    names = run_python("\n".join([*kept, indent + code_of("python_type_error")]))
    assert names["total"] == pytest.approx(4.50 + 3.20)


def test_bug_kinds() -> None:
    """Each piece of code shows the bug that its label names."""
    bugs = {label: code for code, label in cases_of("bug_kind")}
    last = run_python(bugs["off by one"])["last"]
    for items in ([1], [1, 2, 3]):
        with pytest.raises(IndexError):
            last(items)
        assert run_python(bugs["off by one"].replace("len(items)]", "len(items) - 1]"))["last"](items) == items[-1]
    assert run_python(bugs["wrong operator"])["average"](2, 4) != 3
    assert run_python(bugs["wrong operator"].replace("-", "+"))["average"](2, 4) == 3
    with pytest.raises(TypeError), contextlib.redirect_stdout(io.StringIO()):
        exec(bugs["missing conversion"], {"input": lambda _: "41"})  # noqa: S102  (our own seeds)
    said = io.StringIO()
    with contextlib.redirect_stdout(said):
        assert run_python(bugs["unreachable code"])["area"](2, 3) == 6
    assert said.getvalue() == ""
    assert len(bugs) == 4


# JavaScript


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


def test_early_return_structure() -> None:
    """Structure only: the same name and results, no else, and no if inside an if."""
    before, after = input_of("js_early_return"), code_of("js_early_return")
    assert balanced(before)
    assert balanced(after)
    assert "else" in before
    assert "else" not in after
    assert re.match(r"function fee\(user\) \{\n(  if \(.+\) return \d+;\n)+  return \d+;\n\}$", after)
    assert sorted(re.findall(r"\d+", before)) == sorted(re.findall(r"\d+", after))


def test_early_return_run() -> None:
    """Where node is installed, both functions give the same fee."""
    node = tool("node", "nodejs")
    users = "[null, undefined, {}, {member: true}, {member: false}]"
    fees = []
    for code in (input_of("js_early_return"), code_of("js_early_return")):
        script = f"{code}\nconsole.log(JSON.stringify({users}.map(fee)));"
        done = subprocess.run([node, "-e", script], capture_output=True, text=True, check=True, timeout=60)
        fees.append(json.loads(done.stdout))
    assert fees[0] == fees[1] == [10, 10, 5, 0, 5]


# C


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


def test_loop_trace() -> None:
    """The loop done over in Python gives the same passes."""
    x, expected = 1, []
    for i in range(4):
        expected.append(f"i = {i}: x = {x} * 2 + {i} = {x * 2 + i}")
        x = x * 2 + i
    assert output_of("c_loop_trace").splitlines() == expected
    assert balanced(input_of("c_loop_trace"))


def test_loop_trace_compiles(tmp_path: Path) -> None:
    """Where a C compiler is installed, the loop itself prints the values."""
    compiler = tool("cc", "gcc", "clang")
    body = input_of("c_loop_trace").replace("    x = x * 2 + i;", '{ x = x * 2 + i; printf("%d\\n", x); }')
    (tmp_path / "seed.c").write_text(
        f"#include <stdio.h>\nint main(void) {{\n{body}\nreturn 0;\n}}\n", encoding="utf-8"
    )
    subprocess.run([compiler, "-o", "seed", "seed.c"], cwd=tmp_path, check=True, timeout=120)
    done = subprocess.run([str(tmp_path / "seed")], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.split() == re.findall(r"= (\d+)$", output_of("c_loop_trace"), re.MULTILINE)


# Shell


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
