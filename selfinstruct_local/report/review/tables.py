"""The scores of a review as lines for a terminal."""

from collections.abc import Iterator, Sequence

from selfinstruct_local.errors import one_line
from selfinstruct_local.report.review.files import QUESTIONS
from selfinstruct_local.report.review.scores import (
    ALL,
    ALL_READERS,
    COLUMNS,
    Agreement,
    Answers,
    Disagreement,
    Group,
    Kappa,
    Reading,
    Scores,
    Share,
)

_NONE = "-"
_HEADS = {"input": "with input", "tasks": ""}
_INSTRUCTION = 60  # shown characters of an instruction


def lines(scores: Scores) -> list[str]:
    """Return all scores: a table per reader, then the agreement and the items on which readers differ."""
    found = [f"{scores.items} tasks, sample {scores.sample[:8]}; shares of yes with 95 % Wilson intervals"]
    for reading in scores.readings:
        found += ["", _heading(reading), *_table(list(_rows(scores.groups[reading.reader])))]
    for agreement in scores.agreements:
        found += ["", f"Cohen's kappa of {' and '.join(map(one_line, agreement.readers))}"]
        found += _table(list(_kappa_rows(agreement)))
    if scores.agreements:
        found += ["", f"{len(scores.disagreements)} tasks on which readers differ"]
        found += [_difference(each) for each in scores.disagreements]
    return found


def _heading(reading: Reading) -> str:
    what = f"{one_line(reading.reader)}: {len(reading.finished)} tasks finished"
    if reading.unfinished:
        what += f", {reading.unfinished} unfinished and not counted"
    return f"{what}; yes where each reader says yes" if reading.reader == ALL_READERS else what


def _rows(groups: Sequence[Group]) -> Iterator[list[str]]:
    are_rejected = any(group.rightly_rejected for group in groups)
    yield ["", "tasks", *QUESTIONS, "all three", *(["rightly rejected"] if are_rejected else [])]
    sizes: dict[str, int] = {}
    for group in groups:
        sizes[group.by] = sizes.get(group.by, 0) + 1
    for group in groups:
        if group.by not in {"tasks", "rule"} and sizes[group.by] == 1:
            continue  # the same as all tasks
        head = _HEADS.get(group.by, group.by)
        cells = [_share(group.shares.get(column)) for column in COLUMNS]
        cells += [_share(group.rightly_rejected)] if are_rejected else []
        yield [f"{head}: {one_line(group.name)}" if head else group.name, str(group.shares[ALL].tasks), *cells]


def _kappa_rows(agreement: Agreement) -> Iterator[list[str]]:
    yield ["", "tasks", "same answer", "kappa", "95 % interval"]
    for question, each in agreement.kappas.items():
        if each.tasks:
            name = "all three" if question == ALL else question
            yield [name, str(each.tasks), f"{each.agreed / each.tasks:.0%}", *_kappa(each)]


def _kappa(each: Kappa) -> tuple[str, str]:
    if each.kappa is None or each.low is None or each.high is None:
        return _NONE, "all answers equal"
    return f"{each.kappa:.2f}", f"{each.low:.2f} to {each.high:.2f}"


def _share(share: Share | None) -> str:
    if share is None:
        return _NONE
    return f"{share.yes / share.tasks:.0%} ({share.low:.0%}-{share.high:.0%})"


def _difference(each: Disagreement) -> str:
    told = "; ".join(f"{one_line(reader)} {_answers(answers)}" for reader, answers in each.answers.items())
    shown = one_line(each.instruction[:_INSTRUCTION])
    return f"  {each.number} ({each.id}): {told}{'  ' + shown if shown else ''}"


def _answers(answers: Answers) -> str:
    """Return one letter per question that was asked, for example `yyn`."""
    return "".join("y" if answers[question] else "n" for question in QUESTIONS if question in answers)


def _table(rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(map(len, column)) + 2 for column in zip(*rows, strict=True)]
    return [
        (
            "  "
            + name.ljust(widths[0])
            + "".join(cell.rjust(width) for cell, width in zip(cells, widths[1:], strict=True))
        )
        for name, *cells in rows
    ]
