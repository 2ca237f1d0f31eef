"""What tests of the report share: a run, hostile texts, and a real browser that looks at pages."""

import importlib.util
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest

from selfinstruct_local.report import verbs
from selfinstruct_local.runs.store import Candidate, DecidedJob, RunStore, candidate_id
from selfinstruct_local.task import Instance, Task, Verdict
from tests.generate.test_run import generate, settings
from tests.scripted_engine import ScriptedEngine

NEEDED = ("jinja2", "plotly", "spacy", verbs.MODEL)
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--window-size=1200,900",
)
ATTACK = "window.attacked=true"
HOSTILE = (
    f"<script>{ATTACK}</script>",
    f"</script><script>{ATTACK}</script>",
    f"<!--<script>{ATTACK}</script>",
    f'"><img src=x onerror="{ATTACK}">',
    f"<svg onload={ATTACK}>",
    "Write \x1b[31mred\x1b[0m\x07 and \u202eterces\u202c.",
    "Before\u2028after\u2029end.",
    "{{ 7 * 7 }} and {% for x in y %} and ${1 + 1}",
    "]]> &lt;b&gt; &amp; <b>bold</b>",
    "x" * 3000,
)


@pytest.fixture(scope="session", autouse=True)
def extra() -> None:
    """Skips what needs the libraries of the extra where one is missing."""
    missing = [name for name in NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        pytest.skip(f"the report needs {', '.join(missing)}, which is missing")


@pytest.fixture(scope="session")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that accepted and rejected."""
    folder = tmp_path_factory.mktemp("report") / "scripted"
    assert generate(folder, settings(num=30), ScriptedEngine()).reason == "done"
    return folder


@pytest.fixture(scope="session")
def hostile_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file of tasks in which every text, and its own name, is an attack."""
    path = tmp_path_factory.mktemp("hostile") / "<img src=x onerror=window.attacked=true>.jsonl"
    records = [{"instruction": text, "input": text, "output": text} for text in HOSTILE]
    path.write_bytes(b"\n".join(map(orjson.dumps, records)))
    return path


@pytest.fixture(scope="session")
def hostile_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run whose rules, details, ids and settings are attacks too."""
    folder = tmp_path_factory.mktemp("hostile") / "run"
    with RunStore(folder) as store:
        store.create(
            {"profile": HOSTILE[1], "lang": "en", "threshold": 0.7}, [Task.single(HOSTILE[0])._replace(id="s")]
        )
        store.commit_jobs(
            DecidedJob(
                number,
                (HOSTILE[0],),
                [
                    Candidate(Task(text, (Instance(text, text),), id=candidate_id(number, 0)), Verdict(keep=True)),
                    Candidate(Task(text), Verdict(keep=False, rule=text, detail=text, score=0.5), text),
                ],
            )
            for number, text in enumerate(HOSTILE)
        )
    return folder


@pytest.fixture(scope="session")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """Chromium without a window, with its log of the console and of the network."""
    programs = {name: shutil.which(name) for name in ("chromium", "chromedriver")}
    missing = [name for name, path in programs.items() if path is None]
    if missing or importlib.util.find_spec("selenium") is None:
        pytest.skip(f"looking at a page needs {', '.join(missing) or 'selenium'}, which is missing")
    from selenium.webdriver import Chrome, ChromeOptions
    from selenium.webdriver.chrome.service import Service

    options = ChromeOptions()
    options.binary_location = str(programs["chromium"])
    for flag in (*FLAGS, f"--user-data-dir={tmp_path_factory.mktemp('browser')}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = Chrome(options=options, service=Service(str(programs["chromedriver"])))
    yield driver
    driver.quit()
