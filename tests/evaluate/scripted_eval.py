"""`selfinstruct eval` with a scripted engine in a child process; `test_eval_command.py` starts it.

Its engine takes half a second a batch, so that a signal finds it at work.
"""

import sys
from functools import partial
from pathlib import Path

from selfinstruct_local import cli
from selfinstruct_local.engines.process import EngineProcess
from selfinstruct_local.engines.suspects import DeathRecord
from selfinstruct_local.generate import launch
from selfinstruct_local.generate.settings import GenerateSettings
from tests.scripted_engine import ScriptedEngine

LATENCY = 0.5


def start(
    model: launch.ChosenModel, settings: GenerateSettings, log: Path, deaths: DeathRecord | None = None
) -> EngineProcess:
    """Stands for `launch`."""
    make_engine = partial(ScriptedEngine, latency=LATENCY)
    engine = EngineProcess(make_engine, settings.engine, {"engine": "scripted"}, log, deaths)
    sys.stderr.write(f"engine {engine.pid} of {model.folder}\n")
    return engine


if __name__ == "__main__":
    launch.launch = start
    cli.main()
