"""Memory that runs out for real: the address space of a training is limited once its model stands."""

import subprocess
import sys
from pathlib import Path

import pytest

from selfinstruct_local.models import ModelFolder

pytestmark = pytest.mark.training
# The head's logits alone take 32 x 450 tokens x 49,152 x 4 bytes = 2.8 GB, and are allowed 0.5 GB.
PROGRAM = """
import resource, sys
from pathlib import Path
from transformers import TrainerCallback
from selfinstruct_local.errors import OutOfMemoryError
from selfinstruct_local.models import find_model
from selfinstruct_local.train.data import build_examples
from selfinstruct_local.train.folder import open_folder
from selfinstruct_local.train.settings import TrainSettings
from selfinstruct_local.train.sources import TrainingSample
from selfinstruct_local.train.trainer import load_tokenizer, train
from selfinstruct_local.templates.turns import Turn

class Limit(TrainerCallback):
    def on_train_begin(self, args, state, control, **kwargs):
        taken = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (taken + (500 << 20),) * 2)

model = find_model(sys.argv[1])
settings = TrainSettings(method="full", batch_size=32, batching="padded", learning_rate=1e-3)
samples = [TrainingSample((Turn("user", "Say it."), Turn("assistant", " it" * 400))) for _ in range(32)]
data = build_examples(samples, load_tokenizer(model), settings)
out = Path(sys.argv[2])
try:
    train(data, model, open_folder(out, data, model, settings), settings, callbacks=[Limit()])
except OutOfMemoryError as error:
    print(error)
"""


def test_memory_that_runs_out_in_a_step_names_the_flags(tiny_model: ModelFolder, tmp_path: Path) -> None:
    command = [sys.executable, "-c", PROGRAM, str(tiny_model.path), str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    (line,) = done.stdout.splitlines()
    assert line.startswith("memory ran out (")
    assert "--batch-size 16 --gradient-accumulation 2, or --gradient-checkpointing" in line
    assert "--method lora" in line
