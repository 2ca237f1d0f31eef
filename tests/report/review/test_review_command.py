"""The commands: what they write and print, what they refuse, and where the scores of a run show."""

import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import orjson
import pytest

import selfinstruct_local as si
from selfinstruct_local.io.progress import stderr_console
from selfinstruct_local.report.make import make_report
from selfinstruct_local.report.review.make import _stage
from selfinstruct_local.runs.store import RunStore
from tests.conftest import RunCli
from tests.report.conftest import ATTACK, HOSTILE

Answer = Callable[[int], str]


@pytest.fixture(scope="module")
def tasks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("tasks") / "secret-model.jsonl"
    records = [
        {"instruction": f"Write about {number}.", "input": "rain" if number % 3 else "", "output": f"Rain {number}."}
        for number in range(30)
    ]
    path.write_bytes(b"\n".join(map(orjson.dumps, records)))
    return path


def read(path: Path) -> Any:
    return orjson.loads(path.read_bytes())


def items_of(page: Path) -> Any:
    inside = page.read_text(encoding="utf-8").split('<script type="application/json" id="sample">')[1]
    return orjson.loads(inside.split("</script>")[0])


def label(page: Path, reader: str, answer: Answer) -> Path:
    """A file of labels as the page saves one; `answer` gives `yyn` and the like for the number of an item."""
    sample = items_of(page)
    said = {"y": True, "n": False, "-": None}
    answers = {}
    for number, item in enumerate(sample["items"]):
        asked = ["instruction"] if item["output"] is None else ["instruction", "input", "output"]
        answers[item["id"]] = {name: said[letter] for name, letter in zip(asked, answer(number), strict=False)}
    labels = {
        "format": "selfinstruct-review-labels",
        "version": 1,
        "sample": sample["sample"],
        "reader": reader,
        "saved": "2026-01-01T00:00:00.000Z",
        "answers": answers,
        "notes": {},
    }
    path = page.with_name(f"labels-{reader}.json")
    path.write_bytes(orjson.dumps(labels))
    return path


def test_a_page_and_its_key_are_made(cli: RunCli, run: Path, tasks: Path, tmp_path: Path) -> None:
    out = tmp_path / "new" / "page.html"
    done = cli("review", "make", run, tasks, "--sample", 20, "--out", out)
    assert (done.returncode, done.stdout) == (0, f"{out}\n")
    key = out.with_name("page.key.json")
    assert sorted(out.parent.iterdir()) == [out, key]
    made = read(key)
    shown = items_of(out)
    assert shown["sample"] == made["sample"]
    assert [each["id"] for each in shown["items"]] == [each["id"] for each in made["items"]]
    assert len({each["id"] for each in made["items"]}) == 20
    assert {each["source"] for each in made["items"]} == {0, 1}
    with RunStore(run, read_only=True) as store:
        accepted = {task.id: task for task in store.accepted()}
    for item, place in zip(shown["items"], made["items"], strict=True):
        if place["source"] == 0:
            task = accepted[place["record"]]
            assert (item["instruction"], item["output"]) == (task.instruction, task.output)
            assert (place["profile"], place["stage"]) == ("self-instruct", "accepted")
        else:
            assert item["instruction"] == f"Write about {int(place['record']) - 1}."
    first = out.read_bytes(), key.read_bytes()
    assert cli("review", "make", run, tasks, "--sample", 20, "--out", out, "--quiet").returncode == 0
    assert (out.read_bytes(), key.read_bytes()) == first


def test_the_page_says_nothing_of_where_items_come_from(run: Path, tasks: Path, tmp_path: Path) -> None:
    made = si.make_review([run, tasks], tmp_path / "page.html", sample=12)
    shown = items_of(made.page)
    assert {name for item in shown["items"] for name in item} == {"id", "instruction", "input", "output"}
    text = made.page.read_text(encoding="utf-8")
    assert not any(word in text for word in (run.name, tasks.name, tasks.stem, "alpaca", "gen-"))


def test_wrong_use_of_make_is_one_line(cli: RunCli, run: Path, tasks: Path, tmp_path: Path) -> None:
    out = tmp_path / "page.html"
    refusals = {
        (tmp_path / "nowhere", "--out", out): "nowhere: no such file",
        (tasks, "--out", tasks): "the command reads it too",
        (tasks, tasks, "--out", out): "is named twice",
        (tasks, "--rejected", "--out", out): "no rejected task to draw",
        (tasks, "--sample", 0, "--out", out): "'--sample'",
        (tasks, "--seed", 2**63, "--out", out): "'--seed'",
        (tasks, "--per", "model", "--out", out): "one of sample, source, rule",
        (run, "--out", run / "run.sqlite"): "run.sqlite: the name is reserved",
    }
    for arguments, wanted in refusals.items():
        done = cli("review", "make", *arguments)
        assert (done.returncode, done.stdout) == (2, "")
        assert wanted in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_the_key_of_another_sample_is_not_written_over(tasks: Path, tmp_path: Path) -> None:
    made = si.make_review([tasks], tmp_path / "page.html", sample=5)
    before = made.page.read_bytes(), made.key.read_bytes()
    with pytest.raises(si.UserFacingError, match="is the key of another sample"):
        si.make_review([tasks], tmp_path / "page.html", sample=5, seed=1)
    assert (made.page.read_bytes(), made.key.read_bytes()) == before
    made.key.write_text("{}")
    with pytest.raises(si.UserFacingError, match="not the key of a review"):
        si.make_review([tasks], tmp_path / "page.html", sample=5, seed=1)


def test_scores_are_printed_by_group(cli: RunCli, run: Path, tasks: Path, tmp_path: Path) -> None:
    made = si.make_review([run, tasks], tmp_path / "page.html", sample=20)
    ann = label(made.page, "Ann", lambda number: "yyy" if number % 2 else "yyn")
    bob = label(made.page, "Bob", lambda number: "---" if number == 3 else "yyy" if number % 4 else "ynn")
    done = cli("review", "score", ann, bob, "--key", made.key)
    assert done.returncode == 0
    assert "Ann: 20 tasks finished" in done.stdout
    assert "Bob: 19 tasks finished, 1 unfinished and not counted" in done.stdout
    assert re.search(rf"source: {run.name} +\d+ +100%", done.stdout)
    assert "10 tasks on which readers differ" in done.stdout
    printed = orjson.loads(cli("review", "score", ann, bob, "--key", made.key, "--json").stdout)
    assert [each["reader"] for each in printed["readers"]] == ["Ann", "Bob", "all readers"]
    accepted = printed["readers"][0]["groups"][0]
    assert (accepted["name"], accepted["output"]["yes"], accepted["output"]["tasks"]) == ("accepted", 10, 20)
    # Without the key there is the sum alone.
    alone = orjson.loads(cli("review", "score", ann, "--json").stdout)
    assert [each["by"] for each in alone["readers"][0]["groups"]] == ["tasks"]


def test_rejected_tasks_measure_their_rules(cli: RunCli, run: Path, tmp_path: Path) -> None:
    made = si.make_review([run], tmp_path / "page.html", sample=2, per="rule", rejected=True)
    with RunStore(run, read_only=True) as store:
        rules = store.totals().rejected
    key = read(made.key)
    found = {rule: [each for each in key["items"] if each["rule"] == rule] for rule in rules}
    assert {rule: len(items) for rule, items in found.items()} == {rule: min(2, n) for rule, n in rules.items()}
    labels = label(made.page, "Ann", lambda _number: "nnn")
    done = cli("review", "score", labels, "--key", made.key)
    assert done.returncode == 0
    for rule, items in found.items():
        assert re.search(rf"rule: {rule} +{len(items)} .* 100% \(\d+%-100%\)\n", done.stdout)


def test_a_rule_belongs_to_a_stage() -> None:
    stages = {rule: _stage(rule) for rule in ("", "not_novel", "contaminated", "prompt_echo", "copied", "malformed")}
    assert list(stages.values()) == ["accepted", "novelty", "novelty", "rules", "rules", "generation"]


def test_a_file_that_is_no_labels_is_refused_in_one_line(cli: RunCli, tasks: Path, tmp_path: Path) -> None:
    made = si.make_review([tasks], tmp_path / "page.html", sample=5)
    other = si.make_review([tasks], tmp_path / "other.html", sample=5, seed=1)
    good = label(made.page, "Ann", lambda _number: "yyy")
    strange = label(other.page, "Bob", lambda _number: "yyy")
    again = tmp_path / "again.json"
    shutil.copy(good, again)
    first = next(iter(read(good)["answers"]))
    broken = {}
    changes: dict[str, dict[str, Any]] = {
        "missing": {"answers": {first: read(good)["answers"][first]}},
        "number": {"reader": 5},
        "word": {"answers": {first: {"instruction": "yes"}}},
        "newer": {"version": 2},
        "nothing": {"answers": {}},
        "no-question": {"answers": {first: {}}},
    }
    for name, change in changes.items():
        broken[name] = tmp_path / f"{name}.json"
        broken[name].write_bytes(orjson.dumps({**read(good), **change}))
    torn = tmp_path / "torn.json"
    torn.write_bytes(good.read_bytes()[:200])
    twice = tmp_path / "twice.json"
    twice.write_bytes(b'{"version": 1, ' + good.read_bytes()[1:])
    refusals: dict[tuple[tuple[Path, ...], Path | None, Path | None], str] = {
        ((good, strange), None, None): "labels-Bob.json: labels of another sample",
        ((strange,), made.key, None): "labels-Bob.json: labels of another sample",
        ((good, again), None, None): "the reader's name 'Ann' is taken",
        ((broken["missing"],), made.key, None): "its items are not those of its sample",
        ((broken["number"],), None, None): "number.json: not the labels of a review",
        ((broken["word"],), None, None): "word.json: not the labels of a review",
        ((broken["newer"],), None, None): "newer.json: not the labels of a review",
        ((broken["nothing"],), None, None): "nothing.json: contains no labels",
        ((broken["no-question"],), None, None): "lacks the question 'instruction'",
        ((torn,), None, None): "torn.json: not the labels of a review",
        ((twice,), None, None): "field 'version': duplicate key",
        ((made.key,), None, None): "page.key.json: not the labels of a review",
        ((tmp_path,), None, None): "cannot be read (is a directory)",
        ((tmp_path / "none.json",), None, None): "none.json: cannot be read (no such file or directory)",
        ((good,), good, None): "not the key of a review",
        ((good,), None, tmp_path): "needs --key",
    }
    for (labels_given, key, own), wanted in refusals.items():
        with pytest.raises(si.UserFacingError, match=re.escape(wanted)):
            si.score_review(labels_given, key=key, run=own)
    done = cli("review", "score", good, strange)
    assert (done.returncode, done.stdout) == (2, "")
    assert len(done.stderr.splitlines()) == 1


def test_card_and_report_show_the_scores_of_a_run(cli: RunCli, run: Path, tasks: Path, tmp_path: Path) -> None:
    own = tmp_path / "scripted"
    shutil.copytree(run, own)
    made = si.make_review([own, tasks], tmp_path / "page.html", sample=20)
    ann = label(made.page, "Ann Other", lambda number: "yyy" if number % 2 else "yyn")
    done = cli("review", "score", ann, "--key", made.key, "--run", own)
    assert done.returncode == 0
    stored = read(own / "review.json")
    read_here = [number for number, each in enumerate(read(made.key)["items"]) if each["source"] == 0]
    right = sum(number % 2 for number in read_here)
    with RunStore(own, read_only=True) as store:
        accepted = store.totals().accepted
    assert (stored["tasks"], stored["of"], stored["readers"]) == (len(read_here), accepted, 1)
    assert (stored["all"]["yes"], stored["all"]["tasks"]) == (right, len(read_here))

    assert cli("export", own, "--out", tmp_path / "data" / "tasks.jsonl").returncode == 0
    card = (tmp_path / "data" / "README.md").read_text(encoding="utf-8")
    assert f"| tasks read | {len(read_here)} of {accepted} |" in card
    assert re.search(rf"\| correct output \| {right} of {len(read_here)} \(", card)
    assert "no person has checked" not in card
    assert "Ann" not in card

    make_report([own, tasks], tmp_path / "report.html", None, stderr_console())
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert re.search(rf">review: correct output</th><td[^>]*><bdi>{right} of {len(read_here)} ", page)


def test_scores_go_to_no_other_run(cli: RunCli, run: Path, tasks: Path, tmp_path: Path) -> None:
    made = si.make_review([tasks], tmp_path / "page.html", sample=5)
    ann = label(made.page, "Ann", lambda _number: "yyy")
    done = cli("review", "score", ann, "--key", made.key, "--run", run)
    assert done.returncode == 2
    assert f"--run {run}: its accepted tasks" in done.stderr
    assert not (run / "review.json").exists()


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{}",
        "[]",
        "null",
        "5",
        '"format"',
        '{"format": "selfinstruct-review", "version": 1, "sample": "s", "kappa": 0}',
    ],
)
def test_a_broken_review_of_a_run_is_named_before_an_export(cli: RunCli, run: Path, tmp_path: Path, text: str) -> None:
    own = tmp_path / "run"
    shutil.copytree(run, own)
    (own / "review.json").write_text(text)
    done = cli("export", own, "--out", tmp_path / "tasks.jsonl")
    assert done.returncode == 2
    assert f"{own / 'review.json'}: " in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert not (tmp_path / "tasks.jsonl").exists()


def test_hostile_data_stays_data_in_page_key_and_terminal(
    cli: RunCli, hostile_file: Path, hostile_run: Path, tmp_path: Path
) -> None:
    out = tmp_path / "page.html"
    done = cli("review", "make", hostile_file, hostile_run, "--accepted", "--rejected", "--out", out)
    assert done.returncode == 0
    raw = out.read_text(encoding="utf-8")
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]", raw)
    assert "<script>" + ATTACK not in raw
    assert raw.count("<script") == 2
    shown = {item["instruction"] for item in items_of(out)["items"]}
    assert set(HOSTILE[:5]) <= shown
    assert r"Write \x1b[31mred\x1b[0m\x07 and \u202eterces\u202c." in shown
    ann = label(out, "\x1b[31mAnn", lambda number: "yyy" if number % 2 else "nnn")
    bob = label(out, "Bob", lambda _number: "yyy")
    done = cli("review", "score", ann, bob, "--key", out.with_name("page.key.json"))
    assert done.returncode == 0
    assert r"\x1b[31mAnn" in done.stdout
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]", done.stdout)


def test_the_module_of_the_command_imports_nothing_heavy() -> None:
    code = (
        "import sys, selfinstruct_local.cli.review\n"
        "print([m for m in ('numba', 'numpy', 'spacy', 'plotly', 'jinja2', 'pydantic') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
