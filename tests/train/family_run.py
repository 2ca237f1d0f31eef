"""Takes one tiny model through every command that a user would, in one process: `python family_run.py MODEL DATA OUT`.

Each command is the real command line, `selfinstruct_local.cli.main`; one process keeps the import of torch from being
paid ten times. The last line of stdout is a JSON object with an entry for each command: exit code, stdout, stderr.
"""

import contextlib
import csv
import io
import json
import os
import signal
import sys
import threading
import time
from pathlib import Path
from typing import Any

from selfinstruct_local import cli

QUESTION = "Name a color."
# Without warm-up the first step learns, so that the loss of the second depends on it.
SETTINGS = {
    "max_steps": 2,
    "batch_size": 2,
    "save_steps": 1,
    "max_length": 256,
    "warmup_ratio": 0.0,
    "learning_rate": 0.01,
}
# As a GPU trains unless told otherwise.
LIKE_A_GPU = {**SETTINGS, "precision": "bf16", "gradient_checkpointing": True}


def call(*arguments: object) -> dict[str, Any]:
    """Exit code, stdout and stderr of one command."""
    out, err = io.StringIO(), io.StringIO()
    sys.argv = ["selfinstruct", *map(str, arguments)]
    code: object = 0
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            cli.main()
        except SystemExit as end:
            code = end.code
    return {"code": code, "out": out.getvalue(), "err": err.getvalue()}


def call_and_stop(out: Path, *arguments: object) -> dict[str, Any]:
    """The same for a training that gets SIGTERM before its first step has ended, so that it stops after it."""
    begun = out / "settings.json"  # written once signals are handled, before the model is loaded

    def stop() -> None:
        while not begun.exists():
            time.sleep(0.001)
        os.kill(os.getpid(), signal.SIGTERM)

    thread = threading.Thread(target=stop, daemon=True)
    thread.start()
    return call(*arguments)


def losses(folder: Path) -> list[float]:
    """Of the steps of a training."""
    with (folder / "loss.csv").open(encoding="utf-8", newline="") as stream:
        return [float(row["loss"]) for row in csv.DictReader(stream)]


def write_settings(file: Path, settings: dict[str, Any]) -> Path:
    """The file, which is written; JSON is YAML."""
    file.write_text(json.dumps(settings), encoding="utf-8")
    return file


def take_through(model: str, data: Path, out: Path) -> dict[str, Any]:
    """Every command in turn; stops at the first whose exit code is another than it should be."""
    done: dict[str, Any] = {}
    exact, half = write_settings(out / "exact.yaml", SETTINGS), write_settings(out / "half.yaml", LIKE_A_GPU)

    def step(name: str, result: dict[str, Any], wanted: tuple[object, ...] = (0, None)) -> None:
        done[name] = result
        if result["code"] not in wanted:
            raise RuntimeError(name)

    with contextlib.suppress(RuntimeError):
        step("doctor", call("doctor", "--model", model, "--out", out, "--json"), wanted=(0, 1))
        for method in ("lora", "full"):
            straight, stopped = out / f"{method}-straight", out / f"{method}-stopped"
            common = ("train", "--model", model, "--data", data, "--method", method, "--config")
            options = (*common, exact)
            step(f"{method} dry run", call(*options, "--dry-run"))
            step(f"{method} straight", call(*options, "--out", straight))
            step(f"{method} stopped", call_and_stop(stopped, *options, "--out", stopped), wanted=(143,))
            done[f"{method} checkpoints"] = sorted(each.name for each in stopped.glob("checkpoint-*"))
            step(f"{method} resumed", call(*options, "--out", stopped))
            done[f"{method} losses"] = [losses(straight), losses(stopped)]
            step(f"{method} like a GPU", call(*common, half, "--out", out / f"{method}-half"))
        ask = ("chat", "--once", QUESTION, "--max-tokens", "8", "--template", "alpaca")
        step("chat adapter", call(*ask, "--adapter", out / "lora-stopped"))
        step("merge", call("merge", "--adapter", out / "lora-stopped", "--out", out / "merged"))
        step("chat merged", call(*ask, "--model", out / "merged"))
        step("chat full", call(*ask, "--model", out / "full-stopped"))
    return done


if __name__ == "__main__":
    sys.stdout.write("\n" + json.dumps(take_through(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]))) + "\n")
