"""False alarms per rule: how many tasks of good data each rule rejects, and how many candidates of a run.

    python benchmarks/bench_rules.py --expert expert_252.jsonl --alpaca alpaca_52k.jsonl --write
    python benchmarks/bench_rules.py runs/one runs/two rejects.jsonl

Each rule is applied to each task separately, so a task may count for several rules. The 175 seeds of each language are
always measured. `--expert` is a file of the 252 expert-written tasks of Self-Instruct's evaluation; from the file of
`--alpaca` a random sample is drawn. Neither is part of the repository. Files may be gzipped. A run counts all of its
candidates, accepted and rejected, except for rejects of the parser, which have no task to check. `--write` puts the
table into docs/concepts/rules.md.
"""

import argparse
import gzip
import random
import re
import shutil
import tempfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from results import table

from selfinstruct_local.errors import UserFacingError
from selfinstruct_local.filters.rules import Rule
from selfinstruct_local.filters.rulesets import PUBLISHED, rule_set
from selfinstruct_local.filters.thresholds import DEFAULT_THRESHOLDS, Thresholds
from selfinstruct_local.io.reader import read_tasks
from selfinstruct_local.languages.base import LANGUAGES
from selfinstruct_local.runs.store import RunStore
from selfinstruct_local.seeds import seed_file
from selfinstruct_local.task import Task

DOCS = Path(__file__).parents[1] / "docs" / "concepts" / "rules.md"
BEGIN, END = "<!-- bench_rules: begin -->", "<!-- bench_rules: end -->"
SAMPLE = 2_000
# For the rule that is off by default: the minimum confidences for magpie's short completions.
LIMITS = DEFAULT_THRESHOLDS._replace(min_confidence=-1.5, min_output_confidence=-0.7)
NAMES = frozenset(rule.name for name in PUBLISHED for rule in rule_set(name))
SETS = ("alpaca", "self-instruct")  # they differ in the words of `unsuitable_word`
OWN, ALL = "own rules together", "all rules together"


@dataclass(frozen=True, slots=True)
class Source:
    """Tasks to measure on: name of the column, language, and the tasks."""

    name: str
    lang: str
    tasks: Sequence[Task]


def rules_of(lang: str, limits: Thresholds = LIMITS) -> dict[str, Rule]:
    """Return every rule of the default rule sets, by the name of its table row."""
    alpaca, other = (rule_set(name, lang, limits) for name in SETS)
    rules = {rule.name: rule for rule in alpaca}
    words = next(rule for rule in other if rule.name == "unsuitable_word")
    return {**rules, f"{words.name} ({SETS[1]})": words}


def default_names(lang: str) -> set[str]:
    """Return the names of the rules that are on by default."""
    return {rule.name for rule in rule_set(SETS[0], lang)}


def measure(source: Source) -> Counter[str]:
    """Return how many tasks each rule rejects separately, and how many our own or all default rules reject together."""
    rules, default = rules_of(source.lang), default_names(source.lang)
    rejected: Counter[str] = Counter()
    for task in source.tasks:
        names = {name for name, rule in rules.items() if rule.refuses(task) is not None}
        rejected.update(names)
        names &= default
        rejected.update([ALL] if names else [])
        rejected.update([OWN] if names - NAMES else [])
    return rejected


def read_file(path: Path) -> list[Task]:
    """Return the tasks of a file, which may be gzipped."""
    if path.suffix != ".gz":
        return read_tasks(path)
    with tempfile.TemporaryDirectory() as folder, gzip.open(path) as packed:
        plain = Path(folder) / path.stem
        with plain.open("wb") as stream:
            shutil.copyfileobj(packed, stream)
        return read_tasks(plain)


def read_source(path: Path, lang: str) -> Source:
    """Return the tasks of a file in the language `lang`, or the candidates of a run in the language of the run."""
    if not path.is_dir():
        return Source(path.name, lang, read_file(path))
    with RunStore(path, read_only=True) as run:
        candidates = [each.task for job in run.ledger() for each in job.decided.candidates]
        return Source(
            f"run {path.name}", run.facts().get("lang", lang), [each for each in candidates if each.instances]
        )


def sample(tasks: Sequence[Task], count: int, seed: int) -> list[Task]:
    """Return `count` random tasks in their original order, or all tasks if there are fewer."""
    numbers = sorted(random.Random(seed).sample(range(len(tasks)), min(count, len(tasks))))  # noqa: S311 - not a secret
    return [tasks[number] for number in numbers]


def share(count: int, total: int) -> str:
    """Return a share as `3 / 252 (1.2 %)`, or `0` if the count is 0."""
    return f"{count:,} / {total:,} ({100 * count / total:.1f} %)" if count else "0"


def rows(sources: Sequence[Source]) -> list[list[str]]:
    """Return the rows of the table, one per rule."""
    measured = [(source, measure(source)) for source in sources]
    by_lang = {lang: rules_of(lang) for lang in LANGUAGES}
    default = set.union(*map(default_names, LANGUAGES))
    found = []
    for name in dict.fromkeys(name for rules in by_lang.values() for name in rules):
        langs = [lang for lang in LANGUAGES if name in by_lang[lang]]
        word = name.partition(" ")[0]
        kind = "published" if word in NAMES else "own" if word in default else "own, off by default"
        cells = [share(counts[name], len(source.tasks)) if source.lang in langs else "-" for source, counts in measured]
        shown = name.replace(word, f"`{word}`", 1)
        found.append([shown, ", ".join(langs), kind, *cells])
    for name in (OWN, ALL):
        cells = [share(counts[name], len(source.tasks)) for source, counts in measured]
        found.append([f"**{name}**", ", ".join(LANGUAGES), "", *cells])
    return found


def write_docs(text: str, path: Path = DOCS) -> None:
    """Replace the text between the markers of a page.

    Raises:
        SystemExit: the page has no markers.
    """
    page = path.read_text(encoding="utf-8")
    pattern = re.compile(f"{re.escape(BEGIN)}.*?{re.escape(END)}", re.DOTALL)
    if not pattern.search(page):
        message = f"{path}: no {BEGIN} ... {END}; add both, on separate lines, where the table belongs"
        raise SystemExit(message)
    path.write_text(pattern.sub(lambda _match: f"{BEGIN}\n\n{text}\n\n{END}", page), encoding="utf-8")


def main() -> None:
    """Parse the options, measure all sources, and print the table or also write it to the docs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sources", nargs="*", type=Path, metavar="FILE|RUN", help="more files of tasks, or run folders")
    parser.add_argument("--expert", type=Path, metavar="FILE", help="the 252 expert-written tasks of Self-Instruct")
    parser.add_argument("--alpaca", type=Path, metavar="FILE", help="records to sample from")
    parser.add_argument("--sample", type=int, default=SAMPLE, help="size of the sample (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="random seed of the sample (default: %(default)s)")
    parser.add_argument("--lang", choices=LANGUAGES, default="en", help="language of the files (default: %(default)s)")
    parser.add_argument("--write", action="store_true", help=f"write the table to {DOCS.name}")
    options = parser.parse_args()
    if options.sample < 1:
        parser.error(f"--sample {options.sample}: must be at least 1")
    sources = []
    try:
        if options.expert:
            sources.append(Source("expert tasks", "en", read_file(options.expert)))
        sources += [Source(f"seeds, {lang}", lang, read_tasks(seed_file(lang))) for lang in LANGUAGES]
        if options.alpaca:
            drawn = sample(read_file(options.alpaca), options.sample, options.seed)
            sources.append(Source("Alpaca sample", "en", drawn))
        sources += [read_source(path, options.lang) for path in options.sources]
    except (UserFacingError, OSError) as error:
        parser.error(str(error))
    empty = [source.name for source in sources if not source.tasks]
    if empty:
        parser.error(f"{empty[0]}: has no tasks to check")
    text = table(("rule", "languages", "source", *(source.name for source in sources)), rows(sources))
    print(text)
    if options.write:
        write_docs(text)


if __name__ == "__main__":
    main()
