"""Model card (README.md) of a fine-tuned model: its data, settings and losses.

Replaces the card that PEFT writes, whose fields are empty. All numbers come from the training itself.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from selfinstruct_local.io.files import replace_atomically
from selfinstruct_local.io.markdown import escaped, pairs_table
from selfinstruct_local.train.result import TrainingResult

NAME = "README.md"
_ASKING = {
    "alpaca": "It was trained with Stanford Alpaca's prompt template; use exactly the same prompt for inference. "
    "`selfinstruct chat` does so, and the template is in `selfinstruct_local/templates/alpaca.py`.",
    "chat": "It was trained with the chat template of its base model, which is included in this folder.",
}


def write_card(folder: Path, facts: Mapping[str, Any], result: TrainingResult) -> None:
    """Write README.md.

    Args:
        folder: folder of the model or the adapter.
        facts: content of `training.json`.
        result: result of a finished training.
    """
    with replace_atomically(folder / NAME) as stream:
        stream.write(make_card(folder.name, facts, result).encode())


def make_card(name: str, facts: Mapping[str, Any], result: TrainingResult) -> str:
    """Return the card's text for a folder named `name`; the other arguments are those of `write_card`."""
    base = Path(str(facts["base_model"])).name
    settings = facts["settings"]
    is_adapter = settings["method"] != "full"
    header = {
        "library_name": "peft" if is_adapter else "transformers",
        "pipeline_tag": "text-generation",
        "license": "unknown",
        "tags": ["instruction-tuning", *(["lora"] if is_adapter else [])],
    }
    losses = " -> ".join(f"{loss:.3f}" for loss in result.epoch_losses)
    held_out = " -> ".join(f"{loss:.3f}" for _, loss in result.validation)
    made: list[tuple[str, object]] = [
        ("program", f"selfinstruct-local {facts['version']}"),
        ("base", base),
        ("base's checksum", facts["base_model_fingerprint"]),
        ("examples", f"{facts['examples']:,}, with {facts['supervised_tokens']:,} trainable tokens"),
        ("dropped", ", ".join(f"{count} {why}" for why, count in facts["dropped"].items()) or "none"),
        ("examples' checksum", facts["data_sha256"]),
        ("optimizer steps", f"{len(result.losses):,} of {facts['examples_a_step']} examples"),
        ("mean loss by epoch", losses),
        *([("held-out loss by epoch", held_out)] if held_out else []),
    ]
    what = f"{'LoRA adapter for' if is_adapter else 'Full fine-tune of'} {escaped(base)}, tuned to follow instructions."
    parts = [
        f"---\n{yaml.safe_dump(header, sort_keys=False)}---",
        f"# {escaped(name)}",
        f"{what} {_ASKING[settings['template']]}",
        pairs_table(("", ""), made),
        "## Settings",
        pairs_table(("setting", "value"), settings.items()),
        "## Licence",
        "The licences of the base model and the data apply; the header says unknown, as no program can determine it.",
    ]
    return "\n\n".join(parts) + "\n"
