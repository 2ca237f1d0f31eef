"""Holds the plan's memory against a real training: LLaMA of two sizes on a CPU, in full and with LoRA.

Each is trained for three steps in a process of its own, which reports its peak over what stood before the model.
"""

import os
import subprocess
import sys
from typing import Any

import orjson
import pytest
from transformers import LlamaConfig

from selfinstruct_local.train.plan import make_plan
from selfinstruct_local.train.settings import TrainSettings
from tests.kernels.oracles import SOAK

pytestmark = pytest.mark.training

SMALL = {"hidden_size": 512, "intermediate_size": 1408, "num_hidden_layers": 8, "num_attention_heads": 8}
WIDE = {"hidden_size": 768, "intermediate_size": 2048, "num_hidden_layers": 4, "num_attention_heads": 12}
VOCABULARY = 16_000
EXAMPLES = [160, 96, 192, 64]  # tokens of each; one row of 512
SUPERVISED = [60, 40, 90, 30]
LONG = pytest.mark.skipif(not SOAK, reason="one more setting: in `make soak`")
CASES = [
    pytest.param(SMALL, {"method": "full"}, id="full-small"),
    pytest.param(WIDE, {"method": "full"}, id="full-wide"),
    pytest.param(SMALL, {"method": "lora"}, id="lora-small"),
    pytest.param(WIDE, {"method": "lora"}, id="lora-wide"),
    pytest.param(SMALL, {"method": "lora", "lora_dropout": 0.0}, id="lora-without-dropout", marks=LONG),
    pytest.param(SMALL, {"method": "full", "gradient_checkpointing": True}, id="full-checkpointed", marks=LONG),
    pytest.param(WIDE, {"method": "full", "gradient_accumulation": 2}, id="full-accumulated", marks=LONG),
]

# A small model first: libraries load code and take buffers with the first step, which are not the model's.
TRAIN = """
import sys
import orjson, torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM, LlamaConfig

def status(name):
    with open("/proc/self/status") as stream:
        return next(int(line.split()[1]) * 1024 for line in stream if line.startswith(name + ":"))

def train(config, job):
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(LlamaConfig(**config), dtype=torch.float32)
    settings = job["settings"]
    if settings["method"] == "lora":
        model = get_peft_model(model, LoraConfig(
            r=settings["lora_r"], lora_dropout=settings["lora_dropout"], target_modules="all-linear",
            task_type="CAUSAL_LM",
        ))
    if settings["gradient_checkpointing"]:
        model.gradient_checkpointing_enable()
    model.train()
    optimizer = torch.optim.AdamW([each for each in model.parameters() if each.requires_grad], lr=1e-4, fused=True)
    starts = [sum(job["examples"][:each]) for each in range(len(job["examples"]))]
    row = torch.randint(0, config["vocab_size"], (1, sum(job["examples"])))
    positions = torch.cat([torch.arange(length) for length in job["examples"]])[None]
    # The last tokens of each example carry loss; the position before each predicts it.
    keep = torch.cat([
        torch.arange(start + length - loss - 1, start + length - 1)
        for start, length, loss in zip(starts, job["examples"], job["supervised"])
    ])

    def loss():
        out = model(input_ids=row, position_ids=positions, use_cache=False, logits_to_keep=keep)
        return torch.nn.functional.cross_entropy(out.logits[0].float(), row[0, keep + 1])

    for _ in range(3):
        for _ in range(settings["gradient_accumulation"]):
            loss().backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()

job = orjson.loads(sys.argv[1])
train({**job["config"], "hidden_size": 48, "intermediate_size": 64, "num_hidden_layers": 1, "vocab_size": 512}, job)
before = status("VmRSS")
with open("/proc/self/clear_refs", "w") as stream:
    stream.write("5")  # the peak is counted anew from here
train(job["config"], job)
print(status("VmHWM") - before)
"""


def _measured_peak(config: dict[str, int], settings: TrainSettings) -> int:
    job = {"config": config, "settings": settings.model_dump(), "examples": EXAMPLES, "supervised": SUPERVISED}
    # One thread and one arena; what is 128 KiB or larger is mapped, and goes back to the system when it is freed. By
    # default glibc raises that limit to 32 MiB as a program runs, and what is kept then depends on the order of frees.
    quiet = {"OMP_NUM_THREADS": "1", "MALLOC_ARENA_MAX": "1", "MALLOC_MMAP_THRESHOLD_": str(128 * 1024)}
    done = subprocess.run(
        [sys.executable, "-c", TRAIN, orjson.dumps(job).decode()],
        env={**os.environ, **quiet, "HF_HUB_OFFLINE": "1", "CUDA_VISIBLE_DEVICES": ""},
        capture_output=True,
        text=True,
        check=True,
    )
    return int(done.stdout.split()[-1])


@pytest.mark.parametrize(("size", "changes"), CASES)
def test_predicted_peak_is_within_15_percent(size: dict[str, int], changes: dict[str, Any]) -> None:
    # Half as many heads of keys as of queries, as newer models have them.
    config = {**size, "num_key_value_heads": size["num_attention_heads"] // 2, "vocab_size": VOCABULARY}
    common = {"precision": "fp32", "gradient_checkpointing": False, "batch_size": len(EXAMPLES)}
    settings = TrainSettings.model_validate({**common, **changes})
    measured = _measured_peak(config, settings)
    predicted = make_plan(
        LlamaConfig.from_dict(config),
        settings,
        tokens_per_example=EXAMPLES,
        supervised_tokens=SUPERVISED,
        examples=len(EXAMPLES),
        devices=1,
        on_gpu=False,
    ).memory
    told = f"predicted {predicted.total >> 20} MiB, measured {measured >> 20} MiB: {predicted}"
    assert predicted.total == pytest.approx(measured, rel=0.15), told
    print(told)  # noqa: T201 - pytest -rP shows it
