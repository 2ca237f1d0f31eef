"""`selfinstruct seeds check`: what is wrong with a file of seeds, record by record and pair by pair.

A fault spoils what is generated from the seeds, or stops the program; a warning is advice. Category, verb, topic and
name are for people and may be left out, as may the ids if no record has one (the program then numbers the seeds).

Leans on: the reader of tasks, the filter's rules, the kernels' ROUGE-L; characters are in text.py, counts in spread.py.
"""

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from selfinstruct_local.errors import UsageError, one_line
from selfinstruct_local.filters.rules import UNSUITABLE
from selfinstruct_local.filters.rulesets import rule_set
from selfinstruct_local.io.reader import Row, read_rows
from selfinstruct_local.io.writer import PARQUET
from selfinstruct_local.kernels import Encoded, encode, rouge_l_matrix
from selfinstruct_local.languages.base import LANGUAGES
from selfinstruct_local.seedfiles.spread import Spread, plain_table, spread_of, spread_rows
from selfinstruct_local.seedfiles.text import PROMPT_MARK, mostly_han, text_faults
from selfinstruct_local.task import Task

MAX_SIMILARITY = 0.7  # above it the novelty filter calls an instruction a near copy
AIM_SIMILARITY = 0.5
OPENING_TOKENS = 3
MAX_OPENING = 4  # seeds that may begin alike
PAIR_BLOCK = 256  # rows of the matrix of all pairs that are held at once
_TEXT_FIELDS = ("name", "category", "verb", "topic")


class Finding(NamedTuple):
    """One thing to mend.

    Attributes:
        line: line of the file, or position in an array or table; 0 for the file as a whole.
        what: what is wrong.
        mend: what to do about it.
    """

    line: int
    what: str
    mend: str


class Pair(NamedTuple):
    """Two instructions by their lines, and their ROUGE-L F under the `unicode` tokenizer."""

    score: float
    lines: tuple[int, int]


@dataclass(slots=True)
class SeedCheck:
    """All that was found in a file of seeds.

    Attributes:
        path: the file.
        lang: `en` or `zh`: whose rules were asked.
        spread: the counts.
        faults: what must be mended, in the order of the file.
        warnings: what might be better.
        nearest: the two instructions that are most alike; None for fewer than two seeds.
        pairs_above_aim: pairs of instructions whose ROUGE-L is above `AIM_SIMILARITY`.
        most_alike_openings: the three words that most instructions begin with, and how many do.
    """

    path: Path
    lang: str
    spread: Spread
    faults: list[Finding] = field(default_factory=list)
    warnings: list[Finding] = field(default_factory=list)
    nearest: Pair | None = None
    pairs_above_aim: int = 0
    most_alike_openings: tuple[str, int] = ("", 0)

    def lines(self) -> list[str]:
        """The report: a line for each finding, then the table."""
        faults = [f"{self._place(each.line)}: {each.what}; {each.mend}" for each in self.faults]
        warnings = [f"{self._place(each.line)}: warning: {each.what}; {each.mend}" for each in self.warnings]
        return [*map(one_line, faults), *map(one_line, warnings), plain_table(self.rows())]

    def rows(self) -> list[tuple[str, str]]:
        """The rows of the table: the pairs, then the spread."""
        first, *spread = spread_rows(self.spread)
        rows = [first, ("language", self.lang)]
        if self.nearest:
            one, other = self.nearest.lines
            rows.append(("most alike", f"ROUGE-L {self.nearest.score:.2f}, {_unit(self.path)}s {one} and {other}"))
        rows.append((f"pairs above {AIM_SIMILARITY}", str(self.pairs_above_aim)))
        opening, count = self.most_alike_openings
        rows.append(("same opening", f"{count} at most, as '{one_line(opening)}'" if count > 1 else "none"))
        return [*rows, *spread]

    def as_record(self) -> dict[str, Any]:
        """The same as plain values, for JSON."""
        record = asdict(self)
        findings = {name: [each._asdict() for each in record[name]] for name in ("faults", "warnings")}
        nearest = self.nearest._asdict() if self.nearest else None
        return {**record, **findings, "path": str(self.path), "nearest": nearest}

    def _place(self, line: int) -> str:
        if not line:
            return str(self.path)
        return f"{self.path}: record {line}" if _unit(self.path) == "record" else f"{self.path}:{line}"


def _unit(path: Path) -> str:
    """What a position in the file counts."""
    return "record" if path.suffix in {".json", PARQUET} else "line"


def check_language(lang: str | None) -> None:
    """Refuses a language without rules.

    Raises:
        UsageError: there are none for `lang`.
    """
    if lang is not None and lang not in LANGUAGES:
        message = f"--lang {lang}: one of {', '.join(LANGUAGES)}"
        raise UsageError(message)


def check_seeds(path: Path, lang: str | None = None, *, unfinished: bool = False) -> SeedCheck:
    """Checks a file of seeds.

    Args:
        path: any file of tasks that the program reads.
        lang: `en` or `zh`; None finds it from the instructions.
        unfinished: whether outputs may be empty, because they are still to be filled in.

    Raises:
        UsageError: the file cannot be read or holds no record, or there are no rules for `lang`.
    """
    check_language(lang)
    rows, unreadable = _read(path)
    lang = lang or ("zh" if mostly_han("".join(row.task.instruction for row in rows)) else "en")
    check = SeedCheck(path, lang, spread_of(rows, lang), faults=unreadable)
    check.faults += _id_faults(rows, _unit(path))
    for row in rows:
        check.faults += _record_faults(row, unfinished=unfinished)
        check.faults += _rule_faults(row, lang)
        check.warnings += _format_warnings(row)
    encoded = encode([row.task.instruction for row in rows], "unicode")
    _compare_pairs(check, rows, encoded)
    _compare_openings(check, rows, encoded)
    check.faults.sort(key=lambda finding: finding.line)
    check.warnings.sort(key=lambda finding: finding.line)
    return check


def _read(path: Path) -> tuple[list[Row], list[Finding]]:
    """The rows that can be read, and what is wrong with the others."""
    skipped: list[str] = []
    try:
        rows = list(read_rows(path, skipped=skipped))
    except UsageError:
        if not skipped:
            raise
        rows = []
    place = re.compile(re.escape(str(path)) + r"(?:: record |:)(\d+): ")
    findings = []
    for message in skipped:
        match = place.match(message)
        line, what = (int(match[1]), message[match.end() :]) if match else (0, message)
        findings.append(Finding(line, what, "mend the record or take it out"))
    return rows, findings


def _id_faults(rows: Sequence[Row], unit: str) -> Iterator[Finding]:
    first: dict[str, int] = {}
    some = any(row.task.id for row in rows)
    for row in rows:
        name = row.task.id
        if not name and some:
            yield Finding(row.number, "has no id, though other seeds have one", "give it one")
        elif name in first:
            yield Finding(row.number, f"{unit} {first[name]} has the id {name!r} too", "give one of them another")
        elif name:
            first[name] = row.number


def _record_faults(row: Row, *, unfinished: bool) -> Iterator[Finding]:
    """Faults of the fields and texts of one record."""
    number, record, task = row
    for name in _TEXT_FIELDS:
        if not isinstance(record.get(name), str | None):
            yield Finding(number, f"the field {name!r} is no text", "put it in quotation marks or leave it out")
    if not task.instruction.strip():
        yield Finding(number, "the instruction is empty", "say what is asked")
    if not task.instances:
        yield Finding(number, "has no instance", "add a worked case with its output")
    for label, text in _texts(task):
        if label.startswith("output") and not text.strip() and not unfinished:
            yield Finding(number, f"the {label} is empty", "write the answer the model shall learn from")
            continue
        for what, mend in text_faults(text):
            yield Finding(number, f"the {label} {what}", mend)


def _rule_faults(row: Row, lang: str) -> Iterator[Finding]:
    """What the filter would refuse; each rule once, whichever set it stands in."""
    if not row.task.instruction.strip():
        return
    refused: dict[str, str] = {}
    for name in UNSUITABLE:
        for rule in rule_set(name, lang):
            detail = rule.refuses(row.task)
            if detail is not None and rule.name != "empty_output":  # said already, and of which output
                refused.setdefault(rule.name, detail)
    for name, detail in refused.items():
        what = f"the filter's rule {name} refuses it ({detail})"
        yield Finding(row.number, what, "reword it, for what a model writes after it is thrown away")


def _format_warnings(row: Row) -> Iterator[Finding]:
    """What goes ill with the form of the prompts."""
    if "\n" in row.task.instruction.strip():
        yield Finding(row.number, "the instruction has several lines", "write it on one line")
    for label, text in _texts(row.task):
        mark = PROMPT_MARK.search(text)
        if mark:
            yield Finding(row.number, f"the {label} holds {mark[0].strip()!r}, a mark of the prompts", "say it without")


def _texts(task: Task) -> Iterator[tuple[str, str]]:
    """The texts of a task and what to call them."""
    yield "instruction", task.instruction
    for number, instance in enumerate(task.instances, start=1):
        which = f" of instance {number}" if len(task.instances) > 1 else ""
        yield f"input{which}", instance.input
        yield f"output{which}", instance.output


def _compare_pairs(check: SeedCheck, rows: Sequence[Row], encoded: Encoded) -> None:
    """Compares each instruction with all before it; O(n^2) pairs, a block of rows at a time."""
    for start in range(0, len(rows), PAIR_BLOCK):
        stop = min(start + PAIR_BLOCK, len(rows))
        scores = rouge_l_matrix(encoded.block(start, stop), encoded.block(0, stop))
        scores[np.arange(stop) >= np.arange(start, stop)[:, None]] = -1.0
        check.pairs_above_aim += int((scores > AIM_SIMILARITY).sum())
        for number, other in enumerate(scores.argmax(axis=1).tolist(), start=start):
            pair = Pair(float(scores[number - start, other]), (rows[other].number, rows[number].number))
            if pair.score >= 0 and (check.nearest is None or pair.score > check.nearest.score):
                check.nearest = pair
            if pair.score > MAX_SIMILARITY:
                original = f"{_unit(check.path)} {pair.lines[0]}"
                what = f"the instruction is a near copy of {original} (ROUGE-L {pair.score:.2f})"
                same = rows[other].task.instruction.strip() == rows[number].task.instruction.strip()
                mend = f"put its case into the instances of {original}" if same else "ask for something else"
                check.faults.append(Finding(pair.lines[1], what, f"{mend}, or take it out"))
    if check.pairs_above_aim and check.nearest:
        what = (
            f"{check.pairs_above_aim} pair(s) of instructions have a ROUGE-L above {AIM_SIMILARITY}, "
            f"the highest {check.nearest.score:.2f}"
        )
        check.warnings.append(Finding(0, what, "the more they differ, the more will come of them"))


def _compare_openings(check: SeedCheck, rows: Sequence[Row], encoded: Encoded) -> None:
    openings = [" ".join(encoded.row(number)[:OPENING_TOKENS]) for number in range(len(rows))]
    for opening, count in Counter(openings).most_common():
        check.most_alike_openings = max(check.most_alike_openings, (opening, count), key=lambda each: each[1])
        if count > MAX_OPENING:
            places = ", ".join(str(row.number) for row, each in zip(rows, openings, strict=True) if each == opening)
            what = f"{count} instructions begin with {opening!r} ({_unit(check.path)}s {places})"
            check.warnings.append(Finding(0, what, "begin some of them otherwise"))
