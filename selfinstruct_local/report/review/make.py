"""Makes a review: draws the sample, and writes the page and the key with the origin of its items."""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import orjson

from selfinstruct_local.errors import UsageError
from selfinstruct_local.filters.contamination import CONTAMINATED
from selfinstruct_local.filters.decide import NOT_NOVEL
from selfinstruct_local.filters.echo import ECHO
from selfinstruct_local.io.files import replace_atomically
from selfinstruct_local.io.progress import counting
from selfinstruct_local.report.review.files import Key, KeyItem, KeySource, KeyStratum, Stage, as_json, read_key
from selfinstruct_local.report.review.page import PageItem, render_review
from selfinstruct_local.report.review.sample import SAID, Draw, Drawn, Per, draw_sample
from selfinstruct_local.report.sources import ReportSource, read_source, source_names
from selfinstruct_local.runs.rejudge import DECIDED_HERE
from selfinstruct_local.runs.targets import check_targets

if TYPE_CHECKING:
    from rich.console import Console

_ID_DIGITS = 10
_SAMPLE_DIGITS = 32


class Review(NamedTuple):
    """The files and counts of a new review.

    Attributes:
        page: the HTML file.
        key: the file with the origin of the items.
        sample: checksum of the sample.
        drawn: number of tasks on the page.
        tasks: number of tasks that they were drawn from.
        left_out: number of strata without a drawn task.
    """

    page: Path
    key: Path
    sample: str
    drawn: int
    tasks: int
    left_out: int


def make_review(
    paths: Sequence[Path],
    out: Path,
    size: int,
    seed: int,
    console: "Console",
    *,
    per: Per = "sample",
    accepted: bool | None = None,
    rejected: bool | None = None,
) -> Review:
    """Draw a sample and write its page and its key, each complete or not at all.

    Args:
        paths: run folders, or files of tasks or rejects.
        out: the page; the key has the same name with the suffix `.key.json`.
        size: number of tasks to draw; `per` says what it counts.
        seed: random seed.
        console: for progress.
        per: as for `draw_sample`.
        accepted: as for `draw_sample`.
        rejected: as for `draw_sample`.

    Raises:
        UsageError: a source cannot be read or none has a task to draw, a file cannot be written or is a source, or the
            key of another sample exists.
        RunError: the disk is full.
    """
    names = source_names(paths)
    key_path = out.with_suffix(".key.json")
    check_targets({"--out": out, "the key": key_path}, paths)
    sources: list[ReportSource] = []
    for path, name in zip(paths, names, strict=True):
        with counting(console, f"{name}: reading") as advance:
            sources.append(read_source(path, None, name, advance))
    draw = draw_sample(sources, size, seed, per=per, accepted=accepted, rejected=rejected)
    if not draw.drawn:
        what = "rejected" if rejected and not accepted else "accepted"
        message = f"{', '.join(names)}: no {what} task to draw; name other sources, or see --accepted and --rejected"
        raise UsageError(message)
    items = [_page_item(each, number, seed) for number, each in enumerate(draw.drawn)]
    sample = hashlib.sha256(orjson.dumps(items)).hexdigest()[:_SAMPLE_DIGITS]
    _check_key(key_path, sample)
    with replace_atomically(key_path) as stream:
        stream.write(as_json(_make_key(sample, seed, sources, draw, items).model_dump()))
    with replace_atomically(out) as stream:
        stream.write(render_review(sample, items).encode())
    return Review(
        page=out,
        key=key_path,
        sample=sample,
        drawn=len(items),
        tasks=sum(each.tasks for each in draw.strata),
        left_out=sum(not each.drawn for each in draw.strata),
    )


def _check_key(path: Path, sample: str) -> None:
    """Raise an error instead of overwriting the key of another sample, whose labels would be worthless without it."""
    if path.exists() and read_key(path).sample != sample:
        message = f"{path}: is the key of another sample, which may be in use; name another page, or delete this key"
        raise UsageError(message)


def _page_item(drawn: Drawn, number: int, seed: int) -> PageItem:
    task = drawn.decided.task
    if drawn.instance is None:
        shown: tuple[str, str, str | None] = (task.instruction, "", None)
    else:
        instance = task.instances[drawn.instance]
        shown = (task.instruction, instance.input if instance.input.strip() else "", instance.output)
    digest = hashlib.sha256(orjson.dumps([seed, number, *shown])).hexdigest()
    # Begins with a letter, because JavaScript sorts integer keys before all others.
    return {"id": f"t{digest[:_ID_DIGITS]}", "instruction": shown[0], "input": shown[1], "output": shown[2]}


def _make_key(sample: str, seed: int, sources: Sequence[ReportSource], draw: Draw, items: Sequence[PageItem]) -> Key:
    return Key(
        sample=sample,
        seed=seed,
        sources=[
            KeySource(
                name=source.name,
                kind=source.kind,
                profile=str(source.facts.get("profile") or ""),
                model=Path(str(source.facts.get("model_path") or "")).name,
            )
            for source in sources
        ],
        strata=[KeyStratum(**each.stratum._asdict(), tasks=each.tasks, drawn=each.drawn) for each in draw.strata],
        items=[_key_item(drawn, item) for drawn, item in zip(draw.drawn, items, strict=True)],
    )


def _key_item(drawn: Drawn, item: PageItem) -> KeyItem:
    task = drawn.decided.task
    return KeyItem(
        id=item["id"],
        source=drawn.source,
        record=task.id,
        instance=drawn.instance,
        profile=task.lineage.profile if task.lineage else "",
        classification=SAID[task.is_classification],
        with_input=bool(item["input"]),
        stage=_stage(drawn.decided.rule),
        rule=drawn.decided.rule,
        detail=drawn.decided.detail,
        instruction=task.instruction,
    )


def _stage(rule: str) -> Stage:
    if not rule:
        return "accepted"
    if rule in {NOT_NOVEL, CONTAMINATED}:
        return "novelty"
    return "rules" if rule in DECIDED_HERE or rule == ECHO else "generation"
