"""The documentation: it builds without network or warning, knows every command, and shows none that is not there."""

import importlib.util
import os
import re
import shlex
import shutil
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
import typer

from selfinstruct_local.cli import app
from selfinstruct_local.filters.checks import CHECKS as ANSWER_CHECKS
from selfinstruct_local.filters.contamination import CONTAMINATED
from selfinstruct_local.filters.decide import NOT_NOVEL
from selfinstruct_local.filters.echo import ECHO
from selfinstruct_local.filters.rulesets import RULE_SETS, rule_set
from selfinstruct_local.filters.thresholds import Thresholds
from selfinstruct_local.generate.parsing.questions import FOLLOW_UP, NO_REQUEST
from selfinstruct_local.generate.parsing.tasks import MALFORMED, REFUSED_PROMPT, TOO_MANY, TRUNCATED
from selfinstruct_local.generate.profiles.answers import INCONSISTENT_LABEL, NEEDS_LINES
from selfinstruct_local.generate.profiles.copies import ANSWER_IN_INPUT
from selfinstruct_local.generate.profiles.self_instruct import NO_LABELS
from selfinstruct_local.generate.rewriting.integrity import CHECKS, NOT_TRANSLATED
from selfinstruct_local.generate.rewriting.profile import ABOUT_LANGUAGE, LABEL_CHANGED, UNCHANGED

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
TEXTS = [*sorted(DOCS.rglob("*.md")), *(ROOT / name for name in ("README.md", "CONTRIBUTING.md"))]
PROGRAM = "selfinstruct"
# What may stand before the program's name: a prompt, a folder, a loop, a launcher.
PROGRAM_IN_LINE = re.compile(r"(?:^|\s|/)(?:selfinstruct(?!-)|-m selfinstruct_local)\s+(.*)")
ENDS_OF_COMMAND = {";", "|", "||", "&", "&&", "do", "done", "#", "--", ">", ">>"}


def commands(command: Any, path: str = PROGRAM) -> Iterator[tuple[str, Any]]:
    """Every command that does something, by what a person types."""
    below = getattr(command, "commands", {})
    if not below:
        yield path, command
    for name, each in below.items():
        yield from commands(each, f"{path} {name}")


COMMANDS = dict(commands(typer.main.get_command(app)))


def options(path: str) -> set[str]:
    """The options of a command, with --help and those that switch off."""
    command = COMMANDS[path]
    named = command.get_params(typer.Context(command))
    return {name for each in named for name in (*each.opts, *each.secondary_opts) if name.startswith("-")}


class Page(HTMLParser):
    """What a built page loads, and the words of the code in each of its sections."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.loads: list[str] = []
        self.code: dict[str, set[str]] = defaultdict(set)
        self._section = ""
        self._depth = 0
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        named = dict(attrs)
        if tag in {"script", "img", "iframe", "source", "link"}:
            self.loads += [address for name in ("src", "href") if (address := named.get(name))]
        if tag == "h2":
            self._section = named.get("id") or ""
        self._depth += tag == "code"

    def handle_endtag(self, tag: str) -> None:
        self._depth -= tag == "code"

    def handle_data(self, data: str) -> None:
        if self._depth:
            self.code[self._section].update(re.split(r"[\s,]+", data))


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The built pages."""
    if importlib.util.find_spec("mkdocs") is None:
        pytest.skip("building the documentation needs mkdocs, which is missing")
    out = tmp_path_factory.mktemp("docs") / "site"
    # Whatever asked for a page of the network would fail at once.
    nowhere = dict.fromkeys(("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"), "http://127.0.0.1:9")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(out)],
        cwd=ROOT,
        env={**os.environ, **nowhere, "NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return out


def test_every_command_and_option_stands_in_the_reference(site: Path) -> None:
    found = Page(site / "commands.html").code
    missing = {path: options(path) - found[path.replace(" ", "-")] for path in COMMANDS}
    assert not {path: names for path, names in missing.items() if names}
    assert len(COMMANDS) > 20


def test_pages_load_nothing_from_elsewhere(site: Path) -> None:
    pages = sorted(site.rglob("*.html"))
    assert len(pages) > 15
    loaded = {address for page in pages for address in Page(page).loads}
    assert any(address.endswith(".css") for address in loaded)
    assert not [address for address in loaded if re.match(r"(?:[a-z]+:)?//", address)]
    for sheet in site.rglob("*.css"):
        assert not re.search(r"(?:url\(|@import)\s*[\"']?(?:https?:)?//", sheet.read_text(encoding="utf-8")), sheet


def test_what_pages_load_is_there(site: Path) -> None:
    for page in site.rglob("*.html"):
        if page.name != "404.html":  # which is served from anywhere
            for address in Page(page).loads:
                assert address.startswith("data:") or (page.parent / address.partition("?")[0]).exists(), address


def test_the_search_works_in_pages_that_are_opened_as_files(site: Path) -> None:
    programs = {name: shutil.which(name) for name in ("chromium", "chromedriver")}
    missing = [name for name, path in programs.items() if path is None]
    if missing or importlib.util.find_spec("selenium") is None:
        pytest.skip(f"looking at a page needs {', '.join(missing) or 'selenium'}, which is missing")
    from selenium.webdriver import Chrome, ChromeOptions
    from selenium.webdriver.chrome.service import Service
    from selenium.webdriver.common.by import By

    chosen = ChromeOptions()
    chosen.binary_location = str(programs["chromium"])
    for flag in ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"):
        chosen.add_argument(flag)
    driver = Chrome(options=chosen, service=Service(str(programs["chromedriver"])))
    try:
        driver.get((site / "index.html").as_uri())
        field = driver.find_element(By.CSS_SELECTOR, "input.md-search__input")
        driver.execute_script("arguments[0].focus()", field)
        field.send_keys("tensor")
        deadline = time.monotonic() + 30
        while not (found := driver.find_elements(By.CSS_SELECTOR, ".md-search-result__link")):
            assert time.monotonic() < deadline
            time.sleep(0.1)
        assert any("gpu-box.html" in str(each.get_attribute("href")) for each in found)
    finally:
        driver.quit()


# They stand before a command; the last two are typer's.
OF_THE_PROGRAM = {"--version", "--help", "--install-completion", "--show-completion"}


def blocks(text: str) -> Iterator[str]:
    """What stands in blocks of code, fenced or indented, and in code within a line; lines that go on are one."""
    joined = re.sub(r"\\\n\s*", " ", text)
    fenced = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)
    for block in fenced.findall(joined):
        yield from block.splitlines()[1:-1]
    prose = fenced.sub("", joined)
    yield from (line for line in prose.splitlines() if line.startswith("    "))
    yield from re.findall(r"`([^`\n]+)`", prose)


def commands_in(text: str) -> Iterator[list[str]]:
    """The words behind the program's name, of each place where it is called."""
    for line in blocks(text):
        found = PROGRAM_IN_LINE.search(line)
        if found is None or ": " in line.split()[0] or line.startswith(f"{PROGRAM}:"):
            continue
        words = shlex.split(found[1].replace("'`", "'"), comments=True) if found[1].count("'") % 2 == 0 else []
        end = next((place for place, word in enumerate(words) if word in ENDS_OF_COMMAND), len(words))
        yield [word.rstrip(";") for word in words[:end]]


def fault_of(words: list[str]) -> str | None:
    """What is wrong with a command as a text shows it."""
    named = [word.partition("=")[0] for word in words if re.match(r"--?[A-Za-z]", word)]
    if not words or words[0] == "COMMAND":
        return None
    if words[0].startswith("--"):
        return None if set(named) <= OF_THE_PROGRAM else f"no such option: {words[0]}"
    path = next((" ".join([PROGRAM, *words[:size]]) for size in (2, 1) if is_command(words[:size])), None)
    if path is None:
        return f"no such command: {' '.join(words[:2])}"
    unknown = set(named) - options(path)
    return f"{path} has no {', '.join(sorted(unknown))}" if unknown else None


def is_command(words: list[str]) -> bool:
    return " ".join([PROGRAM, *words]) in COMMANDS


def test_faults_in_commands_are_seen() -> None:
    assert fault_of(["generate", "--run", "r", "--num=3"]) is None
    assert fault_of(["runs", "show", "RUN", "--json"]) is None
    assert fault_of(["generate", "--run", "r", "--nmu", "3"]) == "selfinstruct generate has no --nmu"
    assert fault_of(["genrate", "--run", "r"]) == "no such command: genrate --run"
    assert list(commands_in("    selfinstruct train --data F \\\n      --nope\n")) == [
        ["train", "--data", "F", "--nope"]
    ]
    assert list(commands_in("a `selfinstruct chat --wat`")) == [["chat", "--wat"]]


@pytest.mark.parametrize("path", TEXTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_commands_in_texts_are_commands(path: Path) -> None:
    faults = {" ".join(words): fault_of(words) for words in commands_in(path.read_text(encoding="utf-8"))}
    assert not {words: fault for words, fault in faults.items() if fault}


def test_the_texts_show_commands_enough_to_hold_something() -> None:
    shown = {tuple(words) for path in TEXTS for words in commands_in(path.read_text(encoding="utf-8"))}
    called = {path for path in COMMANDS for words in shown if path in {" ".join([PROGRAM, *words[:n]]) for n in (1, 2)}}
    assert called == set(COMMANDS), "each command is shown somewhere"


def test_every_rule_is_explained() -> None:
    limits = Thresholds(min_confidence=-1.0)
    names = {rule.name for name in RULE_SETS for rule in rule_set(name, limits=limits)}
    names |= {
        ECHO,
        CONTAMINATED,
        NOT_NOVEL,
        FOLLOW_UP,
        NO_REQUEST,
        NO_LABELS,
        INCONSISTENT_LABEL,
        ANSWER_IN_INPUT,
        MALFORMED,
        REFUSED_PROMPT,
        TRUNCATED,
        NEEDS_LINES,
    }
    names |= {TOO_MANY, NOT_TRANSLATED, ABOUT_LANGUAGE, LABEL_CHANGED, UNCHANGED, *(name for name, _ in CHECKS)}
    names |= set(ANSWER_CHECKS)
    text = (DOCS / "concepts" / "rules.md").read_text(encoding="utf-8")
    explained = set(re.findall(r"^\| `(\w+)` \|", text, re.MULTILINE))
    assert explained >= names
    assert explained - names <= {*RULE_SETS}
