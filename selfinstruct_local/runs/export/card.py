"""The card of an exported data set: what it is, what made it and how it was chosen, as a README that hubs read.

The YAML header has the fields of Hugging Face's dataset cards (huggingface.co/docs/hub/datasets-cards). All figures
come from the run's database; nothing is said that is not there.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from selfinstruct_local import __version__
from selfinstruct_local.io.files import checksum, replace_atomically
from selfinstruct_local.io.markdown import escaped, pairs_table
from selfinstruct_local.runs.export.formats import PLAIN_FORMATS, regen
from selfinstruct_local.runs.store import RunStore
from selfinstruct_local.runs.store.review import RunReview, read_review

MARK = "<!-- made by selfinstruct export -->"
NAME = "README.md"
UNKNOWN = "unknown"
# Hugging Face's steps of `size_categories`.
_SIZES = ((1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (1_000_000, "100K<n<1M"))
_WARNING = (
    "Instructions, inputs and outputs were written by a language model and chosen by rules; {checked}. They may be "
    "wrong, biased or unsafe, as what the model writes may be."
)
_REVIEWED = (
    "Readers answered three questions per task of a random sample, without seeing the source. A task has a yes where "
    "every reader says yes; shares are of the tasks read, with 95 % Wilson intervals."
)
_LICENCE = (
    "The header says unknown because a program cannot tell: what was written is under the terms of the model that "
    "wrote it ({models}), and the seeds shown to it have a licence of their own (those of selfinstruct-local are "
    "CC0). Read them all, then set the field."
)
_NOT_SETTINGS = {
    "model_path",
    "model_fingerprint",
    "adapter_fingerprint",
    "prompts_fingerprint",
    "prompt_texts",
    "seeds_fingerprint",
    "source_run",
    "source_makers",
}
_HEADER = re.compile(r"---\n(.*?)^---$", re.DOTALL | re.MULTILINE)


def write_card(store: RunStore, file: Path, format_: str, records: int) -> Path:
    """Writes the card of `file` beside it.

    It is README.md, which is where hubs look; where a README.md lies that is somebody's own or the card of another
    file, the card takes the file's name before it.

    Args:
        store: the run that was exported.
        file: the whole export.
        format_: its format.
        records: how many it holds.
    """
    path = file.with_name(NAME)
    if path.exists() and not _is_free(path, file):
        path = file.with_name(f"{file.stem}-{NAME}")
    with replace_atomically(path) as stream:
        stream.write(make_card(store, file, format_, records).encode())
    return path


def make_card(store: RunStore, file: Path, format_: str, records: int) -> str:
    """The text of a card; takes what `write_card` takes.

    Raises:
        UsageError: the run's review cannot be read.
    """
    review = read_review(store.folder)
    facts, totals = store.facts(), store.totals()
    sources = facts.get("source_makers", [])  # of a run that rewrote another's tasks
    languages = [facts.get("lang", "en"), *(source["lang"] for source in sources)]
    models = [_name_of_model(facts), *(source["model"] for source in sources)]
    header = {
        "language": [str(lang) for lang in dict.fromkeys(languages) if lang],
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
        _WARNING.format(checked="readers checked a sample only" if review else "no person has checked them"),
        *_review_parts(review),
        "## What made it",
        pairs_table(("", ""), _makers(store, facts)),
        "## Settings that decided",
        pairs_table(("setting", "value"), [(name, facts[name]) for name in sorted(facts) if name not in _NOT_SETTINGS]),
        "## What was turned away",
        counts,
        pairs_table(("rule", "candidates"), [(rule, f"{count:,}") for rule, count in totals.rejected.items()]),
        "## Licence",
        _LICENCE.format(models=", ".join(map(escaped, dict.fromkeys(models)))),
    ]
    return "\n\n".join(parts) + "\n"


def _review_parts(review: RunReview | None) -> list[str]:
    return ["## Review", _REVIEWED, pairs_table(("", ""), review.rows())] if review else []


def _is_free(card: Path, file: Path) -> bool:
    """Whether a README.md may be written over: it is the card of this file, or of one that is there no more."""
    text = card.read_text(encoding="utf-8", errors="replace")
    if MARK not in text:
        return False
    header = _HEADER.match(text)
    try:
        described = yaml.safe_load(header[1])["configs"][0]["data_files"] if header else None
    except (yaml.YAMLError, LookupError, TypeError):  # written into by somebody; the mark says it is a card
        return True
    return described == file.name or not isinstance(described, str) or not card.with_name(described).exists()


def _makers(store: RunStore, facts: Mapping[str, Any]) -> list[tuple[str, object]]:
    rows: list[tuple[str, object]] = [
        ("program", f"selfinstruct-local {__version__}"),
        ("model", _name_of_model(facts)),
        ("model's checksum", facts.get("model_fingerprint", UNKNOWN)),
        ("adapter's checksum", facts.get("adapter_fingerprint") or "none"),
        *(row for source in facts.get("source_makers", []) for row in _source_rows(source)),
        ("prompts' checksum", facts.get("prompts_fingerprint", UNKNOWN)),
        ("user's own prompts", _own_prompts(facts)),
        ("seeds", f"{len(store.seeds())}, checksum {facts.get('seeds_fingerprint', UNKNOWN)}"),
    ]
    for session in store.sessions():
        versions = ", ".join(f"{name} {value}" for name, value in session.engine.items() if name != "model")
        rows.append((f"start {session.number}", f"{session.started_at}, {versions}"))
    return rows


def _source_rows(source: Mapping[str, Any]) -> list[tuple[str, object]]:
    return [
        ("model of the source tasks", source["model"]),
        ("its checksum", source["model_fingerprint"] or UNKNOWN),
        ("its adapter's checksum", source["adapter_fingerprint"] or "none"),
        ("its user's own prompts", ", ".join(source.get("own_prompts", [])) or "none"),
    ]


def _own_prompts(facts: Mapping[str, Any]) -> str:
    return ", ".join(name for name, each in facts.get("prompt_texts", {}).items() if each["own"]) or "none"


def _name_of_model(facts: Mapping[str, Any]) -> str:
    # The folder alone: where it lies is nobody's business.
    return Path(str(facts.get("model_path") or UNKNOWN)).name
