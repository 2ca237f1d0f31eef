"""`import selfinstruct_local as si`: what a notebook calls."""

import subprocess
import sys
from pathlib import Path

import pytest

import selfinstruct_local as si
from selfinstruct_local.seeds import seed_file
from selfinstruct_local.task import Task
from tests.kernels.oracles import SOAK
from tests.scripted_server import ScriptedServer

ROOT = Path(__file__).parents[1]


def test_every_name_is_there_and_nothing_heavy_is_loaded_before_it_is_used() -> None:
    code = (
        "import sys, selfinstruct_local as si\n"
        "heavy = {'torch', 'numba', 'pydantic', 'vllm', 'transformers'}\n"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)\n"
        "print(all(getattr(si, name) for name in si.__all__))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "True"
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        _ = si.nothing


def test_tasks_are_read_and_filtered_as_the_command_does(tmp_path: Path) -> None:
    tasks = si.load_tasks(seed_file())
    copy = tasks[3]._replace(instruction=tasks[3].instruction + " Please.")
    short = Task.single("Hi", "", "Hello.")
    kept, rejected = si.filter_tasks([copy, short, *tasks[:3]], against=tasks[3:], rules="alpaca")
    assert kept == [task for task in tasks[:3] if task in kept]
    assert {verdict.rule for task, verdict in rejected if task in (copy, short)} == {"not_novel", "too_short"}
    with pytest.raises(ValueError, match="no rules 'none of these'"):
        si.filter_tasks(tasks, rules="none of these")
    with pytest.raises(si.UserFacingError, match="no such file"):
        si.load_tasks(tmp_path / "nothing.json")


def test_a_setting_that_is_none_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match="no such setting: nums; see GenerateSettings"):
        si.generate_tasks(tmp_path / "run", nums=3)
    with pytest.raises(TypeError, match="no such setting: epoch; see TrainSettings"):
        si.train_model([seed_file()], tmp_path / "out", epoch=3)
    assert not any(tmp_path.iterdir())


def test_servers_answer_a_notebook_as_they_do_the_command(tmp_path: Path) -> None:
    with ScriptedServer() as server:
        made = si.generate_tasks(tmp_path / "run", endpoint=[server.url], num=3, in_flight=4)
        assert (made.reason, len(made.tasks) >= 3) == ("done", True)
        with pytest.raises(si.UserFacingError, match="serves scripted, not stranger"):
            si.generate_tasks(tmp_path / "other", model="stranger", endpoint=[server.url])


@pytest.mark.training
def test_the_example_script_runs(tmp_path: Path) -> None:
    script = ROOT / "docs/examples/first_steps.py"
    done = subprocess.run(
        [sys.executable, script, tmp_path, "--steps", "2"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert "rejected" in lines[0]
    assert ": not_novel, ROUGE-L " in lines[0]
    assert (tmp_path / "report.html").stat().st_size > 100_000
    assert lines[2].endswith("in 2 steps")


@pytest.mark.engine
@pytest.mark.skipif(not SOAK, reason="starts vLLM once more: make soak (the command's tests do in make test)")
def test_tasks_are_generated_and_the_same_call_goes_on(tmp_path: Path) -> None:
    made = si.generate_tasks(tmp_path / "run", num=2, in_flight=8)
    assert made.reason == "done"
    assert len(made.tasks) >= 2
    assert si.load_tasks(tmp_path / "run") == made.tasks
    assert si.generate_tasks(tmp_path / "run", num=2, in_flight=8).tasks == made.tasks
