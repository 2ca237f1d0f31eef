"""Code in the seeds, second part: Go, Rust, Java, TypeScript, HTML, CSS and Bash.

Each is run or compiled where its tool is installed: go, rustc, javac and java, tsc, bash and gzip. Where one is
not, the tests whose names say "structure" are all that checks that language. HTML is always read by Python's own
parser, and the TypeScript is always run by node (if that is there) with its types taken off.
"""

import gzip
import json
import os
import re
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import pytest

from tests.seeds.facts import balanced, cases_of, code_of, input_of, output_of, tool

# Go


def run_go(go: str, folder: Path, program: str) -> str:
    """What a Go program prints."""
    (folder / "seed.go").write_text(program, encoding="utf-8")
    env = {**os.environ, "GOCACHE": str(folder / "cache"), "GOFLAGS": "", "GO111MODULE": "off", "GOTOOLCHAIN": "local"}
    command = [go, "run", "seed.go"]
    done = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, check=True, timeout=300)
    return done.stdout


def test_go_structure() -> None:
    """Structure only: one function of the right name and types, brackets closed, tabs as gofmt sets them."""
    code = code_of("go_dedupe")
    assert code.startswith("func Dedupe(items []string) []string {\n")
    assert code.count("func ") == 1
    assert balanced(code)
    assert all(re.match(r"\t*[^\s]", line) for line in code.splitlines())
    assert ";" not in code


def test_go_run(tmp_path: Path) -> None:
    """Where go is installed, the function drops repeats and keeps the order."""
    go = tool("go")
    items = ["b", "a", "b", "c", "a", ""]
    call = f"out, _ := json.Marshal(Dedupe([]string{json.dumps(items).replace('[', '{').replace(']', '}')}))"
    main = f"func main() {{\n\t{call}\n\tfmt.Println(string(out))\n}}\n"
    program = f'package main\n\nimport (\n\t"encoding/json"\n\t"fmt"\n)\n\n{code_of("go_dedupe")}\n\n{main}'
    assert json.loads(run_go(go, tmp_path, program)) == list(dict.fromkeys(items))


# Rust


def rust_result(rustc: str, folder: Path, program: str) -> tuple[str, str]:
    """The error code that the compiler gives, and what the program prints if it compiles."""
    (folder / "seed.rs").write_text(program, encoding="utf-8")
    command = [rustc, "--edition", "2021", "-o", "seed", "seed.rs"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, timeout=300)
    if done.returncode:
        return " ".join(re.findall(r"error\[(E\d+)\]", done.stderr)), ""
    ran = subprocess.run([str(folder / "seed")], capture_output=True, text=True, check=True, timeout=60)
    return "", ran.stdout


def test_rust_structure() -> None:
    """Structure only: two lines differ, the call and the head of greet, and nothing is cloned."""
    before, after = input_of("rust_moved_string").splitlines(), code_of("rust_moved_string").splitlines()
    changed = [(a.strip(), b.strip()) for a, b in zip(before, after, strict=True) if a != b]
    assert changed == [
        ("greet(name);", "greet(&name);"),
        ("fn greet(who: String) {", "fn greet(who: &str) {"),
    ]
    assert balanced("\n".join(before))
    assert balanced("\n".join(after))
    assert "clone" not in "\n".join(after)


def test_rust_compiles(tmp_path: Path) -> None:
    """Where rustc is installed, it refuses the given program as a use after a move and runs the mended one."""
    rustc = tool("rustc")
    assert rust_result(rustc, tmp_path, input_of("rust_moved_string")) == ("E0382", "")
    assert rust_result(rustc, tmp_path, code_of("rust_moved_string")) == ("", "Hello, Mira\nBye, Mira\n")


# Java


def java_result(folder: Path, body: str, statements: str) -> int:
    """The exit status of a Java class with these members and this main method, with assertions on."""
    javac, java = tool("javac"), tool("java")
    main = f"public static void main(String[] args) {{\n{statements}\n}}"
    (folder / "Seed.java").write_text(f"public class Seed {{\n{body}\n{main}\n}}\n", encoding="utf-8")
    subprocess.run([javac, "Seed.java"], cwd=folder, check=True, capture_output=True, timeout=300)
    done = subprocess.run([java, "-ea", "Seed"], cwd=folder, check=False, capture_output=True, timeout=120)
    return done.returncode


def test_java_structure() -> None:
    """Structure only: four assertions about the method, brackets closed, and the days are the calendar's."""
    code = code_of("java_month_asserts").splitlines()
    days = []
    for line in code:
        match = re.fullmatch(r"assert daysInMonth\((\d+), (true|false)\) == (\d+);", line)
        assert match is not None
        days.append(match.groups())
    assert days == [("2", "false", "28"), ("2", "true", "29"), ("4", "false", "30"), ("12", "false", "31")]
    assert balanced(input_of("java_month_asserts"))


def test_java_run(tmp_path: Path) -> None:
    """Where a JDK is installed, the assertions hold, a wrong one is caught, and months 0 and 13 give 31."""
    method, good = input_of("java_month_asserts"), code_of("java_month_asserts")
    assert java_result(tmp_path, method, good) == 0
    assert java_result(tmp_path, method, good.replace("== 29", "== 30")) != 0
    odd = "assert daysInMonth(0, false) == 31 && daysInMonth(13, true) == 31;"
    assert java_result(tmp_path, method, odd) == 0
    assert "0 or 13, also give 31" in output_of("java_month_asserts")


# TypeScript


def without_types(code: str) -> str:
    """The TypeScript of the seed as JavaScript."""
    code = re.sub(r"^type .*?;\n\n", "", code, flags=re.DOTALL)
    return code.replace("(payment: Payment): string", "(payment)")


def test_typescript_structure() -> None:
    """Structure only: a union told apart by its kind, no assertion, no any."""
    code = code_of("ts_payment_union")
    assert re.findall(r'\| \{ kind: "(\w+)"', code) == ["card", "cash"]
    assert not re.search(r"\bas\b|\bany\b|<\w+>|!\.", code)
    assert balanced(code.replace("`", '"'))


def test_typescript_without_types_run() -> None:
    """Where node is installed, the code runs when its types are taken off."""
    node = tool("node", "nodejs")
    calls = '[describe({kind: "card", lastFour: "0042"}), describe({kind: "cash"})]'
    script = f"{without_types(code_of('ts_payment_union'))}\nconsole.log(JSON.stringify({calls}));"
    done = subprocess.run([node, "-e", script], capture_output=True, text=True, check=True, timeout=60)
    assert json.loads(done.stdout) == ["card ending in 0042", "cash"]


def test_typescript_compiles(tmp_path: Path) -> None:
    """Where tsc is installed, it takes the code in strict mode and refuses a card without its digits."""
    tsc = tool("tsc")
    results = []
    for payment in ('{ kind: "cash" }', '{ kind: "card", lastFour: "0042" }', '{ kind: "card" }'):
        program = f"{code_of('ts_payment_union')}\nconst line: string = describe({payment});\nexport {{ line }};\n"
        (tmp_path / "seed.ts").write_text(program, encoding="utf-8")
        command = [tsc, "--noEmit", "--strict", "--target", "es2020", "--ignoreConfig", "seed.ts"]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=300)
        if "TS5023" in done.stdout:  # before version 6 there is no such option
            command.remove("--ignoreConfig")
            done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=300)
        results.append(done.returncode == 0)
    assert results == [True, True, False]


# HTML and CSS


class Reader(HTMLParser):
    """Collects the elements and sees that each is closed."""

    VOID = frozenset({"input", "br", "img", "meta", "link", "hr"})

    def __init__(self) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def read_html(text: str) -> list[tuple[str, dict[str, str | None]]]:
    """The elements of a piece of HTML in order."""
    reader = Reader()
    reader.feed(text)
    reader.close()
    assert reader.open == []
    return reader.elements


def test_html_form() -> None:
    """The label belongs to the field, the browser checks the address, and a button sends the form."""
    elements = read_html(code_of("html_signup"))
    assert [tag for tag, _ in elements] == ["form", "label", "input", "button"]
    (_, form), (_, label), (_, field), (_, button) = elements
    assert label["for"] == field["id"]
    assert (field["type"], field["name"]) == ("email", "email")
    assert "required" in field
    assert form["method"] == "post"
    assert button["type"] == "submit"


def test_css_card() -> None:
    """One rule for an element that is there; a grid that places its items in the middle of a full window."""
    elements = read_html(input_of("css_centred_card"))
    assert [tag for tag, _ in elements] == ["body", "div"]
    match = re.fullmatch(r"(\w+) \{\n(.*)\n\}", code_of("css_centred_card"), re.DOTALL)
    assert match is not None
    assert match.group(1) == "body"
    rules = dict(re.findall(r"^  ([a-z-]+): ([^;]+);$", match.group(2), re.MULTILINE))
    assert len(rules) == len(match.group(2).splitlines())
    assert rules == {"min-height": "100vh", "margin": "0", "display": "grid", "place-items": "center"}


# Bash


def test_gzip_script_structure() -> None:
    """Structure only: the safe settings come first, and both expansions are quoted."""
    code = code_of("bash_gzip_logs")
    assert code.startswith("#!/usr/bin/env bash\nset -euo pipefail\nshopt -s nullglob\n")
    assert re.findall(r"\"\$\w+\"", code) == ['"$1"', '"$f"']
    assert code.count("$") == 2
    assert (code.count("; do"), code.splitlines()[-1]) == (1, "done")


def test_gzip_script_runs(tmp_path: Path) -> None:
    """Where the tools are installed, the script does what the given one cannot."""
    shell = tool("bash")
    tool("gzip")
    given, mended = tmp_path / "given.sh", tmp_path / "mended.sh"
    given.write_text(input_of("bash_gzip_logs") + "\n", encoding="utf-8")
    mended.write_text(code_of("bash_gzip_logs") + "\n", encoding="utf-8")

    def run(script: Path, folder: Path) -> int:
        """The exit status of a script for a folder."""
        command = [shell, str(script), str(folder)]
        return subprocess.run(command, capture_output=True, check=False, timeout=60, cwd=tmp_path).returncode

    empty, logs = tmp_path / "empty", tmp_path / "two words"
    empty.mkdir()
    logs.mkdir()
    for name in ("a b.log", "-c.log", "keep.txt"):
        (logs / name).write_text(name, encoding="utf-8")
    assert run(given, logs) != 0
    assert run(mended, logs) == 0
    assert sorted(path.name for path in logs.iterdir()) == ["-c.log.gz", "a b.log.gz", "keep.txt"]
    assert gzip.decompress((logs / "a b.log.gz").read_bytes()) == b"a b.log"
    assert run(given, empty) != 0
    assert run(mended, empty) == 0
    assert list(empty.iterdir()) == []
    assert run(mended, tmp_path / "missing") != 0


# One line each


LINES = {language: line for line, language in cases_of("snippet_language")}


def test_snippets_structure() -> None:
    """Structure only: the four languages, each with a mark that the others do not have."""
    marks = {"Go": "nil", "Rust": "let mut", "Java": "System.out", "Bash": "; done"}
    assert list(LINES) == list(marks)
    for language, mark in marks.items():
        assert [other for other, line in LINES.items() if mark in line] == [language]
        assert balanced(LINES[language])


@pytest.mark.parametrize("language", list(LINES))
def test_snippets_run(language: str, tmp_path: Path) -> None:
    """Where the language's tool is installed, it takes the line."""
    line = LINES[language]
    if language == "Bash":
        subprocess.run([tool("bash"), "-c", line], cwd=tmp_path, check=True, capture_output=True, timeout=60)
    elif language == "Java":
        assert java_result(tmp_path, "", line) == 0
    elif language == "Rust":
        program = f'fn main() {{\n{line}\ntotal += 1;\nprintln!("{{total}}");\n}}'
        assert rust_result(tool("rustc"), tmp_path, program) == ("", "1\n")
    else:
        body = f"func try(err error) (error, error) {{\n\t{line}\n\treturn nil, nil\n}}"
        program = f'package main\n\nimport "fmt"\n\n{body}\n\nfunc main() {{\n\tfmt.Println(try(nil))\n}}\n'
        assert run_go(tool("go"), tmp_path, program) == "<nil> <nil>\n"
