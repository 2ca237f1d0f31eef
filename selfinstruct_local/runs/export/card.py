"""The data set card of an export: contents, origin and filters, as a README for data set hubs.

The YAML header has the fields of Hugging Face's dataset cards (huggingface.co/docs/hub/datasets-cards). All facts come
from the run's database.
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
# Hugging Face's `size_categories` with their upper bounds.
_SIZES = ((1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (1_000_000, "100K<n<1M"))
_WARNING = (
    "A language model wrote the instructions, inputs and outputs, and rules selected them; {checked}. They can be "
    "wrong, biased or unsafe, like any text of the model."
)
_REVIEWED = (
    "Readers answered three questions per task of a random sample, without seeing the source. A task counts as yes if "
    "every reader says yes; shares are of the tasks read, with 95 % Wilson intervals."
)
_LICENCE = (
    "The header says unknown because a program cannot decide it: the texts are under the terms of the model that "
    "wrote them ({models}), and the seeds in its prompts have their own licence (those of selfinstruct-local are "
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
    """Write the card of `file` next to it and return its path.

    The card is README.md, which hubs display. If there already is a README.md that is not a card, or that is the card
    of another file, the card is named FILE-README.md.

    Args:
        store: the exported run.
        file: the complete export.
        format_: name of its format.
        records: number of its records.
    """
    path = file.with_name(NAME)
    if path.exists() and not _is_free(path, file):
        path = file.with_name(f"{file.stem}-{NAME}")
    with replace_atomically(path) as stream:
        stream.write(make_card(store, file, format_, records).encode())
    return path


def make_card(store: RunStore, file: Path, format_: str, records: int) -> str:
    """Return the text of a card; arguments as in `write_card`.

    Raises:
        UsageError: the run's review cannot be read.
    """
    review = read_review(store.folder)
    facts, totals = store.facts(), store.totals()
    sources = facts.get("source_makers", [])  # in a run that rewrote the tasks of another
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
        f"{totals.accepted:,} tasks accepted, {totals.inherited:,} of them inherited from other runs or files."
    )
    parts = [
        f"---\n{yaml.safe_dump(header, allow_unicode=True, sort_keys=False)}---",
        MARK,
        f"# {escaped(file.stem)}",
        f"{records:,} records in `{escaped(file.name)}` (SHA-256 `{checksum(file)}`), format {format_}: {described}",
        _WARNING.format(checked="readers checked only a sample" if review else "no person has checked them"),
        *_review_parts(review),
        "## Origin",
        pairs_table(("", ""), _makers(store, facts)),
        "## Deciding settings",
        pairs_table(("setting", "value"), [(name, facts[name]) for name in sorted(facts) if name not in _NOT_SETTINGS]),
        "## Rejected candidates",
        counts,
        pairs_table(("rule", "candidates"), [(rule, f"{count:,}") for rule, count in totals.rejected.items()]),
        "## Licence",
        _LICENCE.format(models=", ".join(map(escaped, dict.fromkeys(models)))),
    ]
    return "\n\n".join(parts) + "\n"


def _review_parts(review: RunReview | None) -> list[str]:
    return ["## Review", _REVIEWED, pairs_table(("", ""), review.rows())] if review else []


def _is_free(card: Path, file: Path) -> bool:
    """Return whether a README.md can be overwritten: it is the card of this file, or of a file that is gone."""
    text = card.read_text(encoding="utf-8", errors="replace")
    if MARK not in text:
        return False
    header = _HEADER.match(text)
    try:
        described = yaml.safe_load(header[1])["configs"][0]["data_files"] if header else None
    except (yaml.YAMLError, LookupError, TypeError):  # edited by the user; the mark shows that it is a card
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
        rows.append((f"session {session.number}", f"{session.started_at}, {versions}"))
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
    # Only the folder's name: its path is private.
    return Path(str(facts.get("model_path") or UNKNOWN)).name
