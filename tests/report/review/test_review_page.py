"""The page in a real browser with real key presses: labels are kept, restored, saved and scored."""

import time
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import orjson
import pytest

import selfinstruct_local as si
from selfinstruct_local.report.review.files import QUESTIONS
from selfinstruct_local.report.review.make import Review
from tests.conftest import RunCli
from tests.report.conftest import HOSTILE
from tests.report.test_page import look

TASKS: list[dict[str, Any]] = [
    {"instruction": "Name the capital.", "input": "Peru", "output": "Lima"},
    {"instruction": "Write a haiku about rain.", "input": "", "output": "Rain on the tin roof"},
    {"instruction": "把这句话翻译成英文。", "input": "今天下雨。", "output": "It is raining today."},
    {"instruction": "Say hello.", "instances": [], "rejected": {"rule": "too_short", "detail": ""}},
    {"instruction": "Count to three.", "input": "", "output": "1\n2\n3"},
]


def make(folder: Path, records: list[dict[str, Any]], seed: int = 0) -> Review:
    folder.mkdir(exist_ok=True)
    (folder / "tasks.jsonl").write_bytes(b"\n".join(map(orjson.dumps, records)))
    return si.make_review([folder / "tasks.jsonl"], folder / f"page-{seed}.html", seed=seed)


def press(browser: Any, keys: str) -> None:
    """Real key presses, one after the other, to whatever has the focus."""
    from selenium.webdriver.common.action_chains import ActionChains

    ActionChains(browser).send_keys(*keys).perform()


def press_with_control(browser: Any, key: str) -> None:
    from selenium.webdriver.common.action_chains import ActionChains
    from selenium.webdriver.common.keys import Keys

    ActionChains(browser).key_down(Keys.CONTROL).send_keys(key).key_up(Keys.CONTROL).perform()


def text(browser: Any, selector: str) -> str:
    return str(browser.execute_script("return document.querySelector(arguments[0]).textContent", selector))


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def until(browser: Any, selector: str, wanted: str) -> None:
    """Waits for a text: files are read when the page comes to it."""
    wait_for(lambda: text(browser, selector) == wanted)


def place(browser: Any) -> str:
    return text(browser, "#place")


def pressed(browser: Any) -> str:
    """The answers of the task that is shown: y, n or - per question that is asked."""
    found: list[list[str]] = browser.execute_script(
        "return [...document.querySelectorAll('.question:not([hidden])')].map("
        "each => [...each.querySelectorAll('[aria-pressed=true]')].map(button => button.dataset.answer))"
    )
    return "".join({"true": "y", "false": "n"}[each[0]] if each else "-" for each in found)


def kept(browser: Any) -> Any:
    """What the browser keeps of the sample that is shown."""
    return browser.execute_script(
        "const { sample } = JSON.parse(document.getElementById('sample').textContent);"
        "return JSON.parse(localStorage.getItem(`selfinstruct-review:${sample}`))"
    )


def saved_file(folder: Path) -> Path:
    wait_for(lambda: any(folder.glob("*.json")))
    return next(folder.glob("*.json"))


@pytest.fixture
def downloads(browser: Any, tmp_path: Path) -> Path:
    """Where the browser puts what it saves."""
    folder = tmp_path / "downloads"
    folder.mkdir()
    browser.execute_cdp_cmd("Browser.setDownloadBehavior", {"behavior": "allow", "downloadPath": str(folder)})
    return folder


@pytest.fixture
def review(browser: Any, tmp_path: Path, request: pytest.FixtureRequest) -> Review:
    """A page of five tasks, opened: a sample of its own, of which the browser keeps nothing yet."""
    made = make(tmp_path / "review", TASKS, seed=zlib.crc32(request.node.name.encode()))
    look(browser, made.page)
    return made


def shown_order(made: Review) -> list[str]:
    return [item["instruction"] for item in orjson.loads(made.key.read_bytes())["items"]]


def answer_all(browser: Any, made: Review) -> dict[str, str]:
    """Answers every task by keys, the first question of each with yes; gives the answers by instruction."""
    given = {}
    for number, instruction in enumerate(shown_order(made)):
        answers = "y" if instruction == "Say hello." else "yyn" if number % 2 else "yyy"
        press(browser, answers)
        given[instruction] = answers
    return given


@pytest.mark.usefixtures("review")
def test_a_reload_finds_the_labels_and_the_place(browser: Any) -> None:
    press(browser, "\ue014yn")
    here, answers = place(browser), pressed(browser)
    assert kept(browser)
    browser.refresh()
    assert (place(browser), pressed(browser)) == (here, answers)
    assert browser.get_log("browser") == []


def test_labels_are_kept_restored_saved_and_scored(browser: Any, review: Review, downloads: Path, cli: RunCli) -> None:
    given = answer_all(browser, review)
    assert text(browser, "#count") == "5 of 5 finished"
    browser.execute_script("document.getElementById('reader').focus()")
    press(browser, "Ann Yin 安\ue00c")  # Escape leaves the field
    browser.refresh()
    assert text(browser, "#count") == "5 of 5 finished"
    press(browser, "s")
    path = saved_file(downloads)
    assert path.name.startswith("labels-Ann-Yin-安-")
    labels = orjson.loads(path.read_bytes())
    assert (labels["reader"], labels["sample"]) == ("Ann Yin 安", review.sample)

    done = cli("review", "score", path, "--key", review.key, "--json")
    assert done.returncode == 0, done.stderr
    (reader,) = orjson.loads(done.stdout)["readers"]
    assert (reader["reader"], reader["finished"]) == ("Ann Yin 安", 5)
    accepted, rejected = reader["groups"][:2]
    right = sum(answers == "yyy" for answers in given.values())
    assert (accepted["all"]["yes"], accepted["all"]["tasks"]) == (right, 4)
    assert (rejected["all"]["yes"], rejected["all"]["tasks"], "output" in rejected) == (1, 1, False)


def test_each_task_asks_what_can_be_asked_of_it(browser: Any, review: Review) -> None:
    for instruction in shown_order(review):
        task = next(each for each in TASKS if each["instruction"] == instruction)
        assert text(browser, "[data-field=instruction] .text") == instruction
        questions: list[str] = browser.execute_script(
            "return [...document.querySelectorAll('.question:not([hidden]) p span')].map(each => each.textContent)"
        )
        if "instances" in task:
            assert questions == ["Does the instruction describe a valid task?"]
        else:
            assert questions[1].startswith("Is the input appropriate" if task["input"] else "There is no input.")
            assert text(browser, "[data-field=output] .text") == task["output"]
        language = browser.execute_script("return document.querySelector('[data-field=instruction] .text').lang")
        assert language == ("zh" if "把" in instruction else "")
        press(browser, "\ue014")  # right arrow


def test_moving_marking_and_undoing(browser: Any, review: Review) -> None:
    long = [number for number, name in enumerate(shown_order(review)) if name != "Say hello."]
    press(browser, "\ue014" * long[1])
    here = place(browser)
    press(browser, "3n")
    assert (place(browser), pressed(browser)) == (here, "--n")
    assert text(browser, ".question.current p span") == "Does the instruction describe a valid task?"
    press(browser, "yy")
    assert (place(browser) == here, text(browser, "#count")) == (False, "1 of 5 finished")
    press(browser, "u")
    assert (place(browser), pressed(browser)) == (here, "y-n")
    press(browser, "uu")
    assert (place(browser), pressed(browser)) == (here, "---")
    press(browser, "u")
    assert text(browser, "#said") == "There is nothing to undo."
    press(browser, "\ue012" * 9)  # left arrow; there is nothing before the first
    assert place(browser) == "Task 1 of 5"
    press(browser, "\ue014" * 9)
    assert place(browser) == "Task 5 of 5"
    press(browser, "g")
    assert place(browser) == "Task 1 of 5"


@pytest.mark.usefixtures("review")
def test_keys_in_a_note_are_text_and_chords_are_the_browser_s(browser: Any) -> None:
    press(browser, "m")
    press(browser, "yes, no: 1 2 3 u s")
    assert (place(browser), text(browser, "#count")) == ("Task 1 of 5", "0 of 5 finished")
    press(browser, "\ue00c")
    press_with_control(browser, "y")
    assert set(pressed(browser)) == {"-"}
    press(browser, "y")
    browser.refresh()
    assert browser.execute_script("return document.getElementById('note').value") == "yes, no: 1 2 3 u s"
    browser.execute_script("document.getElementById('single-keys').click()")
    before = kept(browser)["answers"]
    press(browser, "yyy")
    assert kept(browser)["answers"] == before
    browser.refresh()
    press(browser, "nnn")
    assert kept(browser)["answers"] == before


@pytest.mark.usefixtures("review")
def test_a_key_that_is_held_answers_once(browser: Any) -> None:
    for repeat in (False, True, True, True):
        browser.execute_cdp_cmd(
            "Input.dispatchKeyEvent",
            {"type": "keyDown", "key": "y", "code": "KeyY", "text": "y", "autoRepeat": repeat},
        )
    assert sum(value is not None for each in kept(browser)["answers"].values() for value in each.values()) == 1


def test_a_layout_without_latin_letters_works_by_the_place_of_the_key(browser: Any, review: Review) -> None:
    for key, code in (("н", "KeyY"), ("т", "KeyN")):
        browser.execute_cdp_cmd("Input.dispatchKeyEvent", {"type": "keyDown", "key": key, "code": code, "text": key})
    items = [item["id"] for item in orjson.loads(review.key.read_bytes())["items"]]
    answers = [kept(browser)["answers"][item].get(name) for item in items for name in QUESTIONS]
    assert [each for each in answers if each is not None] == [True, False]


@pytest.mark.usefixtures("review")
def test_buttons_do_what_keys_do(browser: Any, downloads: Path) -> None:
    def click(selector: str) -> None:
        browser.find_element("css selector", selector).click()

    click("[data-question=instruction] [data-answer=false]")
    assert "n" in "".join(
        "n" if value is False else "-" for e in kept(browser)["answers"].values() for value in e.values()
    )
    click("#next")
    click("#previous")
    click("#undo")
    assert set(pressed(browser)) == {"-"}
    click("#save")
    assert orjson.loads(saved_file(downloads).read_bytes())["reader"] == ""


def test_a_saved_file_is_opened_to_continue_and_another_sample_s_is_refused(
    browser: Any, review: Review, downloads: Path, tmp_path: Path
) -> None:
    answer_all(browser, review)
    press(browser, "s")
    path = saved_file(downloads)
    wanted = kept(browser)["answers"]
    browser.execute_script("document.getElementById('help').open = true")
    browser.find_element("id", "clear").click()
    browser.switch_to.alert.accept()
    assert text(browser, "#count") == "0 of 5 finished"

    field = browser.find_element("id", "file")
    for name, content in {"broken.json": b"{", "list.json": b"[]", "null.json": b"null"}.items():
        (tmp_path / name).write_bytes(content)
        field.send_keys(str(tmp_path / name))
        until(browser, "#said", f"{name} is not a labels file.")
    other = tmp_path / "other.json"
    other.write_bytes(path.read_bytes().replace(review.sample.encode(), b"0" * 32))
    field.send_keys(str(other))
    until(browser, "#said", "other.json has labels of another sample.")
    assert text(browser, "#count") == "0 of 5 finished"

    press(browser, "n")  # an answer of today, which the file's own takes the place of
    field.send_keys(str(path))
    until(browser, "#count", "5 of 5 finished")
    assert kept(browser)["answers"] == wanted
    press(browser, "u")
    assert text(browser, "#count") in {"0 of 5 finished", "1 of 5 finished"}
    assert browser.get_log("browser") == []


def test_two_tabs_of_a_page_keep_the_labels_of_both(browser: Any, review: Review) -> None:
    first = browser.current_window_handle
    press(browser, "y")
    browser.switch_to.new_window("tab")
    try:
        browser.get(review.page.resolve().as_uri())
        press(browser, "\ue014\ue014")
        there = place(browser)
        press(browser, "y")
        answered = kept(browser)["answers"]
        assert sum(each["instruction"] is True for each in answered.values()) == 2
        browser.switch_to.window(first)
        press(browser, "\ue014\ue014")
        assert place(browser) == there
        wait_for(lambda: pressed(browser).startswith("y"))  # the other tab tells of it
        press(browser, "\ue012y")
        assert sum(each["instruction"] is True for each in kept(browser)["answers"].values()) == 3
    finally:
        for handle in browser.window_handles:
            if handle != first:
                browser.switch_to.window(handle)
                browser.close()
        browser.switch_to.window(first)


@pytest.mark.usefixtures("review")
def test_a_browser_that_keeps_nothing_says_so(browser: Any) -> None:
    browser.execute_script(
        "localStorage.clear(); let size = 2 ** 23;"
        "for (; size >= 1; size /= 2) try { localStorage.setItem(size, 'x'.repeat(size)); } catch { continue; }"
    )
    press(browser, "y")
    assert "save the file before you close the page" in text(browser, "#said")
    browser.execute_script("localStorage.clear()")
    press(browser, "u")
    assert kept(browser)


def test_what_is_kept_and_cannot_be_read_is_put_aside(browser: Any, review: Review) -> None:
    name = f"selfinstruct-review:{review.sample}"
    for broken in ("{", "null", '{"answers": 5, "at": 99, "notes": [1]}'):
        browser.execute_script("localStorage.setItem(arguments[0], arguments[1])", name, broken)
        browser.refresh()
        assert place(browser) == "Task 1 of 5"
        assert text(browser, "#count") == "0 of 5 finished"
        assert browser.get_log("browser") == []
    assert browser.execute_script("return localStorage.getItem(arguments[0])", f"{name}:unreadable") == "null"


def test_hostile_data_stays_text(browser: Any, tmp_path: Path) -> None:
    made = make(tmp_path / "hostile", [{"instruction": each, "input": each, "output": each} for each in HOSTILE])
    look(browser, made.page)
    shown = []
    for _ in HOSTILE:
        shown.append(text(browser, "[data-field=output] .text"))
        press(browser, "\ue014")
    wanted = {*HOSTILE[:5], *HOSTILE[6:], r"Write \x1b[31mred\x1b[0m\x07 and \u202eterces\u202c."}
    assert set(shown) == wanted
    assert browser.execute_script("return window.attacked") is None
    assert browser.execute_script("return document.querySelectorAll('img, svg, b').length") == 0
    assert browser.execute_script("return document.scripts.length") == 2
    assert browser.get_log("browser") == []


@pytest.mark.parametrize("width", [320, 390])
def test_a_phone_needs_no_scrolling_sideways_and_sees_the_buttons(browser: Any, width: int, tmp_path: Path) -> None:
    records = [{"instruction": "x" * 3000, "input": "一" * 3000, "output": "a\n" * 300}]
    made = make(tmp_path / "long", records)
    size = {"width": width, "height": 700, "deviceScaleFactor": 1, "mobile": True}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    try:
        look(browser, made.page)
        assert browser.execute_script("return [innerWidth, document.documentElement.scrollWidth]") == [width, width]
        boxes: list[list[float]] = browser.execute_script(
            "return [...document.querySelectorAll('[data-answer]')].map("
            "each => { const box = each.getBoundingClientRect(); return [box.bottom, box.height]; })"
        )
        assert all(bottom <= 700 and height >= 44 for bottom, height in boxes)
    finally:
        browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
