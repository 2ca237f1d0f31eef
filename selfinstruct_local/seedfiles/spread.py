"""How the seeds of a file are spread: over categories, verbs, openings, lengths and kinds; as numbers and as tables.

Leans on the reader of tasks.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

from selfinstruct_local.errors import one_line
from selfinstruct_local.io.reader import Row

COMMONEST = 10


@dataclass(frozen=True, slots=True)
class Spread:
    """The counts of a file of seeds.

    Attributes:
        seeds: how many there are.
        classification: seeds that say they are classification.
        empty_input: seeds of which no instance has an input.
        instances: number of seeds by their number of instances.
        length_unit: `words`, or `characters` for Chinese.
        length: of the instructions: shortest, median, longest; zeros when there are none.
        verbs: seeds by root verb, for those that have the field, commonest first.
        categories: the same by category.
    """

    seeds: int
    classification: int
    empty_input: int
    instances: dict[int, int]
    length_unit: str
    length: tuple[int, float, int]
    verbs: dict[str, int]
    categories: dict[str, int]


def spread_of(rows: Sequence[Row], lang: str) -> Spread:
    """Counts the seeds of `rows`, whose language is `lang`."""
    tasks = [row.task for row in rows]
    lengths = [len(task.instruction) if lang == "zh" else len(task.instruction.split()) for task in tasks] or [0]
    return Spread(
        seeds=len(tasks),
        classification=sum(task.is_classification is True for task in tasks),
        empty_input=sum(not any(instance.input for instance in task.instances) for task in tasks),
        instances=dict(sorted(Counter(len(task.instances) for task in tasks).items())),
        length_unit="characters" if lang == "zh" else "words",
        length=(min(lengths), median(lengths), max(lengths)),
        verbs=_counted(rows, "verb"),
        categories=_counted(rows, "category"),
    )


def _counted(rows: Sequence[Row], field: str) -> dict[str, int]:
    """Seeds by the value of a text field; the commonest first, equal ones by name."""
    counts = Counter(value for row in rows if isinstance(value := row.record.get(field), str) and value)
    return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))


def spread_rows(spread: Spread) -> list[tuple[str, str]]:
    """The rows of the table: what is counted, and the count."""
    shortest, middle, longest = spread.length
    instances = ", ".join(f"{seeds} with {count}" for count, seeds in spread.instances.items())
    rows = [
        ("seeds", str(spread.seeds)),
        ("classification", _share(spread.classification, spread.seeds)),
        ("empty input", _share(spread.empty_input, spread.seeds)),
        ("instances", instances),
        (f"{spread.length_unit} of an instruction", f"{shortest} to {longest}, median {middle:g}"),
        ("root verbs", _distinct(spread.verbs, "verb")),
    ]
    commonest = [f"{one_line(name)} {count}" for name, count in list(spread.verbs.items())[:COMMONEST]]
    if commonest:
        rows.append(("commonest verbs", ", ".join(commonest)))
    rows.append(("categories", _distinct(spread.categories, "category")))
    return rows + [(f"  {one_line(name)}", str(count)) for name, count in spread.categories.items()]


def _share(count: int, total: int) -> str:
    return f"{count} ({count / max(total, 1):.0%})"


def _distinct(counts: dict[str, int], field: str) -> str:
    return str(len(counts)) if counts else f"no seed has the field '{field}' (it may be left out)"


def plain_table(rows: Sequence[tuple[str, str]]) -> str:
    """The rows as two columns of text."""
    width = max(len(name) for name, _ in rows)
    return "\n".join(f"{name:<{width}}  {value}" for name, value in rows)


def markdown_table(title: str, rows: Sequence[tuple[str, str]]) -> str:
    """The rows as a Markdown table under `title`."""
    lines = [f"| {title} | |", "| --- | --- |"]
    for row in rows:
        name, value = (cell.strip().replace("|", r"\|") for cell in row)
        lines.append(f"| {name} | {value} |")
    return "\n".join(lines)
