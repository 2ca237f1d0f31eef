"""Instruction-tuning data from a local model, and fine-tuning on it.

    import selfinstruct_local as si

    seeds = si.load_tasks("seeds.jsonl")
    kept, rejected = si.filter_tasks(si.load_tasks("alpaca.json"), against=seeds)

The names below are those of `api.py`. They are imported on first use, so that `selfinstruct --help` is fast.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from selfinstruct_local.api import (
        Filtered,
        Generated,
        filter_tasks,
        generate_tasks,
        load_tasks,
        make_report,
        make_review,
        score_review,
        train_model,
    )
    from selfinstruct_local.errors import UserFacingError
    from selfinstruct_local.task import Instance, Lineage, Task, Verdict

__version__ = "0.1.0"
__all__ = [
    "Filtered",
    "Generated",
    "Instance",
    "Lineage",
    "Task",
    "UserFacingError",
    "Verdict",
    "filter_tasks",
    "generate_tasks",
    "load_tasks",
    "make_report",
    "make_review",
    "score_review",
    "train_model",
]
_MODULES = {"UserFacingError": "errors", **dict.fromkeys(("Instance", "Lineage", "Task", "Verdict"), "task")}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        message = f"module 'selfinstruct_local' has no attribute '{name}'"
        raise AttributeError(message)
    return getattr(import_module(f"selfinstruct_local.{_MODULES.get(name, 'api')}"), name)
