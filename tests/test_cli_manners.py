"""What all commands share: settings from files, dry runs, quiet, JSON, completion, and exit codes for wrong use."""

import contextlib
import os
import pty
import re
import shlex
import shutil
import sqlite3
import subprocess
import sys
import textwrap
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, get_args

import orjson
import pytest
import typer
import yaml

from selfinstruct_local.cli import app, choices
from selfinstruct_local.cli.dry_run import next_request, show_request
from selfinstruct_local.cli.settings import MODELS, USED, leaves, resolve
from selfinstruct_local.config.loading import load_settings
from selfinstruct_local.engines.base import Request, RequestKey, Sampling
from selfinstruct_local.engines.settings import EngineSettings
from selfinstruct_local.errors import EngineDeadError
from selfinstruct_local.filters.rulesets import RULE_SETS
from selfinstruct_local.generate.launch import SMALL_WEIGHTS, ChosenModel, fit_to_model
from selfinstruct_local.generate.settings import GenerateSettings, ProfileName, PromptFormat
from selfinstruct_local.models import ModelFolder, check_model_folder
from selfinstruct_local.report.review.sample import Per
from selfinstruct_local.runs.export.formats import FORMATS
from selfinstruct_local.runs.store import RunStore
from selfinstruct_local.templates.alpaca import TemplateName
from selfinstruct_local.templates.turns import Turn
from selfinstruct_local.train.settings import PRESETS, Batching, Method, Overlong
from tests.conftest import RunCli
from tests.generate.test_run import generate, settings
from tests.scripted_engine import ScriptedEngine
from tests.test_cli import COMMANDS
from tests.train import conftest as training

ROOT = Path(__file__).parents[1]
TASK = '{"instruction": "Name one long river", "input": "", "output": "Nile"}\n'
Files = Mapping[str, Path]
tiny_model = training.tiny_model


@pytest.fixture(scope="session")
def finished_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("manners") / "run"
    generate(folder, settings(num=5), ScriptedEngine())
    return folder


@pytest.fixture
def files(tmp_path: Path, bare_model: Path, finished_run: Path) -> Files:
    """A file of tasks, a finished run of a scripted engine, a model folder, and an adapter that fits no other."""
    (tmp_path / "tasks.jsonl").write_text(TASK)
    shutil.copytree(finished_run, tmp_path / "run")
    adapter = tmp_path / "adapter"
    adapter.mkdir()
    (adapter / "adapter_config.json").write_text('{"r": 8}')
    (adapter / "adapter_model.safetensors").write_bytes(b"not really weights")
    places = {name: tmp_path / name for name in ("tasks.jsonl", "run", "adapter", "new", "none", "c.yaml")}
    return {**places, "tmp": tmp_path, "model": bare_model}


def tree(folder: Path) -> dict[Path, bytes]:
    """All files below a folder but SQLite's own shared memory, which a reader may touch."""
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file() and path.suffix != ".sqlite-shm"}


def test_completion_offers_what_the_settings_take() -> None:
    held: list[tuple[tuple[str, ...], tuple[Any, ...]]] = [
        (choices.PROFILES, get_args(ProfileName)),
        (choices.RULE_SETS, RULE_SETS),
        (choices.PRESETS, PRESETS),
        (choices.FORMATS, tuple(FORMATS)),
        (choices.PROMPT_FORMATS, get_args(PromptFormat)),
        (choices.TEMPLATES, get_args(TemplateName)),
        (choices.ANSWERS, get_args(GenerateSettings.model_fields["answers"].annotation)),
        (choices.SUBJECTS, get_args(GenerateSettings.model_fields["subject"].annotation)),
        (choices.DTYPES, get_args(EngineSettings.model_fields["dtype"].annotation)),
        (choices.METHODS, get_args(Method)),
        (choices.BATCHINGS, get_args(Batching)),
        (choices.OVERLONG, get_args(Overlong)),
        (choices.BACKENDS, get_args(MODELS["serve"].model_fields["replica_backend"].annotation)),
        (choices.CONFIGURABLE, tuple(MODELS)),
        (choices.REVIEW_PER, get_args(Per)),
    ]
    for offered, taken in held:
        assert sorted(offered) == sorted(taken)


def options_of(command: str) -> Iterator[Any]:
    group: Any = typer.main.get_command(app)
    for word in command.split():
        group = group.commands[word]
    yield from group.params


# Defaults that the help tells of in words, because something else settles them or none is the default.
IN_WORDS = {
    "the profile's",
    "the model's",
    "short for weights below 2 GB, else full",
    "chat if it has one",
    "that of --run",
    "2048, or the shortest of the models'",
    "alpaca, or the run's",
    "0.7, or the run's",
    "seeds with --seeds, else any",
    "en, or the run's",
    "by epochs",
    "from the two options before",
    "unchanged",
    "on GPUs",
    "the preset's",
    "an epoch",
    "all",
    "vLLM's",
}


@pytest.mark.parametrize("command", MODELS)
def test_the_defaults_that_help_tells_are_those_of_the_settings(command: str) -> None:
    values = resolve(command, None).settings.model_dump(mode="json")
    values = {**values, **values.get("engine", {})}
    told = 0
    for option in options_of(command):
        literal = re.search(r"\[default: ([^\]]+)\]", option.help or "")
        if option.name not in values or literal is None or literal[1] in IN_WORDS:
            continue
        value = values[option.name]
        shown = "no" if value is False else value if isinstance(value, str) else f"{value:g}"
        assert literal[1].partition(",")[0] == shown, option.name
        told += 1
    assert told or command == "filter"


@pytest.mark.parametrize(
    ("command", "options"),
    [
        *((command, {}) for command in MODELS),
        *(("train", {"preset": preset}) for preset in PRESETS),
        *(("generate", {"profile": profile}) for profile in get_args(ProfileName)),
    ],
)
def test_what_config_show_prints_comes_back_as_the_same_settings(
    command: str, options: dict[str, str], tmp_path: Path, cli: RunCli
) -> None:
    flags = [word for name, value in options.items() for word in (f"--{name}", value)]
    done = cli("config", "show", command, *flags)
    assert done.returncode == 0, done.stderr
    file = tmp_path / "saved.yaml"
    file.write_text(done.stdout)
    before, after = resolve(command, None, **options), resolve(command, file)
    assert after.settings == before.settings
    assert set(after.left_open) == set(before.left_open)
    # Every setting stands there with what it means.
    for name, field in leaves(MODELS[command]):
        leaf = name.rpartition(".")[2]
        if command not in USED or name in USED[command]:
            assert re.search(rf"^ *# .+\n *(# )?{leaf}: ", done.stdout, re.MULTILINE), (name, field)
    given = yaml.safe_load(done.stdout) or {}
    assert not set(given) & set(before.left_open)


@pytest.mark.parametrize("profile", [None, "self-instruct", "magpie", "alpaca"])
@pytest.mark.parametrize("small", [True, False])
def test_a_saved_file_leaves_to_the_model_what_was_open(
    profile: str | None,
    small: bool,  # noqa: FBT001
    tmp_path: Path,
    bare_model: Path,
    cli: RunCli,
) -> None:
    (bare_model / "chat_template.jinja").write_text("{{ messages }}")
    if not small:
        with (bare_model / "more.safetensors").open("wb") as stream:
            stream.truncate(SMALL_WEIGHTS)  # takes no room on the disk
    model = ChosenModel(check_model_folder(bare_model))
    file = tmp_path / "saved.yaml"
    file.write_text(cli("config", "show", "generate", *(("--profile", profile) if profile else ())).stdout)
    given = {"profile": profile}
    bare, saved = (
        fit_to_model(load_settings(GenerateSettings, config, flags), model, config, flags)
        for config, flags in ((None, given), (file, {}))
    )
    assert saved == bare
    assert (saved.profile, saved.prompt_format) == (profile or "self-instruct", "chat")
    assert saved.answers == ("short" if small or profile == "alpaca" else "full")


def test_config_show_tells_where_a_value_comes_from(tmp_path: Path, cli: RunCli) -> None:
    file = tmp_path / "c.yaml"
    file.write_text("num: 7\nprofile: magpie\nengine:\n  in_flight: 3\n")
    shown = cli("config", "show", "generate", "--config", file).stdout.splitlines()
    for line in (
        f"num: 7  # .*{file}",
        f"  in_flight: 3  # .*{file}",
        "threshold: 0.6  # .*profile magpie",
        "# window: 3  # .*in_flight",
        "temperature: 0.7",
    ):
        assert any(re.fullmatch(line, each) for each in shown), line


@pytest.mark.parametrize(
    ("words", "wanted"),
    [
        ("chat", "chat: has no --config; "),
        ("eval --preset lora-7b", "--preset lora-7b: is only for 'train'"),
        ("train --profile magpie", "--profile magpie: is only for 'generate'"),
        ("train --preset none", "--preset none: no such preset"),
        ("generate --profile none", "--profile none: "),
        ("generate --config {none}", "--config {none}: no such file"),
    ],
)
def test_config_show_refuses(words: str, wanted: str, files: Files, cli: RunCli) -> None:
    done = cli("config", "show", *words.format(**files).split())
    assert (done.returncode, done.stdout) == (2, "")
    assert wanted.format(**files) in done.stderr


CONFIGURED = {
    "generate": "--run {new} --model {model}",
    "translate": "--run {run} --to zh --into {new} --model {model}",
    "polish": "--run {run} --into {new} --model {model}",
    "train": "--data {tasks.jsonl} --out {new} --model {model}",
    "eval": "--model {model} --data {tasks.jsonl}",
    "filter": "{tasks.jsonl} --out {new}",
    "serve": "--model {model} --dry-run",
}


def words_of(text: str, files: Files) -> list[str]:
    """Words of a command line with `{name}` for files; names may hold dots, which `str.format` would read."""
    return [re.sub(r"\{([^}]+)\}", lambda found: str(files[found[1]]), word) for word in shlex.split(text)]


@pytest.mark.parametrize("command", MODELS)
def test_a_key_that_is_no_setting_is_refused_with_file_and_key(command: str, files: Files, cli: RunCli) -> None:
    files["c.yaml"].write_text("nmu: 5\n")
    done = cli(command, *words_of(CONFIGURED[command], files), "--config", files["c.yaml"])
    assert done.returncode == 2
    assert f"--config {files['c.yaml']}: nmu: no such setting" in done.stderr
    assert not files["new"].exists()


UNUSED = [
    ("translate", "temperature: 1", "temperature"),
    ("translate", "num: 5", "num"),
    ("polish", "threshold: 0.5", "threshold"),
    ("polish", "lang: zh", "lang"),
    ("eval", "profile: magpie", "profile"),
    ("eval", "engine:\n  endpoint: [http://127.0.0.1:1/v1]", "engine.endpoint"),
    ("filter", "temperature: 1", "temperature"),
]


@pytest.mark.parametrize(("command", "text", "key"), UNUSED)
def test_a_setting_without_use_is_refused_by_name(command: str, text: str, key: str, files: Files, cli: RunCli) -> None:
    files["c.yaml"].write_text(text)
    done = cli(command, *words_of(CONFIGURED[command], files), "--config", files["c.yaml"])
    assert done.returncode == 2
    assert f"--config {files['c.yaml']}: {key}: '{command}' " in done.stderr


def test_serve_takes_a_file_and_flags_win(files: Files, cli: RunCli) -> None:
    files["c.yaml"].write_text("port: 8123\nin_flight: 7\n")
    done = cli(*("serve", "--model", files["model"], "--config", files["c.yaml"], "--in-flight", 9, "--dry-run"))
    if "needs vLLM" in done.stderr:
        pytest.skip("serve --dry-run needs vLLM, which is missing")
    assert done.returncode == 0, done.stderr
    assert "--port 8123" in done.stdout
    assert "--max-num-seqs 9" in done.stdout


def test_filter_takes_rules_and_limits_from_a_file_and_flags_win(files: Files, cli: RunCli) -> None:
    text = "I'm sorry, but I can't help with that."
    record = {"instruction": "Name one long river", "input": "", "output": text}
    files["tasks.jsonl"].write_bytes(orjson.dumps(record) + b"\n")

    def kept(config: str, *flags: str) -> int:
        files["c.yaml"].write_text(config)
        done = cli("filter", files["tasks.jsonl"], "--out", files["new"], "--config", files["c.yaml"], "--json", *flags)
        assert done.returncode == 0, done.stderr
        return int(orjson.loads(done.stdout)["kept"])

    assert kept("rules: alpaca") == 0
    assert kept("refuse_refusals: false") == 1
    assert kept("rules: none") == 1
    assert kept("rules: none", "--rules", "alpaca") == 0
    files["c.yaml"].write_text("min_confidence: -1")
    done = cli("filter", files["tasks.jsonl"], "--out", files["new"], "--config", files["c.yaml"])
    assert done.returncode == 2
    assert "min_confidence: only for --run" in done.stderr


def test_eval_takes_a_file_and_flags_win(files: Files, embedded_model: ModelFolder, cli: RunCli) -> None:
    files["c.yaml"].write_text("max_tokens: 31\nmax_model_len: 512\n")
    words = ("--model", embedded_model.path, "--data", files["tasks.jsonl"], "--config", files["c.yaml"])
    done = cli("eval", *words, "--max-model-len", 600, "--dry-run")
    assert done.returncode == 0, done.stderr
    assert re.search(r"^context +600 tokens$", done.stdout, re.MULTILINE)
    assert "at most 31 tokens" in done.stdout


DRY_RUNS = {
    "generate": "--run {new} --model {model} --num 9",
    "generate that goes on": "--run {run} --model {model} --num 9",
    "generate --fork": "--run {run} --fork {new} --model {model} --num 9",
    "translate": "--run {run} --to zh --into {new} --model {model}",
    "polish": "--run {run} --into {new} --model {model}",
    "merge": "--adapter {adapter} --out {new} --model {model}",
}


@pytest.mark.parametrize("name", DRY_RUNS)
def test_a_dry_run_checks_and_tells_and_makes_nothing(name: str, files: Files, cli: RunCli) -> None:
    if name == "generate that goes on":  # made by the very model that goes on
        fingerprints = {"model_path": str(files["model"]), "adapter_fingerprint": None}
        fingerprints["model_fingerprint"] = check_model_folder(files["model"]).fingerprint
        remake(files["run"], fingerprints)
    before = tree(files["tmp"])
    done = cli(name.partition(" ")[0], *words_of(DRY_RUNS[name], files), "--dry-run")
    assert done.returncode == 0, done.stderr
    assert tree(files["tmp"]) == before
    assert not files["new"].exists()
    assert ("first request" in done.stdout) == (name != "merge")
    assert ("resumed" in done.stdout) == (name == "generate that goes on")
    assert str(files["model"].name) in done.stdout


def remake(folder: Path, facts: Mapping[str, Any]) -> None:
    """Lets a run be of another model."""
    with sqlite3.connect(folder / "run.sqlite") as database:
        for name, value in facts.items():
            database.execute("UPDATE facts SET value = ? WHERE name = ?", (orjson.dumps(value).decode(), name))
        # The settings that the command line would not give.
        database.execute("UPDATE facts SET value = '256' WHERE name = 'window'")
    database.close()


def test_the_request_of_a_dry_run_is_the_one_a_start_sends_first(files: Files, cli: RunCli) -> None:
    done = cli("generate", "--run", files["new"], "--model", files["model"], "--profile", "alpaca", "--dry-run")
    engine = ScriptedEngine()
    chosen = load_settings(GenerateSettings, None, {"profile": "alpaca", "num": 1})
    generate(files["new"], chosen, engine)
    assert done.stdout.endswith(f"\n\n{engine.asked[0].prompt}\n")


def test_a_conversation_for_a_server_is_shown_turn_by_turn(capsys: pytest.CaptureFixture[str]) -> None:
    turns = (Turn("system", "Be brief."), Turn("user", "Name a river."))
    show_request(Request(RequestKey(3, "answer", 0), "It is", Sampling(0.5, 1.0, 9), turns), None)
    shown = capsys.readouterr().out
    assert "job 3, stage answer; 3 turns" in shown
    assert shown.endswith("\n\n[system]\nBe brief.\n\n[user]\nName a river.\n\n[assistant]\nIt is\n")


def test_a_dry_run_of_a_begun_run_shows_what_the_next_start_sends_first(tmp_path: Path) -> None:
    """After near copies too, about which a start asks no further."""
    chosen = settings(profile="self-instruct", num=10_000)
    with contextlib.suppress(EngineDeadError):
        generate(tmp_path, chosen, ScriptedEngine(die_after=2))
    for attempt in range(30):
        with RunStore(tmp_path, read_only=True) as store:
            request = next_request(store, chosen, store.seeds())
        engine = ScriptedEngine(order=attempt, die_after=5)
        with contextlib.suppress(EngineDeadError):
            generate(tmp_path, chosen, engine)
        assert engine.asked[0] == request


def test_a_dry_run_prepares_no_model(files: Files, cli: RunCli) -> None:
    cache = files["tmp"] / "cache"
    done = cli("generate", "--run", files["new"], "--dry-run", env={"SELFINSTRUCT_CACHE": str(cache)})
    assert done.returncode == 2
    assert "the embedded model is not prepared; run 'selfinstruct models prepare'" in done.stderr
    assert not cache.exists()


def test_a_conversation_is_shown_in_the_model_s_own_template(
    files: Files, embedded_model: ModelFolder, cli: RunCli
) -> None:
    words = ("--model", embedded_model.path, "--data", files["tasks.jsonl"], "--template", "chat")
    done = cli("eval", *words, "--dry-run")
    assert done.returncode == 0, done.stderr
    assert "<|im_start|>user\nName one long river<|im_end|>\n<|im_start|>assistant\n" in done.stdout


REFUSED_DRY = {
    "closed folder": ("generate --run {tasks.jsonl}/run --model {model}", "/run: the folder cannot be written to"),
    "other settings": ("generate --run {run} --model {model}", "other settings ("),
    "seeds": ("generate --run {new} --model {model} --seeds {none}", "none: no such file"),
    "same run": ("polish --run {run} --into {run} --model {model}", "is the source run"),
    "full folder": ("merge --adapter {adapter} --out {run} --model {model}", "is not empty"),
    "JSON of nothing": ("generate --run {new} --model {model} --json", "--json --dry-run: "),
}


@pytest.mark.parametrize("fault", REFUSED_DRY)
def test_a_dry_run_refuses_what_the_command_would(fault: str, files: Files, cli: RunCli) -> None:
    command, wanted = REFUSED_DRY[fault]
    done = cli(*words_of(command, files), "--dry-run")
    assert done.returncode == 2
    assert wanted in done.stderr
    assert not files["new"].exists()


def test_merge_refuses_another_base_in_a_dry_run(files: Files, cli: RunCli) -> None:
    (files["adapter"] / "training.json").write_text('{"base_model": "/b", "base_model_fingerprint": "1"}')
    done = cli(*words_of("merge --adapter {adapter} --out {new} --model {model} --dry-run", files))
    assert done.returncode == 2
    assert "was trained on /b, " in done.stderr


SCRIPTED = """
    import sys
    from selfinstruct_local import cli
    from selfinstruct_local.generate import launch
    from tests.scripted_engine import ScriptedEngine
    launch.launch = lambda *_: ScriptedEngine()
    cli.main()
"""


def scripted(*words: object) -> "subprocess.CompletedProcess[str]":
    """The command as a process, with a scripted engine in place of vLLM."""
    code = textwrap.dedent(SCRIPTED)
    return subprocess.run(
        [sys.executable, "-c", code, *map(str, words)], cwd=ROOT, capture_output=True, text=True, check=False
    )


def test_generate_tells_a_program_what_came_out(files: Files) -> None:
    words = ("generate", "--run", files["new"], "--model", files["model"], "--num", 5, "--json")
    done = scripted(*words)
    assert done.returncode == 0, done.stderr
    told = orjson.loads(done.stdout)
    with RunStore(files["new"], read_only=True) as store:
        assert {name: told[name] for name in store.totals()._fields} == store.totals()._asdict()
    assert (told["reason"], told["wanted"], told["file"]) == ("done", 5, str(files["new"] / "alpaca.json"))
    assert told["accepted_now"] == told["accepted"] >= 5
    assert told["seconds"] > 0
    assert "tokens generated" in done.stderr
    spent = scripted(*words[:-2], 500, "--request-budget", 1, "--json")
    assert (spent.returncode, orjson.loads(spent.stdout)["reason"]) == (3, "requests")


def test_polish_tells_a_program_what_came_out(files: Files) -> None:
    words = ("polish", "--run", files["run"], "--into", files["new"], "--model", files["model"])
    done = scripted(*words, "--json")
    assert done.returncode == 0, done.stderr
    told = orjson.loads(done.stdout)
    assert told["reason"] == "done"
    assert told["chosen"] == told["jobs"] == told["rewritten"] + sum(told["rejected"].values())
    before = tree(files["new"])
    dry = scripted(*words, "--dry-run")
    assert re.search(rf"^tasks +{told['chosen']} selected, {told['chosen']} decided, 0 ", dry.stdout, re.MULTILINE)
    assert "first request" not in dry.stdout
    assert tree(files["new"]) == before


def test_export_and_models_tell_a_program(files: Files, embedded_model: ModelFolder, cli: RunCli) -> None:
    told = orjson.loads(cli("export", files["run"], "--out", files["new"], "--json").stdout)
    assert told["records"] == len(files["new"].read_text().splitlines())
    assert (told["file"], told["format"], told["bare"]) == (str(files["new"]), "alpaca", 0)
    rows = [orjson.loads(line) for line in cli("models", "list", "--json").stdout.splitlines()]
    assert {"name", "architecture", "context", "path"} == set(rows[0])
    assert str(embedded_model.path) in [row["path"] for row in rows]


@pytest.mark.training
def test_train_and_merge_tell_a_program_what_came_out(files: Files, tiny_model: ModelFolder, cli: RunCli) -> None:
    adapter, merged = files["tmp"] / "tuned", files["tmp"] / "merged"
    words = ("train", "--data", files["run"], "--out", adapter, "--model", tiny_model.path, "--json", "--quiet")
    done = cli(*words, "--max-steps", 2)
    assert (done.returncode, done.stderr) == (0, "")
    told = orjson.loads(done.stdout)
    assert (told["folder"], told["finished"], told["steps"]) == (str(adapter), True, 2)
    assert [step for step, _, _ in told["losses"]] == [1, 2]
    assert told["supervised_tokens"] > told["examples"] >= 5
    again = orjson.loads(cli(*words, "--max-steps", 2).stdout)
    assert again == {name: told[name] for name in ("folder", "finished", "steps", "losses")}
    flags = ("--adapter", adapter, "--out", merged, "--model", tiny_model.path)
    facts = {"folder": str(merged), "adapter": str(adapter), "base": str(tiny_model.path)}
    assert orjson.loads(cli("merge", *flags, "--json").stdout) == facts
    assert (merged / "model.safetensors").exists()


@pytest.mark.parametrize("how", ["-q", "--quiet", "variable"])
def test_quiet_leaves_results_and_errors_alone(how: str, files: Files, cli: RunCli) -> None:
    flags, env = ([], {"SELFINSTRUCT_QUIET": "1"}) if how == "variable" else ([how], {})
    done = cli("export", files["run"], "--out", files["new"], *flags, env=env)
    assert (done.returncode, done.stdout, done.stderr) == (0, f"{files['new']}\n", "")
    failed = cli("export", files["none"], "--out", files["new"], *flags, env=env)
    assert failed.returncode == 2
    assert failed.stderr.startswith("selfinstruct: ")


def test_quiet_writes_nothing_on_a_terminal_either(files: Files) -> None:
    words = ["generate", "--run", files["new"], "--model", files["model"], "--num", "5"]
    assert b"accepted" in stderr_on_a_terminal([*words, "--minutes", "9"])
    assert stderr_on_a_terminal([*words, "--num", "9", "--quiet"]) == b""


def stderr_on_a_terminal(words: list[object]) -> bytes:
    """What a command writes on stderr when that is a terminal."""
    main, side = pty.openpty()
    command = [sys.executable, "-c", textwrap.dedent(SCRIPTED), *map(str, words)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=side) as process:
        os.close(side)
        written = b""
        while True:
            try:
                part = os.read(main, 65536)
            except OSError:  # the other side was closed
                break
            if not part:
                break
            written += part
    os.close(main)
    assert process.returncode == 0, written
    return written


@pytest.fixture
def shell(tmp_path: Path) -> Path:
    """A folder for PATH with a `selfinstruct` of this Python."""
    program = tmp_path / "bin" / "selfinstruct"
    program.parent.mkdir()
    code = "import sys; sys.argv[0] = 'selfinstruct'; from selfinstruct_local.cli import main; main()"
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -c {shlex.quote(code)} "$@"\n')
    program.chmod(0o755)
    return program.parent


@pytest.mark.parametrize(
    ("typed", "wanted"),
    [
        ("tr", ["translate", "train"]),
        ("train --preset ", list(PRESETS)),
        ("train --preset al", ["alpaca-7b"]),
        ("generate --profile self", ["self-instruct", "self-instruct-2022"]),
        ("export runs/a --format s", ["self-instruct", "sharegpt"]),
        ("filter --rules n", ["none"]),
        ("translate --to ", ["en", "zh"]),
        ("config show e", ["eval"]),
        ("generate --qui", ["--quiet"]),
    ],
)
def test_bash_completes(typed: str, wanted: list[str], shell: Path) -> None:
    words = ["selfinstruct", *typed.split(" ")]
    script = (
        'eval "$(selfinstruct --show-completion bash)"\n'
        f"COMP_WORDS=({' '.join(shlex.quote(word) for word in words)}); COMP_CWORD={len(words) - 1}\n"
        '_selfinstruct_completion selfinstruct; printf "%s\\n" "${COMPREPLY[@]}"'
    )
    env = {**os.environ, "PATH": f"{shell}:{os.environ['PATH']}", "_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION": "1"}
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=True, env=env)
    assert sorted(done.stdout.split()) == sorted(wanted), done.stderr


def test_completion_imports_nothing_heavy() -> None:
    code = (
        "import sys; sys.argv = ['selfinstruct']\n"
        "from selfinstruct_local.cli import main\n"
        "try: main()\n"
        "finally: print([m for m in ('torch', 'vllm', 'numba', 'numpy', 'selfinstruct_local.generate.settings')"
        " if m in sys.modules])"
    )
    words = {"COMP_WORDS": "selfinstruct train --preset ", "COMP_CWORD": "3"}
    words["_SELFINSTRUCT_COMPLETE"] = "complete_bash"
    env = {**os.environ, **words}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, env=env)
    assert done.stdout.splitlines() == [*PRESETS, "[]"]


@pytest.mark.parametrize("command", COMMANDS)
def test_a_wrong_option_is_wrong_use(command: str, cli: RunCli) -> None:
    done = cli(*command.split(), "--no-such-option")
    assert (done.returncode, done.stdout) == (2, "")
    assert "No such option: --no-such-option" in done.stderr
    assert len(done.stderr.splitlines()) == 1


# Every command that reads files, with one that is not there.
MISSING = {
    "generate": "--run {new} --model {model} --seeds {none}",
    "serve": "--model {none}",
    "filter": "{none} --out {new}",
    "export": "{none} --out {new}",
    "report": "{none} --out {new}",
    "review make": "{none} --out {new}",
    "review score": "{none}",
    "translate": "--run {none} --to zh --into {new} --model {model}",
    "polish": "--run {none} --into {new} --model {model}",
    "train": "--data {none} --out {new} --model {model}",
    "merge": "--adapter {none} --out {new} --model {model}",
    "chat": "--once Hi --model {none}",
    "eval": "--model {model} --data {none}",
    "runs show": "{none}",
    "runs list": "{none}",
    "runs import": "{none} --run {new}",
    "seeds check": "{none}",
    "seeds import": "{none} --out {new}",
    "models prepare": "{none}",
    "config show": "generate --config {none}",
    "bench filter": "--corpus {none}",
}
READ_NO_FILES = {"profiles", "models list", "demo", "doctor"}


def test_the_table_of_missing_files_names_every_command() -> None:
    assert set(MISSING) | READ_NO_FILES == set(COMMANDS)
    assert not set(MISSING) & READ_NO_FILES


@pytest.mark.parametrize("command", MISSING)
def test_a_missing_file_is_wrong_use(command: str, files: Files, cli: RunCli) -> None:
    done = cli(*command.split(), *words_of(MISSING[command], files))
    assert done.returncode == 2, (done.stdout, done.stderr)
    assert str(files["none"]) in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_a_dry_demo_prints_the_commands_it_would_run(cli: RunCli, tmp_path: Path) -> None:
    done = cli("demo", "--run", tmp_path / "demo", "--dry-run")
    assert done.returncode == 0
    assert [line.split()[1] for line in done.stdout.splitlines()] == [
        "models", "generate", "filter", "train", "chat", "chat",
    ]  # fmt: skip
    assert not (tmp_path / "demo").exists()
