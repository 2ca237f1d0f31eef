"""`selfinstruct seeds check`: faults and warnings of a seed file, per record and per pair of records.

A fault degrades what is generated from the seeds, or stops the program; a warning is advice. Category, verb, topic and
name are for human readers and optional. The ids are optional too if no record has one; the program then numbers the
seeds.
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

MAX_SIMILARITY = 0.7  # ROUGE-L F above which the novelty filter rejects an instruction as a near copy
AIM_SIMILARITY = 0.5
OPENING_TOKENS = 3
MAX_OPENING = 4  # maximum number of seeds with the same opening
PAIR_BLOCK = 256  # rows of the score matrix in memory at once
_TEXT_FIELDS = ("name", "category", "verb", "topic")


class SeedFinding(NamedTuple):
    """One fault or warning.

    Attributes:
        line: line of the file, or position in an array or table; 0 for the file as a whole.
        what: what is wrong.
        mend: the fix.
    """

    line: int
    what: str
    mend: str


class SimilarSeeds(NamedTuple):
    """The lines of two instructions, and their ROUGE-L F with the `unicode` tokenizer."""

    score: float
    lines: tuple[int, int]


@dataclass(slots=True)
class SeedCheck:
    """The result of checking a seed file.

    Attributes:
        path: the seed file.
        lang: `en` or `zh`, the language of the rules.
        spread: statistics of the seeds.
        faults: faults, in file order.
        warnings: warnings, in file order.
        nearest: the two most similar instructions; None for fewer than two seeds.
        pairs_above_aim: number of pairs of instructions with ROUGE-L above `AIM_SIMILARITY`.
        most_alike_openings: the most common first `OPENING_TOKENS` tokens of an instruction, and their count.
    """

    path: Path
    lang: str
    spread: Spread
    faults: list[SeedFinding] = field(default_factory=list)
    warnings: list[SeedFinding] = field(default_factory=list)
    nearest: SimilarSeeds | None = None
    pairs_above_aim: int = 0
    most_alike_openings: tuple[str, int] = ("", 0)

    def lines(self) -> list[str]:
        """Return the report: one line per finding, then the table."""
        faults = [f"{self._place(each.line)}: {each.what}; {each.mend}" for each in self.faults]
        warnings = [f"{self._place(each.line)}: warning: {each.what}; {each.mend}" for each in self.warnings]
        return [*map(one_line, faults), *map(one_line, warnings), plain_table(self.rows())]

    def rows(self) -> list[tuple[str, str]]:
        """Return the rows of the table: pairs and openings, then the statistics."""
        first, *spread = spread_rows(self.spread)
        rows = [first, ("language", self.lang)]
        if self.nearest:
            one, other = self.nearest.lines
            rows.append(("most similar", f"ROUGE-L {self.nearest.score:.2f}, {_unit(self.path)}s {one} and {other}"))
        rows.append((f"pairs above {AIM_SIMILARITY}", str(self.pairs_above_aim)))
        opening, count = self.most_alike_openings
        rows.append(("same opening", f"{count} at most, as '{one_line(opening)}'" if count > 1 else "none"))
        return [*rows, *spread]

    def as_record(self) -> dict[str, Any]:
        """Return the same as plain values, for JSON."""
        record = asdict(self)
        findings = {name: [each._asdict() for each in record[name]] for name in ("faults", "warnings")}
        nearest = self.nearest._asdict() if self.nearest else None
        return {**record, **findings, "path": str(self.path), "nearest": nearest}

    def _place(self, line: int) -> str:
        if not line:
            return str(self.path)
        return f"{self.path}: record {line}" if _unit(self.path) == "record" else f"{self.path}:{line}"


def _unit(path: Path) -> str:
    """Return what positions in the file count: `record` or `line`."""
    return "record" if path.suffix in {".json", PARQUET} else "line"


def check_language(lang: str | None) -> None:
    """Raise UsageError if there are no rules for a language.

    Raises:
        UsageError: there are no rules for `lang`.
    """
    if lang is not None and lang not in LANGUAGES:
        message = f"--lang {lang}: unknown language; use one of {', '.join(LANGUAGES)}"
        raise UsageError(message)


def check_seeds(path: Path, lang: str | None = None, *, unfinished: bool = False) -> SeedCheck:
    """Return the faults, warnings and statistics of a seed file.

    Args:
        path: a task file in any supported format.
        lang: `en` or `zh`; None detects it from the instructions.
        unfinished: whether outputs may be empty, to be filled in later.

    Raises:
        UsageError: the file cannot be read or has no records, or there are no rules for `lang`.
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


def _read(path: Path) -> tuple[list[Row], list[SeedFinding]]:
    """Return the readable rows, and a finding for each other record."""
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
        findings.append(SeedFinding(line, what, "fix or remove the record"))
    return rows, findings


def _id_faults(rows: Sequence[Row], unit: str) -> Iterator[SeedFinding]:
    first: dict[str, int] = {}
    some = any(row.task.id for row in rows)
    for row in rows:
        name = row.task.id
        if not name and some:
            yield SeedFinding(row.number, "has no id, but other seeds have one", "add an id")
        elif name in first:
            yield SeedFinding(row.number, f"{unit} {first[name]} has the id {name!r} too", "change one of them")
        elif name:
            first[name] = row.number


def _record_faults(row: Row, *, unfinished: bool) -> Iterator[SeedFinding]:
    """Yield the faults in the fields and texts of one record."""
    number, record, task = row
    for name in _TEXT_FIELDS:
        if not isinstance(record.get(name), str | None):
            yield SeedFinding(number, f"the field {name!r} is not a string", "put it in quotation marks or remove it")
    if not task.instruction.strip():
        yield SeedFinding(number, "the instruction is empty", "write the instruction")
    if not task.instances:
        yield SeedFinding(number, "has no instance", "add an instance with its output")
    for label, text in _texts(task):
        if label.startswith("output") and not text.strip() and not unfinished:
            yield SeedFinding(number, f"the {label} is empty", "write the output that the model should imitate")
            continue
        for what, mend in text_faults(text):
            yield SeedFinding(number, f"the {label} {what}", mend)


def _rule_faults(row: Row, lang: str) -> Iterator[SeedFinding]:
    """Yield a finding for each filter rule that rejects the task; once per rule, even if several sets have it."""
    if not row.task.instruction.strip():
        return
    refused: dict[str, str] = {}
    for name in UNSUITABLE:
        for rule in rule_set(name, lang):
            detail = rule.refuses(row.task)
            if detail is not None and rule.name != "empty_output":  # reported already, with the output's number
                refused.setdefault(rule.name, detail)
    for name, detail in refused.items():
        what = f"the filter rule {name} rejects it ({detail})"
        yield SeedFinding(row.number, what, "reword it; the filter would also reject tasks that imitate it")


def _format_warnings(row: Row) -> Iterator[SeedFinding]:
    """Yield warnings about texts that conflict with the format of the prompts."""
    if "\n" in row.task.instruction.strip():
        yield SeedFinding(row.number, "the instruction has several lines", "write it on one line")
    for label, text in _texts(row.task):
        mark = PROMPT_MARK.search(text)
        if mark:
            yield SeedFinding(
                row.number, f"the {label} has {mark[0].strip()!r}, a mark of the prompts", "remove the mark"
            )


def _texts(task: Task) -> Iterator[tuple[str, str]]:
    """Yield (label, text) of the instruction and of each input and output of a task."""
    yield "instruction", task.instruction
    for number, instance in enumerate(task.instances, start=1):
        which = f" of instance {number}" if len(task.instances) > 1 else ""
        yield f"input{which}", instance.input
        yield f"output{which}", instance.output


def _compare_pairs(check: SeedCheck, rows: Sequence[Row], encoded: Encoded) -> None:
    """Compare each instruction with all earlier ones: O(n^2) pairs, one block of rows at a time."""
    for start in range(0, len(rows), PAIR_BLOCK):
        stop = min(start + PAIR_BLOCK, len(rows))
        scores = rouge_l_matrix(encoded.block(start, stop), encoded.block(0, stop))
        scores[np.arange(stop) >= np.arange(start, stop)[:, None]] = -1.0
        check.pairs_above_aim += int((scores > AIM_SIMILARITY).sum())
        for number, other in enumerate(scores.argmax(axis=1).tolist(), start=start):
            pair = SimilarSeeds(float(scores[number - start, other]), (rows[other].number, rows[number].number))
            if pair.score >= 0 and (check.nearest is None or pair.score > check.nearest.score):
                check.nearest = pair
            if pair.score > MAX_SIMILARITY:
                original = f"{_unit(check.path)} {pair.lines[0]}"
                what = f"the instruction is a near copy of {original} (ROUGE-L {pair.score:.2f})"
                same = rows[other].task.instruction.strip() == rows[number].task.instruction.strip()
                mend = f"move its instance to the instances of {original}" if same else "write a different instruction"
                check.faults.append(SeedFinding(pair.lines[1], what, f"{mend}, or remove it"))
    if check.pairs_above_aim and check.nearest:
        what = (
            f"{check.pairs_above_aim} pair(s) of instructions have a ROUGE-L above {AIM_SIMILARITY}, "
            f"the highest is {check.nearest.score:.2f}"
        )
        check.warnings.append(SeedFinding(0, what, "more diverse seeds give more diverse tasks"))


def _compare_openings(check: SeedCheck, rows: Sequence[Row], encoded: Encoded) -> None:
    openings = [" ".join(encoded.row(number)[:OPENING_TOKENS]) for number in range(len(rows))]
    for opening, count in Counter(openings).most_common():
        check.most_alike_openings = max(check.most_alike_openings, (opening, count), key=lambda each: each[1])
        if count > MAX_OPENING:
            places = ", ".join(str(row.number) for row, each in zip(rows, openings, strict=True) if each == opening)
            what = f"{count} instructions begin with {opening!r} ({_unit(check.path)}s {places})"
            check.warnings.append(SeedFinding(0, what, "reword the beginning of some"))
