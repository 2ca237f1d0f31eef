"""Verdicts of readers on tasks: shares, agreement, and every task that was read.

    selfinstruct review make RUN ... --sample 50 --per source --out page.html
    python benchmarks/bench_reading.py --title TITLE page.html labels-1.json labels-2.json --note "..." [--write]

Readers see the page, which shows no source. The key file is next to it, as written by `review make`. `--write` puts the
figures into RESULTS.md and the tasks, with each reader's answers, into readings/TITLE.md.
"""

import argparse
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from results import RESULTS, write_section

from selfinstruct_local.report.review.files import QUESTIONS, Key, Labels, read_key, read_labels
from selfinstruct_local.report.review.score import score_review
from selfinstruct_local.report.review.tables import lines

READINGS = RESULTS.with_name("readings")
SAMPLE = re.compile(r'<script type="application/json" id="sample">(.*?)</script>', re.DOTALL)


def main() -> None:
    """Print the report, or write it to RESULTS.md and readings/."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("page", type=Path, help="page of `selfinstruct review make`, with its key next to it")
    parser.add_argument("labels", type=Path, nargs="+", help="label files, one per reader")
    parser.add_argument("--title", required=True, help="title of the section in RESULTS.md")
    parser.add_argument("--note", default="", help="note on the readers and on the origin of the tasks")
    parser.add_argument("--write", action="store_true", help="write RESULTS.md and readings/")
    options = parser.parse_args()
    key_path = options.page.with_suffix(".key.json")
    scores = "\n".join(lines(score_review(options.labels, key_path)))
    name = re.sub(r"\W+", "-", options.title.lower()).strip("-")
    tasks = f"All tasks with the answers: [readings/{name}.md](readings/{name}.md)."
    body = f"{options.note}\n\n```text\n{scores}\n```\n\n{tasks}"
    listing = list_tasks(options.page, read_key(key_path), [read_labels(path) for path in options.labels])
    if options.write:
        READINGS.mkdir(exist_ok=True)
        READINGS.joinpath(f"{name}.md").write_text(f"# {options.title}\n\n{listing}\n", encoding="utf-8")
        write_section(options.title, body)
    else:
        print(f"## {options.title}\n\n{body}\n\n{listing}")


def list_tasks(page: Path, key: Key, readers: Sequence[Labels]) -> str:
    """Return every task of the page with its source and the answers of each reader, as `yyn`."""
    match = SAMPLE.search(page.read_text(encoding="utf-8"))
    if match is None:
        message = f"{page}: not a page of 'selfinstruct review make'"
        raise SystemExit(message)
    items = {item["id"]: item for item in json.loads(match[1])["items"]}
    blocks = []
    for number, item in enumerate(key.items, 1):
        source = Path(key.sources[item.source].name).name
        answers = ", ".join(_answers(reader.answers[item.id]) for reader in readers)
        head = f"**{number}** {source} {item.record}{f' ({item.rule})' if item.rule else ''}: {answers}"
        blocks.append(f"{head}\n\n```text\n{_text(items[item.id])}\n```")
    return "\n\n".join(blocks)


def _answers(answers: Any) -> str:
    return "".join("-" if answers.get(name) is None else "ny"[answers[name]] for name in QUESTIONS)


def _text(item: dict[str, Any]) -> str:
    fields = [("Instruction", item["instruction"]), ("Input", item["input"]), ("Output", item["output"] or "")]
    return "\n".join(f"{name}: {text}" for name, text in fields if text).replace("```", "'''")


if __name__ == "__main__":
    main()
