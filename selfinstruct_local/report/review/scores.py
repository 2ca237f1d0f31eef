"""The scores of labels: shares of yes with their intervals by group of tasks, and the agreement of readers.

Only finished items count: those with answers to all questions that were asked.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any, NamedTuple

from selfinstruct_local.report.review.files import QUESTIONS, Key, KeyItem, Labels, Question

Z = 1.959963984540054  # the 97.5 % quantile of the normal distribution
ALL = "all"
COLUMNS = (*QUESTIONS, ALL)
ALL_READERS = "all readers"

Answers = Mapping[Question, bool]  # of one item


class Share(NamedTuple):
    """The number of tasks with a yes, and the 95 % Wilson interval of their share, in [0, 1]."""

    yes: int
    tasks: int
    low: float
    high: float

    def record(self) -> dict[str, Any]:
        """Return the share as JSON values."""
        return {"share": self.yes / self.tasks, **self._asdict()}


class Kappa(NamedTuple):
    """The agreement of two readers on one question.

    Attributes:
        tasks: number of tasks that both have finished.
        agreed: number of them with the same answer.
        kappa: Cohen's kappa; None if both readers gave one and the same answer to all tasks.
        low: lower bound of its 95 % interval.
        high: upper bound.
    """

    tasks: int
    agreed: int
    kappa: float | None
    low: float | None
    high: float | None


@dataclass(frozen=True, slots=True)
class Group:
    """The shares of a group of items.

    Attributes:
        by: the grouping: `tasks`, `source`, `profile`, `classification`, `input`, `stage` or `rule`.
        name: value of the group.
        shares: by question, and `all`: yes to every question that was asked. A question that was never asked is
            missing.
        rightly_rejected: of rejected tasks, the share that no reader says yes to all of; None for accepted ones.
    """

    by: str
    name: str
    shares: dict[str, Share]
    rightly_rejected: Share | None


@dataclass(frozen=True, slots=True)
class Reading:
    """The labels of a reader.

    Attributes:
        reader: name of the reader.
        finished: answers by item, for finished items.
        unfinished: number of unfinished items.
        notes: notes by item.
        poor: finished items with a no; for several readers, items with a no from each.
    """

    reader: str
    finished: Mapping[str, Answers]
    unfinished: int
    notes: Mapping[str, str]
    poor: frozenset[str]


@dataclass(frozen=True, slots=True)
class Agreement:
    """Two readers, and their agreement per question and on all questions together."""

    readers: tuple[str, str]
    kappas: dict[str, Kappa]


@dataclass(frozen=True, slots=True)
class Disagreement:
    """An item on which readers differ: its number on the page from 1, and each reader's answers and notes."""

    number: int
    id: str
    instruction: str
    answers: dict[str, Answers]
    notes: dict[str, str]


@dataclass(frozen=True, slots=True)
class Scores:
    """The scores of a review.

    Attributes:
        sample: checksum of the sample.
        items: number of items.
        readings: one per reader; for several, also one in which an item has a yes if all of them say yes.
        groups: by reader, in the order of `readings`.
        agreements: one per pair of readers.
        disagreements: in the order of the page.
    """

    sample: str
    items: int
    readings: list[Reading]
    groups: dict[str, list[Group]]
    agreements: list[Agreement]
    disagreements: list[Disagreement]

    def record(self) -> dict[str, Any]:
        """Return the scores as JSON values."""
        return {
            "sample": self.sample,
            "items": self.items,
            "readers": [
                {
                    "reader": each.reader,
                    "finished": len(each.finished),
                    "unfinished": each.unfinished,
                    "groups": [_group_record(group) for group in self.groups[each.reader]],
                }
                for each in self.readings
            ],
            "agreement": [
                {"readers": each.readers, **{name: kappa._asdict() for name, kappa in each.kappas.items()}}
                for each in self.agreements
            ],
            "disagreements": [
                {
                    "number": each.number,
                    "id": each.id,
                    "instruction": each.instruction,
                    "answers": each.answers,
                    "notes": each.notes,
                }
                for each in self.disagreements
            ],
        }


def wilson(yes: int, count: int) -> Share:
    """Return the share of yes with its 95 % score interval (Wilson 1927, JASA 22, 209-212).

    Args:
        yes: number of items with a yes, from 0 to `count`.
        count: number of items, at least one.
    """
    share, square = yes / count, Z * Z
    center = (share + square / (2 * count)) / (1 + square / count)
    half = Z * math.sqrt(share * (1 - share) / count + square / (4 * count * count)) / (1 + square / count)
    # A share of 0 or 1 is itself a bound and must not be changed by rounding.
    return Share(yes, count, 0.0 if yes == 0 else center - half, 1.0 if yes == count else center + half)


def cohens_kappa(pairs: Sequence[tuple[bool, bool]]) -> Kappa:
    """Return Cohen's kappa of two readers (Cohen 1960, Educational and Psychological Measurement 20, 37-46).

    The interval is kappa +- 1.96 standard errors, clipped to [-1, 1], with the large-sample standard error of Fleiss,
    Cohen and Everitt 1969 (Psychological Bulletin 72, 323-327). It is too narrow for few items, and has no width if the
    readers agree on all.

    Args:
        pairs: the answers of both readers, per item.
    """
    count = len(pairs)
    agreed = sum(one == other for one, other in pairs)
    if not count:
        return Kappa(0, 0, None, None, None)
    table = {
        (one, other): sum(pair == (one, other) for pair in pairs) / count
        for one in (False, True)
        for other in (False, True)
    }
    first = {value: table[value, False] + table[value, True] for value in (False, True)}
    second = {value: table[False, value] + table[True, value] for value in (False, True)}
    observed = agreed / count
    expected = sum(first[value] * second[value] for value in (False, True))
    if max(first.values()) == max(second.values()) == 1 and observed == 1:
        return Kappa(count, agreed, None, None, None)
    kappa = (observed - expected) / (1 - expected)
    same = sum(table[value, value] * (1 - (first[value] + second[value]) * (1 - kappa)) ** 2 for value in (False, True))
    other = sum(table[value, not value] * (second[value] + first[not value]) ** 2 for value in (False, True))
    spread = same + (1 - kappa) ** 2 * other - (kappa - expected * (1 - kappa)) ** 2
    half = Z * math.sqrt(max(spread, 0.0) / count) / (1 - expected)
    return Kappa(count, agreed, kappa, max(kappa - half, -1.0), min(kappa + half, 1.0))


def read_reading(labels: Labels, reader: str) -> Reading:
    """Return the finished items of a reader's labels."""
    finished = {
        item: {question: bool(answer) for question, answer in answers.items()}
        for item, answers in labels.answers.items()
        if all(answer is not None for answer in answers.values())
    }
    notes = {item: note for item, note in labels.notes.items() if note.strip()}
    poor = frozenset(item for item, answers in finished.items() if not all(answers.values()))
    return Reading(reader, finished, len(labels.answers) - len(finished), notes, poor)


def make_scores(sample: str, order: Sequence[str], readings: Sequence[Reading], key: Key | None) -> Scores:
    """Return the scores of readings of one sample.

    Args:
        sample: checksum of the sample.
        order: its items, in the order of the page.
        readings: one per reader, with different names.
        key: the origin of the items; None scores only all items together.
    """
    shown = [*readings, _in_common(readings)] if len(readings) > 1 else list(readings)
    return Scores(
        sample=sample,
        items=len(order),
        readings=shown,
        groups={each.reader: list(_groups(each, key)) for each in shown},
        agreements=[_agreement(one, other) for one, other in combinations(readings, 2)],
        disagreements=list(_disagreements(order, readings, key)),
    )


def _in_common(readings: Sequence[Reading]) -> Reading:
    """Return the common reading: a yes if each reader says yes, for items that all have finished."""
    first, *others = readings
    finished = {
        item: {question: all(each.finished[item][question] for each in readings) for question in answers}
        for item, answers in first.finished.items()
        if all(item in each.finished for each in others)
    }
    items = len(first.finished) + first.unfinished
    poor = frozenset.intersection(*(each.poor for each in readings)) & finished.keys()
    return Reading(ALL_READERS, finished, items - len(finished), {}, frozenset(poor))


def _groups(reading: Reading, key: Key | None) -> Iterator[Group]:
    if key is None:
        yield from _grouped(reading, "tasks", [("all", item) for item in reading.finished])
        return
    known = [item for item in key.items if item.id in reading.finished]
    accepted = [item for item in known if not item.rule]
    rejected = [item for item in known if item.rule]
    yield from _grouped(reading, "tasks", [("accepted", item.id) for item in accepted])
    yield from _grouped(reading, "tasks", [("rejected", item.id) for item in rejected], are_rejected=True)
    attributes: tuple[tuple[str, Callable[[KeyItem], str]], ...] = (
        ("source", lambda item: key.sources[item.source].name),
        ("profile", lambda item: item.profile or "not said"),
        ("classification", lambda item: item.classification),
        ("input", lambda item: "yes" if item.with_input else "no"),
    )
    for by, name in attributes:
        yield from _grouped(reading, by, [(name(item), item.id) for item in accepted])
    yield from _grouped(reading, "stage", [(item.stage, item.id) for item in rejected], are_rejected=True)
    yield from _grouped(reading, "rule", [(item.rule, item.id) for item in rejected], are_rejected=True)


def _grouped(
    reading: Reading, by: str, named: Sequence[tuple[str, str]], *, are_rejected: bool = False
) -> Iterator[Group]:
    """Yield the groups of items by name, in alphabetical order."""
    for name in sorted({name for name, _ in named}):
        items = [item for own, item in named if own == name]
        answers = [reading.finished[item] for item in items]
        shares: dict[str, Share] = {
            question: wilson(sum(each[question] for each in asked), len(asked))
            for question in QUESTIONS
            if (asked := [each for each in answers if question in each])
        }
        shares[ALL] = wilson(sum(all(each.values()) for each in answers), len(answers))
        poor = wilson(sum(item in reading.poor for item in items), len(items)) if are_rejected else None
        yield Group(by, name, shares, poor)


def _agreement(one: Reading, other: Reading) -> Agreement:
    both = [(answers, other.finished[item]) for item, answers in one.finished.items() if item in other.finished]
    kappas: dict[str, Kappa] = {
        question: cohens_kappa([(a[question], b[question]) for a, b in both if question in a]) for question in QUESTIONS
    }
    kappas[ALL] = cohens_kappa([(all(a.values()), all(b.values())) for a, b in both])
    return Agreement((one.reader, other.reader), kappas)


def _disagreements(order: Sequence[str], readings: Sequence[Reading], key: Key | None) -> Iterator[Disagreement]:
    items: dict[str, KeyItem] = {item.id: item for item in key.items} if key else {}
    for number, item in enumerate(order, start=1):
        answers = {each.reader: each.finished[item] for each in readings if item in each.finished}
        if any(one != other for one, other in combinations(answers.values(), 2)):
            notes = {each.reader: each.notes[item] for each in readings if item in each.notes}
            yield Disagreement(number, item, items[item].instruction if item in items else "", answers, notes)


def _group_record(group: Group) -> dict[str, Any]:
    record = {"by": group.by, "name": group.name, **{name: share.record() for name, share in group.shares.items()}}
    if group.rightly_rejected:
        record["rightly_rejected"] = group.rightly_rejected.record()
    return record
