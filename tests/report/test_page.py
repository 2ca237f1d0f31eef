"""The page in a real browser: it works from a file, asks for nothing, obeys no data, and fits a phone."""

import re
from pathlib import Path
from typing import Any

import orjson
import pytest

pytest.importorskip("plotly")

from plotly.offline import get_plotlyjs

from selfinstruct_local.io.progress import stderr_console
from selfinstruct_local.report import rows
from selfinstruct_local.report.make import make_report
from selfinstruct_local.runs.store import RunStore
from selfinstruct_local.seeds import seed_file
from tests.report.conftest import ATTACK, HOSTILE


def page_of(sources: list[Path], out: Path) -> Path:
    make_report(sources, out, None, stderr_console())
    return out


def look(browser: Any, page: Path) -> None:
    """Opens the page; fails if it complained of anything, or asked for anything but itself."""
    browser.get_log("browser")
    browser.get_log("performance")
    browser.get(page.resolve().as_uri())
    assert browser.get_log("browser") == []
    messages = [orjson.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    requests = [each["params"] for each in messages if each["method"] == "Network.requestWillBeSent"]
    # The tab the browser opens by itself may still be loading; its document is none of ours.
    asked = [each["request"]["url"] for each in requests if not each["documentURL"].startswith("chrome://")]
    assert asked
    assert {url for url in asked if not url.startswith("data:")} == {page.resolve().as_uri()}


def text_of(browser: Any, selector: str) -> str:
    return str(browser.execute_script("return document.querySelector(arguments[0]).textContent", selector))


def rows_shown(browser: Any) -> list[str]:
    found: list[str] = browser.execute_script(
        "return [...document.querySelectorAll('#rows tbody tr')].map(row => row.textContent)"
    )
    return found


def search(browser: Any, **controls: str) -> None:
    for name, value in controls.items():
        browser.execute_script(
            "const control = document.getElementById(arguments[0]); control.value = arguments[1];"
            "control.dispatchEvent(new Event('input'))",
            name,
            value,
        )


@pytest.fixture(scope="module")
def run_page(run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return page_of([run], tmp_path_factory.mktemp("page") / "run.html")


def test_a_run_s_page_loads_without_a_complaint_and_shows_its_verdicts(browser: Any, run: Path, run_page: Path) -> None:
    look(browser, run_page)
    with RunStore(run, read_only=True) as store:
        totals = store.totals()
    assert totals.rejected
    shown = browser.execute_script(
        "return [...document.querySelectorAll('#verdicts tbody tr')].map("
        "row => [...row.children].slice(0, 2).map(cell => cell.textContent))"
    )
    wanted = {"kept": totals.accepted, **totals.rejected}
    assert dict(shown) == {name: str(count) for name, count in wanted.items()}
    drawn = browser.execute_script(
        "return [...document.querySelectorAll('.chart')].map(each => [each.dataset.chart, each.ariaLabel,"
        " each.querySelectorAll('.main-svg').length])"
    )
    assert {kind for kind, _, _ in drawn} == {"sunburst", "scores", "lengths", "yield", "nearest"}
    assert all(label and count for _, label, count in drawn)


def test_search_filter_and_order_of_the_table(browser: Any, run: Path, run_page: Path) -> None:
    look(browser, run_page)
    with RunStore(run, read_only=True) as store:
        totals = store.totals()
        tasks = list(store.accepted())
    everything = totals.accepted + sum(totals.rejected.values())
    assert text_of(browser, "#found") == f"{everything} of {everything} rows"
    assert len(rows_shown(browser)) == min(50, everything)
    word = tasks[0].instruction.split()[-1].strip(".?")
    search(browser, query=word.upper())
    found = rows_shown(browser)
    assert 0 < len(found) < everything
    assert all(word.lower() in row.lower() for row in found)
    rule, count = next(iter(totals.rejected.items()))
    search(browser, query=rule, verdict="rejected")
    assert text_of(browser, "#found") == f"{count} of {everything} rows"
    search(browser, query="no task says this")
    assert rows_shown(browser) == []
    search(browser, query="", verdict="kept")
    assert text_of(browser, "#found") == f"{totals.accepted} of {everything} rows"
    button = "document.querySelector('#rows th[data-key=instruction] button').click();"
    first = "return document.querySelector('#rows tbody .instruction .text').textContent"
    ascending, descending = browser.execute_script(button + first), browser.execute_script(button + first)
    instructions = [task.instruction for task in tasks]
    assert {ascending, descending} <= set(instructions)
    assert ascending.lower() < descending.lower()
    assert text_of(browser, "#rows [aria-sort=descending]") == "Instruction"


def test_a_row_has_its_lineage(browser: Any, run: Path, run_page: Path) -> None:
    look(browser, run_page)
    with RunStore(run, read_only=True) as store:
        task = next(store.accepted())
    assert task.lineage
    search(browser, query=task.instruction, verdict="kept")
    (row,) = [each for each in rows_shown(browser) if each.startswith(task.id)]
    assert f"{task.lineage.profile}, job {task.lineage.job}" in row
    assert f"examples: {', '.join(task.lineage.demonstrations)}" in row


def test_hostile_data_stays_text(browser: Any, hostile_file: Path, hostile_run: Path, tmp_path: Path) -> None:
    page = page_of([hostile_file, hostile_run], tmp_path / "page.html")
    look(browser, page)
    browser.execute_script("document.querySelectorAll('details').forEach(each => { each.open = true; })")
    for kind in ("kept", "rejected", ""):
        search(browser, verdict=kind)
    shown = "\n".join(rows_shown(browser))
    for text in HOSTILE[:5]:
        assert text in shown
    assert r"Write \x1b[31mred\x1b[0m\x07 and \u202eterces\u202c." in shown
    assert "Before\u2028after\u2029end." in shown
    assert HOSTILE[7] in shown
    assert HOSTILE[8] in shown
    assert hostile_file.name in text_of(browser, "h1")
    assert hostile_file.name in text_of(browser, "title")
    assert HOSTILE[1] in text_of(browser, "#verdicts")
    assert HOSTILE[1] in text_of(browser, "#overview")
    # Nothing ran, and no element was made of it.
    assert browser.execute_script("return window.attacked") is None
    assert browser.execute_script("return document.querySelectorAll('main img, main script, b').length") == 0
    assert browser.execute_script("return document.scripts.length") == 5
    raw = page.read_text(encoding="utf-8").replace(get_plotlyjs(), "")
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]", raw)
    assert "<script>" + ATTACK not in raw
    assert browser.get_log("browser") == []


def test_the_policy_lets_nothing_else_run_and_nothing_out(browser: Any, run_page: Path) -> None:
    look(browser, run_page)
    refused = browser.execute_async_script(
        """
        const done = arguments[0], found = [];
        addEventListener("securitypolicyviolation", (event) => {
          found.push(event.effectiveDirective);
          if (found.length === 3) done(found);
        });
        const script = document.createElement("script");
        script.textContent = "window.attacked = true";
        document.body.append(script);
        fetch("http://127.0.0.1:9/").catch(() => {});
        const image = document.createElement("img");
        image.src = "http://127.0.0.1:9/image";
        document.body.append(image);
        """
    )
    assert sorted(refused) == ["connect-src", "img-src", "script-src-elem"]
    assert browser.execute_script("return window.attacked") is None


def test_two_sources_stand_side_by_side(browser: Any, run: Path, tmp_path: Path) -> None:
    look(browser, page_of([run, seed_file("zh")], tmp_path / "page.html"))
    places = browser.execute_script(
        "return [...document.querySelectorAll('#novelty .source')].map(each => {"
        "const box = each.getBoundingClientRect(); return [box.left, box.top, box.right]; })"
    )
    (left, top, right), (second_left, second_top, _) = places
    assert top == second_top
    assert left < right <= second_left
    assert "only in English" in text_of(browser, "#verbs .source:last-child")
    assert "characters" in text_of(browser, "#lengths .source:last-child")
    assert [each.strip() for each in text_of(browser, "#overview thead").split("\n") if each.strip()][-1].endswith(
        "scriptedzh.jsonl"
    )
    search(browser, source="1")
    assert text_of(browser, "#found").startswith("175 of ")


@pytest.mark.parametrize("width", [320, 390])
def test_a_phone_needs_no_scrolling_sideways(
    browser: Any, width: int, run: Path, hostile_file: Path, tmp_path: Path
) -> None:
    page = page_of([run, hostile_file, seed_file("en")], tmp_path / "page.html")
    size = {"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": True}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    try:
        look(browser, page)
        search(browser, source="1")
        assert browser.execute_script("return innerWidth") == width
        assert browser.execute_script("return document.documentElement.scrollWidth") <= width
    finally:
        browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


def test_print_leaves_out_what_paper_cannot_do(browser: Any, run_page: Path) -> None:
    look(browser, run_page)
    display = "return getComputedStyle(document.querySelector(arguments[0])).display"
    assert browser.execute_script(display, "#search") != "none"
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print"})
    try:
        assert [browser.execute_script(display, each) for each in ("nav", "#search", "#pager")] == ["none"] * 3
        assert browser.execute_script(display, "#rows") != "none"
    finally:
        browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": ""})


def test_of_many_rows_a_random_part_is_shown_and_said_so(
    browser: Any, run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rows, "MAX_ROWS", 20)
    look(browser, page_of([run], tmp_path / "page.html"))
    assert text_of(browser, "#found") == "20 of 20 rows"
    with RunStore(run, read_only=True) as store:
        totals = store.totals()
    rejected = min(10, sum(totals.rejected.values()))
    wanted = f"a random sample with a fixed seed: {20 - rejected} of {totals.accepted} kept and {rejected} of "
    assert wanted in text_of(browser, "#tasks")
