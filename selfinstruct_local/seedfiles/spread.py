"""Statistics of a seed file as numbers and as tables: categories, root verbs, lengths, instances, classification."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

from selfinstruct_local.errors import one_line
from selfinstruct_local.io.reader import Row

COMMONEST = 10


@dataclass(frozen=True, slots=True)
class Spread:
    """Statistics of a seed file.

    Attributes:
        seeds: number of seeds.
        classification: number of seeds marked as classification.
        empty_input: number of seeds without an input in any instance.
        instances: number of seeds by number of instances.
        length_unit: `words`, or `characters` for Chinese.
        length: (shortest, median, longest) length of the instructions; zeros without seeds.
        verbs: number of seeds by root verb, for seeds that have the field, most common first.
        categories: number of seeds by category, likewise.
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
    """Return the statistics of the seeds in `rows`, which are in the language `lang`."""
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
    """Return the number of seeds by the value of a text field, most common first, ties by name."""
    counts = Counter(value for row in rows if isinstance(value := row.record.get(field), str) and value)
    return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))


def spread_rows(spread: Spread) -> list[tuple[str, str]]:
    """Return the rows of the table: (what is counted, count)."""
    shortest, middle, longest = spread.length
    instances = ", ".join(f"{seeds} with {count}" for count, seeds in spread.instances.items())
    rows = [
        ("seeds", str(spread.seeds)),
        ("classification", _share(spread.classification, spread.seeds)),
        ("empty input", _share(spread.empty_input, spread.seeds)),
        ("instances", instances),
        (f"{spread.length_unit} per instruction", f"{shortest} to {longest}, median {middle:g}"),
        ("root verbs", _distinct(spread.verbs, "verb")),
    ]
    commonest = [f"{one_line(name)} {count}" for name, count in list(spread.verbs.items())[:COMMONEST]]
    if commonest:
        rows.append(("most common verbs", ", ".join(commonest)))
    rows.append(("categories", _distinct(spread.categories, "category")))
    return rows + [(f"  {one_line(name)}", str(count)) for name, count in spread.categories.items()]


def _share(count: int, total: int) -> str:
    return f"{count} ({count / max(total, 1):.0%})"


def _distinct(counts: dict[str, int], field: str) -> str:
    return str(len(counts)) if counts else f"no seed has the field '{field}' (it is optional)"


def plain_table(rows: Sequence[tuple[str, str]]) -> str:
    """Return the rows as two columns of plain text."""
    width = max(len(name) for name, _ in rows)
    return "\n".join(f"{name:<{width}}  {value}" for name, value in rows)


def markdown_table(title: str, rows: Sequence[tuple[str, str]]) -> str:
    """Return the rows as a Markdown table with the heading `title`."""
    lines = [f"| {title} | |", "| --- | --- |"]
    for row in rows:
        name, value = (cell.strip().replace("|", r"\|") for cell in row)
        lines.append(f"| {name} | {value} |")
    return "\n".join(lines)
