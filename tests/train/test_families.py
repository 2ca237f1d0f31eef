"""Models of many families go through doctor, train, resume, merge and chat: tiny random ones, by the command line.

A process per family (see `family_run.py`). Four of them run in `make test`, all of them in `make soak`. The table in
docs/concepts/families.md says what this measures.
"""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from selfinstruct_local.models import prepare_pickle
from selfinstruct_local.models.folder import NO_LIMIT, check_model_folder
from tests.kernels.oracles import SOAK
from tests.train.tiny_models import FAMILIES, make_family

ROOT = Path(__file__).parents[2]
# Untied head, rope scaling and pickle shards; tied head and tokenizer.model alone; experts; a vision tower beside text.
QUICK = ("llama", "llama-tied", "mixtral", "gemma3")
TRIED = [
    pytest.param(name, marks=() if name in QUICK else pytest.mark.skipif(not SOAK, reason="in `make soak`"))
    for name in FAMILIES
]
COMMANDS = {
    "doctor",
    *(f"{method} {what}" for method in ("lora", "full") for what in ("dry run", "straight", "stopped", "resumed")),
    *(f"{method} like a GPU" for method in ("lora", "full")),
    "chat adapter",
    "merge",
    "chat merged",
    "chat full",
}


def _task(number: int) -> dict[str, str]:
    return {
        "instruction": f"Name {number} colors.",
        "input": "" if number % 2 else "the sea",
        "output": "Red, green and blue." + " Water boils." * (number % 3),
    }


def _take_through(model: Path | str, folder: Path) -> dict[str, Any]:
    """What each command of `family_run.py` gave."""
    data, out = folder / "tasks.jsonl", folder / "out"
    data.write_text("\n".join(json.dumps(_task(number)) for number in range(8)), encoding="utf-8")
    out.mkdir()
    done = subprocess.run(
        [sys.executable, "-m", "tests.train.family_run", str(model), str(data), str(out)],
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""},
    )
    assert done.returncode == 0, done.stderr[-2000:]
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


@pytest.mark.training
@pytest.mark.parametrize("family", TRIED)
def test_a_family_passes_every_command(family: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SELFINSTRUCT_CACHE", str(tmp_path / "cache"))
    model = make_family(family, tmp_path / family)
    if FAMILIES[family].weights == "pickle":
        model = prepare_pickle(model).path
    done = _take_through(model, tmp_path)
    last = next(reversed(done))
    assert set(done) >= COMMANDS, f"{last}: {done[last]}"
    assert "Traceback" not in json.dumps(done)

    findings = {each["check"]: each for each in json.loads(done["doctor"]["out"])["findings"]}
    assert all(findings[name]["status"] == "ok" for name in ("weights", "tokenizer", "loading", "training")), findings

    assert "LoRA on " in done["lora dry run"]["out"] + done["lora dry run"]["err"]
    out = tmp_path / "out"
    for method, weights in (("lora", "adapter_model.safetensors"), ("full", "model.safetensors")):
        # Stopped in the middle, and the same as never stopped, to the bit: losses and weights.
        assert done[f"{method} checkpoints"] == ["checkpoint-1"]
        straight, resumed = done[f"{method} losses"]
        assert len(straight) == 2
        assert resumed == straight
        one, two = (out / f"{method}-{how}" / weights for how in ("straight", "stopped"))
        assert one.read_bytes() == two.read_bytes()
    assert done["chat merged"]["out"] == done["chat adapter"]["out"]


@pytest.mark.parametrize("family", FAMILIES)
def test_a_family_has_the_context_that_it_was_made_with(family: str, tmp_path: Path) -> None:
    folder = make_family(family, tmp_path)
    if FAMILIES[family].weights == "pickle":
        (folder / "model.safetensors").write_bytes(b"not read here")
    made = {"mamba": NO_LIMIT, "bloom": NO_LIMIT, "falcon": 2048}  # the last is what its class says
    assert check_model_folder(folder).context == made.get(family, 512)
    names = {each.name for each in folder.iterdir()}
    assert ("tokenizer.json" in names) != ("tokenizer.model" in names)


def test_the_families_of_the_docs_are_those_that_are_tried() -> None:
    text = (ROOT / "docs" / "concepts" / "families.md").read_text(encoding="utf-8")
    rows = [line.split("|")[1].strip(" `") for line in text.splitlines() if line.startswith("| `")]
    assert rows == list(FAMILIES)
