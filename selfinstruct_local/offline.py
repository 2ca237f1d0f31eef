"""Environment variables that disable the network access of every dependency that has any.

`go_offline` is called before any heavy import, because these libraries read the variables when they are imported. It
overrides the user's own values: a lab that wants telemetry can run vLLM itself.
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
    """Set the variables for this process and its child processes."""
    os.environ.update(SWITCHES)
