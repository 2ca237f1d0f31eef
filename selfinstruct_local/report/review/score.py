"""Scores label files, and stores the scores of a run's tasks in the run."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from selfinstruct_local.errors import UsageError
from selfinstruct_local.report.review.files import Key, Labels, read_key, read_labels
from selfinstruct_local.report.review.scores import ALL, ALL_READERS, Reading, Scores, make_scores, read_reading
from selfinstruct_local.runs.store import RunStore
from selfinstruct_local.runs.store.review import ReviewShare, RunReview, write_review

_TOLD = 8  # digits of a checksum that identify a sample in messages


def score_review(paths: Sequence[Path], key_path: Path | None = None, run: Path | None = None) -> Scores:
    """Return the scores of the labels of one sample.

    Args:
        paths: files that the page saved, one per reader.
        key_path: the key of the page; None scores only all items together.
        run: run in which the scores of its accepted tasks are stored; needs the key.

    Raises:
        UsageError: a file is something else or has the labels of another sample, two files are of one reader, or the
            tasks of the sample are not those of the run; the message names it.
    """
    if run and key_path is None:
        message = f"--run {run}: needs --key, which lists the reviewed tasks of the run"
        raise UsageError(message)
    labels = [read_labels(path) for path in paths]
    key = read_key(key_path) if key_path else None
    _check_sample(paths, labels, key_path, key)
    readings = [read_reading(each, name) for each, name in zip(labels, _readers(paths, labels), strict=True)]
    order = [item.id for item in key.items] if key else list(labels[0].answers)
    scores = make_scores(labels[0].sample, order, readings, key)
    if run and key:
        write_review(run, _review_of(run, readings, key))
    return scores


def _check_sample(paths: Sequence[Path], labels: Sequence[Labels], key_path: Path | None, key: Key | None) -> None:
    sample = key.sample if key else labels[0].sample
    asked = {item: set(answers) for item, answers in labels[0].answers.items()}
    items = {item.id for item in key.items} if key else set(asked)
    for path, each in zip(paths, labels, strict=True):
        if each.sample != sample:
            of = f"the key {key_path}" if key else f"{paths[0]}"
            message = (
                f"{path}: labels of another sample ({each.sample[:_TOLD]}) than {of} ({sample[:_TOLD]}); "
                "score each sample on its own"
            )
            raise UsageError(message)
        if {item: set(answers) for item, answers in each.answers.items()} != asked or items != set(asked):
            message = f"{path}: its items are not those of its sample; save the labels again from the page"
            raise UsageError(message)


def _readers(paths: Sequence[Path], labels: Sequence[Labels]) -> list[str]:
    names = [each.reader.strip() or path.stem for path, each in zip(paths, labels, strict=True)]
    for path, name in zip(paths, names, strict=True):
        if Counter(names)[name] > 1 or name == ALL_READERS:
            message = f"{path}: the reader's name '{name}' is taken; name one file per reader, or change 'reader' in it"
            raise UsageError(message)
    return names


def _review_of(run: Path, readings: Sequence[Reading], key: Key) -> RunReview:
    source = _source_of(run, key)
    own = {item.id for item in key.items if item.source == source and not item.rule}
    mine = [
        replace(each, finished={item: answers for item, answers in each.finished.items() if item in own}, unfinished=0)
        for each in readings
    ]
    scores = make_scores(key.sample, list(own), mine, None)
    groups = scores.groups[scores.readings[-1].reader]
    if not groups:
        message = f"--run {run}: none of its accepted tasks is finished by all readers"
        raise UsageError(message)
    shares = {name: ReviewShare(*share) for name, share in groups[0].shares.items()}
    return RunReview(
        sample=key.sample,
        readers=len(readings),
        tasks=shares[ALL].tasks,
        of=sum(each.tasks for each in key.strata if each.source == source and not each.rule),
        instruction=shares["instruction"],
        input=shares.get("input"),
        output=shares.get("output"),
        all=shares[ALL],
        kappa=scores.agreements[0].kappas[ALL].kappa if len(readings) == 2 else None,  # noqa: PLR2004
    )


def _source_of(run: Path, key: Key) -> int:
    """Return the position of the source that is this run: the run contains all its accepted tasks in the sample.

    Raises:
        UsageError: there is no such source.
    """
    with RunStore(run, read_only=True) as store:
        held = {(task.id, task.instruction) for task in store.accepted()}
    fitting = [position for position, items in _accepted_items(key) if items and items <= held]
    if not fitting:
        message = f"--run {run}: its accepted tasks are not the reviewed ones; name a run of the sample"
        raise UsageError(message)
    name = run.resolve().name
    return next((each for each in fitting if Path(key.sources[each].name).name == name), fitting[0])


def _accepted_items(key: Key) -> Iterator[tuple[int, set[tuple[str, str]]]]:
    for position, source in enumerate(key.sources):
        if source.kind == "run":
            yield position, {(e.record, e.instruction) for e in key.items if e.source == position and not e.rule}
