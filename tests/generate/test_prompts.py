"""A user's own prompts: they are checked, asked with, stored in the run, and fixed with it."""

import itertools
import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path
from string import Template

import pytest

import selfinstruct_local as si
from selfinstruct_local.config.loading import load_settings
from selfinstruct_local.errors import UsageError
from selfinstruct_local.generate.create import open_run
from selfinstruct_local.generate.profiles.registry import PROFILES, make_profile, prompts_of
from selfinstruct_local.generate.settings import ENGLISH_ONLY, GenerateSettings
from selfinstruct_local.prompts import Prompts, load_prompt, prompt_names, read_prompts
from selfinstruct_local.runs.store import DATABASE, RunStore
from selfinstruct_local.seeds import seed_file
from tests.conftest import RunCli
from tests.generate.test_rewrite import CHINESE, TableEngine, make_source, rewrite
from tests.generate.test_run import MODEL, generate
from tests.generate.test_run import settings as settings_of
from tests.scripted_engine import ScriptedEngine
from tests.scripted_server import ScriptedServer

MARK = "Every task is about the chemistry of soap."
FLAGS = ("--profile", "alpaca", "--window", 8, "--in-flight", 4)


def settings(**flags: object) -> GenerateSettings:
    return settings_of(profile="alpaca", **flags)


def own(folder: Path, *names: str, mark: str = MARK) -> Path:
    """A folder with the named built-in templates, each with a first line of its own."""
    folder.mkdir(exist_ok=True)
    for name in names:
        (folder / f"{name}.txt").write_text(f"{mark}\n{load_prompt(name).template}\n", encoding="utf-8")
    return folder


def test_an_own_prompt_is_asked_with_and_fixed_with_the_run(tmp_path: Path, cli: RunCli) -> None:
    run, mine, out = tmp_path / "run", tmp_path / "mine", tmp_path / "out"
    done = cli("profiles", "--export", mine, "--profile", "alpaca")
    assert done.stdout.splitlines() == [str(mine / f"{name}.txt") for name in prompts_of("alpaca")]
    own(mine, "alpaca")
    with ScriptedServer() as server:
        command = ("generate", "--run", run, "--endpoint", server.url, *FLAGS)
        dry = cli(*command, "--dry-run", "--prompts", mine)
        assert dry.returncode == 0, dry.stderr
        assert MARK in dry.stdout
        assert f"alpaca, from {mine}" in dry.stdout
        assert "note" not in dry.stderr  # what was exported and left alone is not the user's own
        assert cli(*command, "--num", 3, "--prompts", mine).returncode == 0
        assert len(server.asked) > 0
        assert all(body["prompt"].startswith(f"{MARK}\n") for body in server.asked)
        asked = len(server.asked)

        refused = cli(*command, "--num", 9)
        assert refused.returncode == 2
        assert "prompts: alpaca (from --prompts in the run, built-in now)" in refused.stderr
        assert "alpaca_" not in refused.stderr
        other = own(tmp_path / "other", "alpaca", mark="Another subject.")
        refused = cli(*command, "--num", 9, "--prompts", other)
        assert "prompts: alpaca (from --prompts in the run, another now)" in refused.stderr
        assert len(server.asked) == asked

        shutil.rmtree(mine)
        assert cli("profiles", "--export", out, "--run", run).returncode == 0
        done = cli(*command, "--num", 9, "--prompts", out)
        assert done.returncode == 0, done.stderr
        assert len(server.asked) > asked
    with RunStore(run, read_only=True) as store:
        text = f"{MARK}\n{load_prompt('alpaca').template}"
        assert store.facts()["prompt_texts"] == {"alpaca": {"text": text, "own": True}}
        assert "prompts" not in store.facts()
    assert cli("export", run, "--format", "alpaca", "--out", tmp_path / "data.json").returncode == 0
    assert "| user's own prompts | alpaca |" in (tmp_path / "README.md").read_text(encoding="utf-8")


def test_a_run_without_own_prompts_says_so(tmp_path: Path, cli: RunCli) -> None:
    generate(tmp_path / "run", settings(num=3), ScriptedEngine())
    assert cli("export", tmp_path / "run", "--out", tmp_path / "data.json").returncode == 0
    assert "| user's own prompts | none |" in (tmp_path / "README.md").read_text(encoding="utf-8")
    mine = own(tmp_path / "mine", "alpaca")
    with RunStore(tmp_path / "run") as store, pytest.raises(UsageError) as refused:
        open_run(store, settings(prompts=mine), MODEL, [seed_file()])
    assert "prompts: alpaca (built-in in the run, from --prompts now)" in str(refused.value)


def test_a_run_of_an_older_release_can_be_resumed(tmp_path: Path, cli: RunCli) -> None:
    """They store one checksum over all prompts."""
    generate(tmp_path / "run", settings(num=3), ScriptedEngine())
    database = sqlite3.connect(tmp_path / "run" / DATABASE)
    database.execute("DELETE FROM facts WHERE name = 'prompt_texts'")
    database.commit()
    database.close()
    mine = own(tmp_path / "mine", "alpaca")
    with RunStore(tmp_path / "run") as store:
        assert open_run(store, settings(), MODEL, [seed_file()])
        with pytest.raises(UsageError, match=r"prompts fingerprint: \w+\.\.\. in the run, \w+\.\.\. now"):
            open_run(store, settings(prompts=mine), MODEL, [seed_file()])
    done = cli("profiles", "--export", tmp_path / "out", "--run", tmp_path / "run")
    assert (done.returncode, done.stdout) == (2, "")
    assert "stores no prompts" in done.stderr
    assert not (tmp_path / "out").exists()


def _make_file(folder: Path) -> None:
    shutil.rmtree(folder)
    folder.write_text("x")


ALPACA = load_prompt("alpaca").template
# What is done to a folder that holds a good `alpaca.txt`, and what is said of it.
BAD: dict[str, tuple[Callable[[Path], object], str]] = {
    "missing": (shutil.rmtree, ": no such file or directory"),
    "a file": (_make_file, ": not a folder"),
    "nothing": (lambda folder: (folder / "alpaca.txt").unlink(), ": holds no template"),
    "unknown name": (
        lambda folder: (folder / "alpacca.txt").touch(),
        "alpacca.txt: no built-in template has this name",
    ),
    "nearest": (
        lambda folder: (folder / "self_instruct_list.txt").touch(),
        "nearest: self_instruct.txt, self_instruct_",
    ),
    "suffix": (
        lambda folder: (folder / "alpaca.md").touch(),
        "alpaca.md: no built-in template has this name (nearest: ",
    ),
    "backup": (lambda folder: (folder / "alpaca.txt~").touch(), "alpaca.txt~: no built-in template"),
    "no suffix": (
        lambda folder: (folder / "judge").touch(),
        "judge: no built-in template has this name (nearest: judge",
    ),
    "name in bytes": (
        lambda folder: (folder / "alp\udcff\n.txt").touch(),
        r"alp\udcff\n.txt: no built-in template has this name (",
    ),
    "folder": (lambda folder: (folder / "judge.txt").mkdir(), "judge.txt: not a file"),
    "link to nothing": (lambda folder: (folder / "judge.txt").symlink_to("nowhere"), "judge.txt: not a file"),
    "latin-1": (lambda folder: (folder / "alpaca.txt").write_bytes(b"caf\xe9"), "alpaca.txt: not UTF-8 (byte 4)"),
    "utf-16": (lambda folder: (folder / "alpaca.txt").write_text(ALPACA, "utf-16"), "alpaca.txt: not UTF-8"),
    "nul": (lambda folder: (folder / "magpie_user.txt").write_text("a\0b\0"), "magpie_user.txt: holds a NUL"),
    "empty": (lambda folder: (folder / "alpaca.txt").write_text(" \n\n"), "alpaca.txt: is empty"),
    "unknown placeholder": (
        lambda folder: (folder / "alpaca.txt").write_text(f"{ALPACA} $subject"),
        "alpaca.txt: unknown placeholder $subject (allowed: $demonstrations, $next_number;",
    ),
    "placeholder in braces": (
        lambda folder: (folder / "magpie_user.txt").write_text("Play a user who pays ${price}."),
        "magpie_user.txt: unknown placeholder $price (allowed: none;",
    ),
    "missing placeholder": (
        lambda folder: (folder / "alpaca.txt").write_text(ALPACA.replace("$demonstrations", "")),
        "alpaca.txt: lacks the placeholder $demonstrations",
    ),
    "lone dollar": (
        lambda folder: (folder / "alpaca.txt").write_text(f"Prices:\n5 $ each\n{ALPACA}"),
        "alpaca.txt: line 2: a lone '$'; write '$$'",
    ),
}


@pytest.mark.parametrize("bad", BAD)
def test_a_bad_folder_of_prompts_is_one_line_before_anything_is_made(bad: str, tmp_path: Path, cli: RunCli) -> None:
    spoil, told = BAD[bad]
    spoil(own(tmp_path / "mine", "alpaca"))
    done = cli("generate", "--run", tmp_path / "run", "--prompts", tmp_path / "mine")
    assert (done.returncode, done.stdout) == (2, "")
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"selfinstruct: --prompts {tmp_path / 'mine'}: ")
    assert told in line
    assert not (tmp_path / "run").exists()


def test_a_bad_folder_in_a_config_file_is_named_as_such(tmp_path: Path) -> None:
    config = tmp_path / "c.yaml"
    config.write_text("prompts: nowhere\n")
    with pytest.raises(UsageError, match=rf"^--config {config}: prompts: no such file or directory$"):
        load_settings(GenerateSettings, config, {})
    config.write_text("prompts: [a, b]\n")
    with pytest.raises(UsageError, match=rf"^--config {config}: prompts: expected a folder path$"):
        load_settings(GenerateSettings, config, {})


def test_what_editors_do_to_files_is_taken(tmp_path: Path) -> None:
    folder = own(tmp_path / "mine", "alpaca")
    (folder / "README.md").write_text("Mine. $5 and \xe9.", encoding="latin-1")
    (folder / ".alpaca.txt.swp").write_bytes(b"\xff\0")
    (folder / ".git").mkdir()
    windows = f"\ufeffPay $$5.\n{ALPACA}\n".replace("\n", "\r\n")
    (folder / "alpaca.txt").write_bytes(windows.encode())
    prompts = read_prompts(folder)
    assert prompts.own == {"alpaca": f"Pay $$5.\n{ALPACA}"}
    assert prompts.load("alpaca").substitute(demonstrations="{x} $y", next_number=4).startswith("Pay $5.\n")


def test_every_exported_template_is_taken_and_changes_nothing(tmp_path: Path, cli: RunCli) -> None:
    assert cli("profiles", "--export", tmp_path / "all").returncode == 0
    assert {each.stem for each in (tmp_path / "all").iterdir()} == set(prompt_names())
    assert read_prompts(tmp_path / "all").own == {}
    again = cli("profiles", "--export", tmp_path / "all")
    assert (again.returncode, len(again.stderr.splitlines())) == (2, 1)
    for more in (("--run", tmp_path), ("--export", tmp_path / "x", "--json"), ("--profile", "alpacca")):
        assert cli("profiles", *more).returncode == 2
    assert not (tmp_path / "x").exists()


def test_prompts_that_a_run_does_not_use_are_noted(tmp_path: Path, cli: RunCli) -> None:
    mine = own(tmp_path / "mine", "alpaca", "judge", "magpie_user")
    with ScriptedServer() as server:
        command = ("generate", "--run", tmp_path / "run", "--endpoint", server.url, *FLAGS, "--num", 1)
        done = cli(*command, "--prompts", mine)
        assert done.returncode == 0, done.stderr
        (note,) = [line for line in done.stderr.splitlines() if "note: " in line]
        assert note.endswith("does not use judge.txt, magpie_user.txt")
        # They have no part in what decides the run.
        again = cli(*command, "--prompts", own(tmp_path / "less", "alpaca"), "--quiet")
        assert (again.returncode, again.stderr) == (0, "")


class Recording(Prompts):
    """Prompts that note which of them are loaded."""

    def load(self, name: str) -> Template:
        LOADED.add(name)
        return super().load(name)


LOADED: set[str] = set()


@pytest.mark.parametrize("profile", PROFILES)
def test_every_profile_takes_all_its_prompts_from_the_settings(profile: str) -> None:
    langs = ("en",) if profile in ENGLISH_ONLY else ("en", "zh")
    for lang, structured, chat, answers in itertools.product(
        langs, (False, True), ("chat", "completion"), ("short", "full")
    ):
        LOADED.clear()
        flags = {"lang": lang, "structured": structured, "prompt_format": chat, "answers": answers, "judge": True}
        made = make_profile(
            load_settings(GenerateSettings, None, {"profile": profile, "prompts": Recording(), **flags})
        )
        assert set(made.prompts) == LOADED
        assert set(made.prompts) <= set(prompts_of(profile))  # type: ignore[arg-type]  # a name of a profile


def test_a_change_of_the_files_during_a_start_changes_nothing(tmp_path: Path) -> None:
    mine = own(tmp_path / "mine", "alpaca")
    chosen = settings(num=3, prompts=mine)
    own(mine, "alpaca", mark="Too late.")
    engine = ScriptedEngine()
    generate(tmp_path / "run", chosen, engine)
    assert engine.asked
    assert all(request.prompt.startswith(MARK) for request in engine.asked)


def test_the_judge_of_a_run_is_asked_with_the_own_prompt(tmp_path: Path) -> None:
    chosen = settings(judge=True, prompts=own(tmp_path / "mine", "judge", mark=MARK))
    engine = ScriptedEngine()
    generate(tmp_path / "run", chosen.model_copy(update={"num": 2}), engine)
    judged = [request for request in engine.asked if request.key.stage == "judge"]
    assert judged
    assert all(request.prompt.startswith(MARK) for request in judged)


def test_translations_are_asked_for_with_the_own_prompt(tmp_path: Path) -> None:
    source, mine = make_source(tmp_path / "source"), own(tmp_path / "mine", "translate_zh")
    engine = TableEngine(CHINESE)
    rewrite(source, tmp_path / "into", "translate", engine, to="zh", prompts=mine)
    assert engine.asked
    assert all(request.prompt.startswith(MARK) for request in engine.asked)
    with pytest.raises(UsageError, match=r"prompts: translate_zh \(from --prompts in the run, built-in now\)"):
        rewrite(source, tmp_path / "into", "translate", TableEngine(CHINESE), to="zh")


@pytest.mark.parametrize(
    "text", ["Translate this: $text", "### English\n$text\n\n### Chinese\n", "Rules\n\n### A\n$text\n"]
)
def test_a_prompt_to_rewrite_with_has_the_form_of_the_built_in_one(text: str, tmp_path: Path, cli: RunCli) -> None:
    source, mine = make_source(tmp_path / "source"), tmp_path / "mine"
    mine.mkdir()
    (mine / "translate_zh.txt").write_text(text)
    with ScriptedServer() as server:
        done = cli(
            "translate", "--run", source, "--into", tmp_path / "into", "--to", "zh", "--endpoint", server.url,
            "--prompts", mine,
        )  # fmt: skip
    assert (done.returncode, len(done.stderr.splitlines())) == (2, 1)
    assert f"--prompts {mine}: translate_zh.txt: " in done.stderr


def test_a_notebook_gives_prompts_too(tmp_path: Path) -> None:
    mine = own(tmp_path / "mine", "alpaca")
    with ScriptedServer() as server:
        si.generate_tasks(
            tmp_path / "run", endpoint=[server.url], num=1, in_flight=4, profile="alpaca", prompts=str(mine)
        )
        assert all(body["prompt"].startswith(MARK) for body in server.asked)
    with pytest.raises(si.UserFacingError, match="--prompts"):
        si.generate_tasks(tmp_path / "run", prompts=tmp_path / "nowhere")
