"""The command line as a user meets it: fast help, one-line errors before any model loads, exit codes."""

import json
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

from selfinstruct_local.cli import app
from selfinstruct_local.models import ModelFolder
from tests.conftest import RunCli

ROOT = Path(__file__).parents[1]
# Every command there is, as a person types it.
COMMANDS = [str(command.name) for command in app.registered_commands] + [
    f"{group.name} {command.name or str(getattr(command.callback, '__name__', ''))}"
    for group in app.registered_groups
    if group.typer_instance
    for command in group.typer_instance.registered_commands
]


def test_help_answers_at_once_and_imports_nothing_heavy(cli: RunCli) -> None:
    times = []
    for _ in range(5):
        start = time.perf_counter()
        assert cli("--help").returncode == 0
        times.append(time.perf_counter() - start)
    assert min(times) < 0.6

    code = (
        "import sys; sys.argv = ['selfinstruct', '--help']\n"
        "from selfinstruct_local.cli import main\n"
        "try: main()\n"
        "except SystemExit: print([m for m in ('torch', 'vllm', 'numba', 'pydantic') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help_and_stands_in_the_readme(command: str, cli: RunCli) -> None:
    done = cli(*command.split(), "--help")
    assert done.returncode == 0
    assert f"`selfinstruct {command}" in (ROOT / "README.md").read_text(encoding="utf-8")


def test_version(cli: RunCli) -> None:
    assert re.fullmatch(r"selfinstruct-local \d+\.\d+\.\d+\n", cli("--version").stdout)


@pytest.mark.parametrize(
    ("profile", "count", "line"),
    [
        ("self-instruct", 2, r"seeds: 2, .* 3 .*; every prompt .*\n"),
        ("self-instruct", 3, ""),
        ("alpaca-2023", 1, r"seeds: 1, .* 3 .*; every prompt .*\n"),
        ("self-instruct-2022", 7, r"seeds: 7, .* 8 .* until tasks are accepted\n"),
    ],
)
def test_that_there_are_few_seeds_is_said_in_one_line(
    tmp_path: Path, bare_model: Path, cli: RunCli, profile: str, count: int, line: str
) -> None:
    seeds = tmp_path / "seeds.jsonl"
    tasks = [{"instruction": f"Name {number} rivers", "input": "", "output": "Ob"} for number in range(count)]
    seeds.write_text("\n".join(map(json.dumps, tasks)))
    done = cli(
        "generate",
        "--run",
        tmp_path / "run",
        "--model",
        bare_model,
        "--seeds",
        seeds,
        "--profile",
        profile,
        "--dry-run",
    )
    assert done.returncode == 0
    assert re.fullmatch(line, done.stderr)
    assert all(f"Name {number} rivers" in done.stdout for number in range(count))  # the dry run shows the seeds


def test_magpie_says_that_it_shows_no_seed(tmp_path: Path, embedded_model: ModelFolder, cli: RunCli) -> None:
    seeds = tmp_path / "seeds.jsonl"
    seeds.write_text(json.dumps({"instruction": "Name a river", "input": "", "output": "Ob"}))
    command = (
        "generate",
        "--run",
        tmp_path / "run",
        "--model",
        embedded_model.path,
        "--profile",
        "magpie",
        "--dry-run",
    )
    done = cli(*command, "--seeds", seeds)
    assert done.returncode == 0
    (note,) = done.stderr.splitlines()
    assert note.startswith("note: --profile magpie ")
    assert "--seeds" in note
    assert cli(*command).stderr == ""


BAD_USES = {
    # name of the fault: the command line, and what the one line of the answer must hold
    "missing model": ("generate --run {run} --model {tmp}/nowhere", "nowhere: no such folder"),
    "no safetensors": ("generate --run {run} --model {no_weights}", "no *.safetensors"),
    "empty seeds": ("generate --run {run} --model {model} --seeds {empty}", "{empty}: has no task"),
    "torn seeds": ("generate --run {run} --model {model} --seeds {torn}", "{torn}:2: not JSON"),
    "missing seeds": ("generate --run {run} --model {model} --seeds {tmp}/none", "none: no such file"),
    "run not writable": ("generate --run {few}/run --model {model}", "--run {few}/run: the folder cannot be"),
    "value out of range": ("generate --run {run} --model {model} --top-p 0", "--top-p 0.0: "),
    "unknown profile": ("generate --run {run} --model {model} --profile gpt", "--profile gpt: "),
    "not a number": ("generate --run {run} --model {model} --num many", "'--num'"),
    "unknown option": ("generate --run {run} --nmu 5", "No such option: --nmu"),
    "unknown command": ("genrate", "genrate"),
    "context too long": ("generate --run {run} --model {model} --max-model-len 4096", "has a context of 2048 tokens"),
    "missing config": ("generate --run {run} --config {tmp}/c.yaml", "c.yaml: no such file"),
    "train on nothing": ("train --data {empty} --out {tmp}/o --model {model}", "{empty}: has no task"),
    "train out": ("train --data {few} --out {few}/o --model {model}", "--out {few}/o: the folder cannot be"),
    "chat adapter": ("chat --once Hi --model {model} --adapter {tmp}", "no adapter_config.json"),
    "chat template": ("chat --once Hi --model {model} --template x", "alpaca or chat"),
    "name without source": ("models prepare --name mine", "--name mine: needs a SOURCE"),
    "prepare nothing": ("models prepare {tmp}/nowhere", "nowhere: no such file"),
}


@pytest.fixture
def places(tmp_path: Path, bare_model: Path) -> dict[str, Path]:
    """Good and bad files by the names that `BAD_USES` has for them."""
    good = '{"instruction": "Name a river", "input": "", "output": "Nile"}\n'
    texts = {"empty": "", "torn": good + '{"instruction": "Na', "few": good}
    for name, text in texts.items():
        (tmp_path / name).write_text(text)
    no_weights = tmp_path / "no-weights"
    no_weights.mkdir()
    (no_weights / "config.json").write_text('{"architectures": ["LlamaForCausalLM"]}')
    files = {name: tmp_path / name for name in (*texts, "run")}
    return {**files, "tmp": tmp_path, "model": bare_model, "no_weights": no_weights}


@pytest.mark.parametrize("fault", BAD_USES)
def test_bad_use_is_one_line_and_exit_2(fault: str, places: dict[str, Path], cli: RunCli) -> None:
    command, wanted = (text.format(**places) for text in BAD_USES[fault])
    done = cli(*command.split())
    assert done.returncode == 2, done.stderr
    assert wanted in done.stderr
    # One line and nothing before it: no engine started, no model was loaded (the bare one cannot be).
    assert done.stderr.startswith("selfinstruct: ")
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize("closed", ["/proc/run", "/sys/run"])  # nobody may write there, root included
def test_a_folder_nobody_may_write_is_named(closed: str, bare_model: Path, cli: RunCli) -> None:
    done = cli("generate", "--run", closed, "--model", bare_model)
    assert done.returncode == 2
    assert f"--run {closed}: the folder cannot be written to (" in done.stderr


def test_a_reader_that_goes_away_is_no_error(tmp_path: Path) -> None:
    source = tmp_path / "in.jsonl"
    source.write_text('{"instruction": "Name one long river", "output": "Nile"}\n')
    command = f"{sys.executable} -m selfinstruct_local filter {source} --out {tmp_path / 'out'} | true"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=False)
    assert "Traceback" not in done.stderr
