"""The first and the last stage, per part of a source: reading and screening it, and writing the result.

A part is read twice, so that no record has to be sent between workers. Only token numbers and the rejections by rules
are sent: rows between stages are dictionaries of numbers and bytes, which Ray Data moves unchanged.
"""

import functools
import warnings
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import orjson
from numpy.typing import NDArray

from selfinstruct_local.cluster.sources import NUMBER_BITS, InputFile, Item, SourcePart, read_items
from selfinstruct_local.errors import RunError, UsageError
from selfinstruct_local.filters.contamination import EvaluationSet
from selfinstruct_local.filters.decide import Screen, near_copy
from selfinstruct_local.filters.instances import Digests
from selfinstruct_local.filters.rejects import Place, reject_record, task_record
from selfinstruct_local.filters.rulesets import rule_set
from selfinstruct_local.filters.thresholds import Thresholds
from selfinstruct_local.io.reader import UnreadFieldWarning
from selfinstruct_local.io.writer import as_table, describe_misfit, open_writer
from selfinstruct_local.kernels import NoTokensWarning, TokenizerName, encode
from selfinstruct_local.task import KEPT, Verdict

if TYPE_CHECKING:
    from pyarrow import Schema
    from ray import ObjectRef

BATCH = 1024
KEPT_FOLDER, REJECTED_FOLDER = "kept", "rejected"


class ScreenSettings(NamedTuple):
    """The settings of the checks on a single task, in a form that can be sent to workers.

    Attributes:
        rules: name of the rule set.
        lang: language of the tasks.
        limits: thresholds of the rules.
        decontaminate: evaluation files.
        ngram: number of words per n-gram that must not be shared with them.
        tokenizer: tokenizer of the n-grams and of novelty.
        skip_bad_lines: describe unreadable records instead of stopping at the first.
    """

    rules: str
    lang: str
    limits: Thresholds
    decontaminate: tuple[Path, ...]
    ngram: int
    tokenizer: TokenizerName
    skip_bad_lines: bool

    def screen(self) -> Screen:
        """Return the rules and the evaluation set, created once per process.

        Raises:
            UsageError: an evaluation file cannot be read, or is too short for its n-grams.
        """
        return _screen(self)


@functools.lru_cache(maxsize=1)
def _screen(settings: ScreenSettings) -> Screen:
    evaluation = None
    if settings.decontaminate:
        evaluation = EvaluationSet(settings.decontaminate, settings.ngram, settings.tokenizer)
    return Screen(rule_set(settings.rules, settings.lang, settings.limits), evaluation)


def _screened(
    source: InputFile, part: SourcePart, settings: ScreenSettings, skipped: list[str], unread: Counter[str]
) -> Iterator[tuple[list[Item], list[Verdict]]]:
    """Yield batches of a part's items with their verdicts, before the novelty check."""
    tells = settings.skip_bad_lines and not source.known
    items = read_items(source, part.part, skipped if tells else None, unread)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UnreadFieldWarning)  # from evaluation sets; shown before the workers start
        screen = settings.screen()
    while batch := list(islice(items, BATCH)):
        tasks = [item.task for item in batch]
        verdicts = [KEPT] * len(batch) if source.known else screen.judge(tasks)
        yield batch, [item.settled or verdict for item, verdict in zip(batch, verdicts, strict=True)]


def tokenise_part(
    row: dict[str, Any], sources: Sequence[InputFile], parts: Sequence[SourcePart], settings: ScreenSettings
) -> dict[str, Any]:
    """Read, screen and tokenise a part.

    Returns:
        `part`, its number; `rows`, the number of rows read; `skipped` and `unread`, JSON; `refused`, JSON: number, rule
        and detail of the tasks that a rule rejects; `numbers` (int64) of the tasks that pass, their tokens as `ids`
        (int32) and `offsets` (int64) in a vocabulary of the part's own, `token_bytes` (uint8), `token_bounds` and
        `token_counts` (int64); `texts` and `tokens`, how many of each; `silent`, the number of texts without tokens;
        for a filtered file `instructions` and `cases` (int64), the digests of the tasks that pass, and `case_counts`
        (int64), the number of cases of each; `names`, JSON, the ids of a run's tasks; `schema` of the records that
        pass; `fault`, what is wrong with the part, or empty.
    """
    part = parts[row["part"]]
    source = sources[part.source]
    skipped, unread = list[str](), Counter[str]()
    texts, numbers, names, digests = list[str](), list[int](), list[str](), list[Digests]()
    refused, read, fault, schema = list[tuple[int, str, str]](), 0, "", None
    try:
        for batch, verdicts in _screened(source, part, settings, skipped, unread):
            read += len(batch)
            passed = [item for item, verdict in zip(batch, verdicts, strict=True) if verdict.keep]
            refused += [
                (item.number, verdict.rule, verdict.detail)
                for item, verdict in zip(batch, verdicts, strict=True)
                if not verdict.keep and item.settled is None
            ]
            texts += [item.task.instruction for item in passed]
            numbers += [item.number for item in passed]
            names += [item.task.id for item in passed] if source.run else []
            digests += [] if source.run or source.known else [Digests.stable(item.task) for item in passed]
            if not source.known:
                schema = widened(schema, _schema(source, passed), source)
    except UsageError as error:
        fault, texts, numbers, names, digests = str(error), [], [], [], []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NoTokensWarning)  # counted here, reported once
        encoded = encode(texts, settings.tokenizer)
    arena, bounds = encoded.vocabulary.token_bytes()
    return {
        "part": row["part"],
        "rows": read,
        "skipped": orjson.dumps(skipped),
        "unread": orjson.dumps(unread),
        "refused": orjson.dumps(refused),
        "numbers": np.array(numbers, np.int64).tobytes(),
        "ids": encoded.ids.tobytes(),
        "offsets": encoded.offsets.tobytes(),
        "token_bytes": arena.tobytes(),
        "token_bounds": bounds.tobytes(),
        "token_counts": np.bincount(encoded.ids, minlength=len(encoded.vocabulary)).tobytes(),
        "texts": len(texts),
        "tokens": encoded.ids.size,
        "silent": encoded.silent,
        "instructions": np.array([each.instruction for each in digests], np.int64).tobytes(),
        "cases": np.array([case for each in digests for case in each.cases], np.int64).tobytes(),
        "case_counts": np.array([len(each.cases) for each in digests], np.int64).tobytes(),
        "names": orjson.dumps(names),
        "schema": bytes(schema.serialize()) if schema is not None else b"",
        "fault": fault,
    }


def _schema(source: InputFile, items: Sequence[Item]) -> "Schema | None":
    """Return the table schema of records, or None without records."""
    import pyarrow as pa

    records = [record for item in items for record in item.records]
    if not records:
        return None
    try:
        return as_table(records).schema
    except (pa.ArrowException, OverflowError) as error:
        message = f"{source.path}: {describe_misfit(records, error)}; give each field one type"
        raise UsageError(message) from error


def widened(one: "Schema | None", other: "Schema | None", source: InputFile) -> "Schema | None":
    """Return the common table schema of two sets of records, the second of which is from `source`.

    Raises:
        UsageError: a field has two types.
    """
    import pyarrow as pa

    if one is None or other is None:
        return one if other is None else other
    try:
        return pa.unify_schemas([one, other], promote_options="permissive")
    except pa.ArrowException as error:
        why = str(error).splitlines()[0]
        message = (
            f"{source.path}: its records and earlier ones do not share one table ({why}); give each field one type"
        )
        raise UsageError(message) from error


class NearCopies(NamedTuple):
    """The near copies of a part.

    Attributes:
        keys: their keys, int64.
        neighbors: the keys of their neighbours, int64.
        scores: their ROUGE-L F, float64.
        names: ids of the neighbours that are in runs, empty strings for the others.
    """

    keys: NDArray[np.int64]
    neighbors: NDArray[np.int64]
    scores: NDArray[np.float64]
    names: Sequence[str]


def write_part(
    row: dict[str, Any],
    sources: Sequence[InputFile],
    parts: Sequence[SourcePart],
    copies: "Mapping[int, ObjectRef[NearCopies]]",
    schema: "Schema",
    folder: Path,
) -> dict[str, Any]:
    """Write the kept tasks of a part as Parquet, and the rejected ones with the reason as JSON lines.

    Args:
        row: `part`, `rows` and `refused` of `tokenise_part`.
        sources: all sources.
        parts: all parts.
        copies: the near copies of each part that is written.
        schema: table schema of all parts.
        folder: folder that contains `kept` and `rejected`.

    Returns:
        `kept`, the number of kept tasks, and `rejected`, JSON: the number by rule.

    Raises:
        RunError: the part changed since it was first read, or the disk is full.
    """
    import ray

    number = row["part"]
    kept, rejected = 0, Counter[str]()
    if number not in copies:
        return {"kept": 0, "rejected": b"{}"}
    part = parts[number]
    source = sources[part.source]
    taken = {
        place: Verdict(keep=False, rule=rule, detail=detail) for place, rule, detail in orjson.loads(row["refused"])
    }
    near = _near_copies(ray.get(copies[number]), sources)
    several = sum(not each.known for each in sources) > 1
    name = f"part-{number:0{max(5, len(str(len(parts))))}}"
    read = 0
    with (
        open_writer(folder / KEPT_FOLDER / f"{name}.parquet", schema=schema) as keeps,
        open_writer(folder / REJECTED_FOLDER / f"{name}.jsonl") as throws,
    ):
        # Bad lines and unread fields were reported at the first reading.
        for item in read_items(source, part.part, skipped=[], unread=Counter()):
            read += 1
            verdict, place = near.get(item.number, (item.settled or taken.get(item.number, KEPT), None))
            if verdict.keep:
                kept += 1
                for record in item.records:
                    keeps.write(record)
                continue
            rejected[verdict.rule] += 1
            throws.write(_reject_record(source, item, verdict, place, several=several))
        if read != row["rows"]:
            message = f"{source.path}: changed while it was filtered; re-run the same command"
            raise RunError(message)
    if not kept and len(copies) > 1:
        (folder / KEPT_FOLDER / f"{name}.parquet").unlink()  # a table without rows is not a task file
    return {"kept": kept, "rejected": orjson.dumps(rejected)}


def _near_copies(copies: NearCopies, sources: Sequence[InputFile]) -> dict[int, tuple[Verdict, Place]]:
    """Return the verdict on each near copy and the place of its neighbour, by the copy's row number."""
    numbers = (1 << NUMBER_BITS) - 1
    columns = (copies.keys.tolist(), copies.neighbors.tolist(), copies.scores.tolist(), copies.names)
    verdicts = {}
    for key, neighbor, score, name in zip(*columns, strict=True):
        row = 0 if name else neighbor & numbers
        place = Place(sources[neighbor >> NUMBER_BITS].name, row, name)
        verdicts[key & numbers] = near_copy(neighbor, score), place
    return verdicts


def _reject_record(
    source: InputFile, item: Item, verdict: Verdict, near: Place | None, *, several: bool
) -> dict[str, Any]:
    file = source.name if several else ""
    if item.neighbor is not None:
        near = Place(id=item.neighbor)
    if source.run:
        return reject_record(task_record(item.task), verdict, Place(file, id=item.task.id), near)
    return reject_record(item.records[0], verdict, Place(file, item.number), near)
