"""Data, names and what models and servers say may hold what a terminal obeys, or what rich reads as markup (fault 37).

None of it reaches a terminal as such: each test looks at the bytes that a command wrote.
"""

import errno
import os
import pty
import subprocess
import sys
from pathlib import Path

import orjson
import pytest

from selfinstruct_local.config.loading import load_settings
from selfinstruct_local.errors import UsageError, one_line, shown
from selfinstruct_local.generate.display import ENGINE_LOG, RunDisplay
from selfinstruct_local.generate.settings import GenerateSettings
from selfinstruct_local.io.progress import stderr_console, waiting
from selfinstruct_local.io.terminal import echo_data
from selfinstruct_local.runs.store import RunStore, Totals
from selfinstruct_local.task import Task
from tests.conftest import RunCli
from tests.scripted_server import ScriptedServer

# Red, a new window title, a cleared screen by its one-character form, a reversed direction, and markup that is broken.
EVIL = "\x1b[31m\x1b]0;x\x07\x9b2J\u202e[/red][bold]"
OBEYED = ("\x1b", "\x07", "\x9b", "\u202e")
MARKUP = "[/red][bold]"


def clean(text: str) -> bool:
    """Whether nothing in it would be obeyed, and the markup stands there as it came."""
    return MARKUP in text and not any(character in text for character in OBEYED)


def on_a_terminal(words: list[str]) -> tuple[int, str]:
    """Runs a command whose stdout and stderr are a terminal; gives the exit code and what reached the terminal."""
    keeper, terminal = pty.openpty()
    process = subprocess.Popen(words, stdout=terminal, stderr=terminal, stdin=subprocess.DEVNULL)
    os.close(terminal)
    parts = []
    while True:
        try:
            part = os.read(keeper, 65536)
        except OSError as error:
            if error.errno != errno.EIO:  # how Linux says that the other end is closed
                raise
            break
        if not part:
            break
        parts.append(part)
    os.close(keeper)
    return process.wait(60), b"".join(parts).decode("utf-8", "surrogateescape")


def test_errors_show_the_data_and_the_names_they_quote(tmp_path: Path, cli: RunCli) -> None:
    source = tmp_path / f"in{EVIL.replace('/', '')}.jsonl"
    source.write_bytes(orjson.dumps({"instruction": "Name a river", EVIL: 1})[:-1] + b"," + orjson.dumps({EVIL: 1})[1:])
    done = cli("filter", source, "--out", tmp_path / "out")
    assert done.returncode == 2
    assert f"field '{one_line(EVIL)}': duplicate key" in done.stderr
    assert clean(done.stderr)
    assert len(done.stderr.splitlines()) == 1
    config = tmp_path / "c.yaml"
    config.write_text(f"{orjson.dumps(EVIL).decode()}: 1")
    with pytest.raises(UsageError) as caught:
        load_settings(GenerateSettings, config, {})
    assert not any(character in str(caught.value) for character in OBEYED)


def test_an_error_is_one_line_whatever_it_quotes() -> None:
    assert str(UsageError("a\nb\x1b[2J\tc\ud800")) == "a\\nb\\x1b[2J\\tc\\ud800"
    assert shown("a\nb\tc é 中 \u200d") == "a\nb\tc é 中 \u200d"


def test_a_run_is_shown_and_not_obeyed(tmp_path: Path, cli: RunCli) -> None:
    with RunStore(tmp_path / "run") as store:
        store.create({"profile": EVIL, "topics": [EVIL], "model_path": EVIL}, [Task.single("Hi", "", "Ho")])
    for words in (("runs", "list", tmp_path), ("runs", "show", tmp_path / "run")):
        done = cli(*words)
        assert done.returncode == 0, done.stderr
        assert clean(done.stdout)


def test_a_prepared_model_is_listed_and_not_obeyed(bare_model: Path, cli: RunCli) -> None:
    config = bare_model / "config.json"
    config.write_bytes(orjson.dumps({**orjson.loads(config.read_bytes()), "architectures": [EVIL]}))
    (bare_model / "selfinstruct-manifest.json").write_text("{}")
    cache = bare_model.parent / "cache"
    (cache / "models").mkdir(parents=True)
    bare_model.rename(cache / "models" / "mine")
    done = cli("models", "list", env={"SELFINSTRUCT_CACHE": str(cache)})
    assert done.returncode == 0, done.stderr
    assert clean(done.stdout)


def test_what_a_server_calls_its_model_is_shown(tmp_path: Path, cli: RunCli) -> None:
    with ScriptedServer(model=EVIL) as server:
        done = cli("generate", "--run", tmp_path / "run", "--endpoint", server.url, "--model", "mine")
    assert done.returncode == 2
    assert clean(done.stderr)


def test_what_the_engine_logs_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    console = stderr_console()
    with RunDisplay(console, Totals(0, 0, 0, {}, 0, 0, 0, 0), 5):
        ENGINE_LOG.warning("the server said %s", EVIL)
    with waiting(console, f"loading {EVIL}"):
        pass
    lines = capsys.readouterr().err.splitlines()
    assert [clean(line) for line in lines] == [True, True]


WAIT = (
    "from selfinstruct_local.generate.display import *\n"
    "from selfinstruct_local.io.progress import *\n"
    "console = stderr_console()\n"
    "with waiting(console, {what!r}), RunDisplay(console, Totals(0, 0, 0, {{}}, 0, 0, 0, 0), 5, {what!r}) as display:\n"
    "    display.starting()\n"
    "    import time; time.sleep(0.3)\n"
    "console.print({what!r})\n"
)


def test_a_spinner_takes_a_name_for_no_markup() -> None:
    """On a real terminal, where the display draws: a folder may be called [/red]."""
    code, written = on_a_terminal([sys.executable, "-c", WAIT.format(what=EVIL)])
    assert code == 0, written
    assert MARKUP in written
    assert not any(escape in written for escape in ("\x1b[31m", "\x1b]0;", "\x07", "\x9b", "\u202e"))


def test_an_answer_is_shown_on_a_terminal_and_itself_in_a_file(capsys: pytest.CaptureFixture[str]) -> None:
    words = [
        sys.executable,
        "-c",
        f"from selfinstruct_local.io.terminal import echo_data; echo_data({EVIL!r} + '\\nb')",
    ]
    code, written = on_a_terminal(words)
    assert (code, written) == (0, f"{shown(EVIL)}\r\nb\r\n")
    echo_data(EVIL)
    assert capsys.readouterr().out == f"{EVIL}\n"
