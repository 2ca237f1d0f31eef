"""Offline is a property: the switches of every dependency that could reach for the network, set off.

`go_offline` is called before any heavy import, because these libraries read their switches when they
are imported. A user's own setting of the same variable is overruled: a lab that wants telemetry can
run vLLM itself.
"""

import os

SWITCHES = {
    "HF_HUB_OFFLINE": "1",
    "HF_DATASETS_OFFLINE": "1",
    "TRANSFORMERS_OFFLINE": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "VLLM_NO_USAGE_STATS": "1",
    "VLLM_DO_NOT_TRACK": "1",
    "DO_NOT_TRACK": "1",
    "WANDB_MODE": "disabled",
    "RAY_USAGE_STATS_ENABLED": "0",
    "TOKENIZERS_PARALLELISM": "false",
}


def go_offline() -> None:
    """Sets the switches in this process and, through the environment, in all that it starts."""
    os.environ.update(SWITCHES)
