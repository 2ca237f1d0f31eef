"""The card of an exported data set: what it is, what made it and how it was chosen, as a README that hubs read.

The YAML header has the fields of Hugging Face's dataset cards (huggingface.co/docs/hub/datasets-cards). All figures
come from the run's database; nothing is said that is not there.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from selfinstruct_local import __version__
from selfinstruct_local.export.formats import PLAIN_FORMATS, regen
from selfinstruct_local.files import checksum, replace_atomically
from selfinstruct_local.markdown import escaped, pairs_table
from selfinstruct_local.store import RunStore

MARK = "<!-- made by selfinstruct export -->"
NAME = "README.md"
UNKNOWN = "unknown"
# Hugging Face's steps of `size_categories`.
_SIZES = ((1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (1_000_000, "100K<n<1M"))
_WARNING = (
    "Instructions, inputs and outputs were written by a language model and chosen by rules; no person has checked "
    "them. They may be wrong, biased or unsafe, as what the model writes may be."
)
_LICENCE = (
    "The header says unknown because a program cannot tell: what the model wrote is under the terms of the model "
    "({model}), and the seeds shown to it have a licence of their own (those of selfinstruct-local are CC0). Read "
    "both, then set the field."
)
_NOT_SETTINGS = {"model_path", "model_fingerprint", "adapter_fingerprint", "prompts_fingerprint", "seeds_fingerprint"}


def write_card(store: RunStore, file: Path, format_: str, records: int) -> Path:
    """Writes the card of `file` beside it.

    It is README.md, which is where hubs look; where a README.md lies that is somebody's own, the card takes the file's
    name before it.

    Args:
        store: the run that was exported.
        file: the whole export.
        format_: its format.
        records: how many it holds.
    """
    path = file.with_name(NAME)
    if path.exists() and MARK not in path.read_text(encoding="utf-8", errors="replace"):
        path = file.with_name(f"{file.stem}-{NAME}")
    with replace_atomically(path) as stream:
        stream.write(make_card(store, file, format_, records).encode())
    return path


def make_card(store: RunStore, file: Path, format_: str, records: int) -> str:
    """The text of a card; takes what `write_card` takes."""
    facts, totals = store.facts(), store.totals()
    lang = str(facts.get("lang", "en"))
    header = {
        "language": [lang],
        "license": UNKNOWN,
        "task_categories": ["text-generation"],
        "tags": ["instruction-tuning", "synthetic", "self-instruct"],
        "size_categories": [next((name for bound, name in _SIZES if records < bound), "n>1M")],
        "configs": [{"config_name": "default", "data_files": file.name}],
    }
    described = (PLAIN_FORMATS.get(format_, regen).__doc__ or "").splitlines()[0]
    counts = (
        f"{totals.jobs:,} jobs, {totals.completions:,} completions, {totals.completion_tokens:,} generated tokens; "
        f"{totals.accepted:,} tasks accepted, {totals.inherited:,} of them taken over from elsewhere."
    )
    parts = [
        f"---\n{yaml.safe_dump(header, allow_unicode=True, sort_keys=False)}---",
        MARK,
        f"# {escaped(file.stem)}",
        f"{records:,} records in `{escaped(file.name)}` (SHA-256 `{checksum(file)}`), format {format_}: {described}",
        _WARNING,
        "## What made it",
        pairs_table(("", ""), _makers(store, facts)),
        "## Settings that decided",
        pairs_table(("setting", "value"), [(name, facts[name]) for name in sorted(facts) if name not in _NOT_SETTINGS]),
        "## What was turned away",
        counts,
        pairs_table(("rule", "candidates"), [(rule, f"{count:,}") for rule, count in totals.rejected.items()]),
        "## Licence",
        _LICENCE.format(model=escaped(_name_of_model(facts))),
    ]
    return "\n\n".join(parts) + "\n"


def _makers(store: RunStore, facts: Mapping[str, Any]) -> list[tuple[str, object]]:
    rows: list[tuple[str, object]] = [
        ("program", f"selfinstruct-local {__version__}"),
        ("model", _name_of_model(facts)),
        ("model's checksum", facts.get("model_fingerprint", UNKNOWN)),
        ("adapter's checksum", facts.get("adapter_fingerprint") or "none"),
        ("prompts' checksum", facts.get("prompts_fingerprint", UNKNOWN)),
        ("seeds", f"{len(store.seeds())}, checksum {facts.get('seeds_fingerprint', UNKNOWN)}"),
    ]
    for session in store.sessions():
        versions = ", ".join(f"{name} {value}" for name, value in session.engine.items() if name != "model")
        rows.append((f"start {session.number}", f"{session.started_at}, {versions}"))
    return rows


def _name_of_model(facts: Mapping[str, Any]) -> str:
    # The folder alone: where it lies is nobody's business.
    return Path(str(facts.get("model_path") or UNKNOWN)).name
