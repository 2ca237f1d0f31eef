"""The sources of a report: a run with all its decisions, or a task file, in one form."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, NamedTuple

from selfinstruct_local.errors import UsageError
from selfinstruct_local.filters.rejects import read_reason
from selfinstruct_local.filters.scripts import count_scripts
from selfinstruct_local.io.reader import Row, read_rows, read_tasks
from selfinstruct_local.kernels import TokenizerName
from selfinstruct_local.languages.base import TOKENIZERS
from selfinstruct_local.report.novelty import SimilarityScores
from selfinstruct_local.runs.store import RunStore
from selfinstruct_local.runs.store.review import RunReview, read_review
from selfinstruct_local.seeds import seed_file
from selfinstruct_local.task import Lineage, Task

DEFAULT_THRESHOLD = 0.7
NO_LETTERS = "no letters"
# Scripts without spaces: lengths are measured in characters.
_UNSPACED = frozenset({"han", "kana", "thai"})
_LEDGER_STEP = 1000


class Decided(NamedTuple):
    """A task with its verdict.

    Attributes:
        task: the task; its id is unique in its source.
        rule: the rule that rejected it; empty for a kept task.
        detail: what the rule found.
        neighbor: id of the nearest task, or its file and row, if the source has it.
        score: ROUGE-L F with it, in [0, 1].
    """

    task: Task
    rule: str = ""
    detail: str = ""
    neighbor: str = ""
    score: float | None = None


class JobCounts(NamedTuple):
    """The candidates of a job, and its generated tokens."""

    candidates: int
    accepted: int
    completion_tokens: int


@dataclass(frozen=True, slots=True)
class ReportSource:
    """A run or a file, entirely in memory.

    Attributes:
        name: the last part of its path, or the full path if another source has the same last part.
        kind: `run` or `file`.
        kept: accepted tasks in order, inherited ones first; for a file, all tasks that are not marked as rejected.
        rejected: the rejected tasks, in order.
        inherited: number of `kept` tasks that a run imported.
        seeds: the seeds that instructions are compared with.
        seeds_name: origin of the seeds, in words.
        jobs: decided jobs in order; empty for a file.
        completion_tokens: number of tokens that a run generated, including undecided jobs.
        threshold: ROUGE-L F above which an instruction is a near copy.
        script: main script of most instructions; `no letters` if there are none.
        tokenizer: tokenizer of ROUGE-L.
        facts: settings that affect the tasks of a run.
        review: readers' scores of a sample of a run; None without a review.
    """

    name: str
    kind: Literal["run", "file"]
    kept: list[Decided]
    rejected: list[Decided]
    inherited: int
    seeds: list[Task]
    seeds_name: str
    jobs: list[JobCounts]
    completion_tokens: int
    threshold: float
    script: str
    tokenizer: TokenizerName
    facts: dict[str, Any]
    review: RunReview | None = None

    @property
    def earlier(self) -> Sequence[Task]:
        """Return the tasks that count as earlier than the first kept task: the seeds of a run."""
        return self.seeds if self.kind == "run" else ()

    @property
    def unit(self) -> str:
        """Return the unit of lengths."""
        return "characters" if self.script in _UNSPACED else "words"


def read_source(path: Path, seeds: Path | None, name: str, advance: Callable[[int], None]) -> ReportSource:
    """Return a run or a task file as a source.

    Args:
        path: a run folder or a task file.
        seeds: seeds to use instead of the run's own, or of the package's in the file's language.
        name: name of the source in the report.
        advance: called with the number of newly read rows.

    Raises:
        UsageError: the path is missing, or neither a run nor a task file; the message names it.
    """
    if path.is_dir():
        return _read_run(path, seeds, name, advance)
    return _read_file(path, seeds, name, advance)


def with_nearest(source: ReportSource, near: SimilarityScores) -> ReportSource:
    """Return the source with the nearest earlier instruction of each kept task, where it was determined."""
    ids = [task.id for task in source.earlier] + [each.task.id for each in source.kept]
    found = zip(source.kept, near.nearest.tolist(), near.to_earlier.tolist(), strict=True)
    kept = [
        each._replace(neighbor=ids[position], score=score) if position >= 0 and each.score is None else each
        for each, position, score in found
    ]
    return replace(source, kept=kept)


def source_names(paths: Sequence[Path]) -> list[str]:
    """Return the names of the sources: the last part of each path if it is unique, otherwise the full path.

    Raises:
        UsageError: a path is given twice.
    """
    twice = next((path for path, count in Counter(path.resolve() for path in paths).items() if count > 1), None)
    if twice:
        message = f"{twice}: is named twice; name each source once"
        raise UsageError(message)
    counts = Counter(path.resolve().name for path in paths)
    return [path.resolve().name if counts[path.resolve().name] == 1 else str(path) for path in paths]


def script_of(texts: Sequence[str]) -> str:
    """Return the main script of most of `texts`; `no letters` if there are none."""
    counts: Counter[str] = Counter()
    for text in texts:
        if text.isascii():
            counts["latin"] += any(map(str.isalpha, text))
        else:
            found = count_scripts(text)
            if found:
                counts[found.most_common(1)[0][0]] += 1
    return counts.most_common(1)[0][0] if counts.total() else NO_LETTERS


def _read_run(path: Path, seeds: Path | None, name: str, advance: Callable[[int], None]) -> ReportSource:
    rejected: list[Decided] = []
    jobs: list[JobCounts] = []
    with RunStore(path, read_only=True) as store:
        facts = store.facts()
        kept = [Decided(each.task, detail="inherited") for each in store.inherited()]
        inherited = len(kept)
        profile = str(facts.get("profile", ""))
        for (number, shown, candidates), counts in store.ledger():
            before = len(kept)
            lineage = Lineage(profile, number, tuple(shown))
            for task, verdict, neighbor in candidates:
                decided = Decided(
                    task._replace(lineage=lineage), verdict.rule, verdict.detail, neighbor or "", verdict.score
                )
                (kept if verdict.keep else rejected).append(decided)
            jobs.append(JobCounts(len(candidates), len(kept) - before, counts[2]))
            advance(len(candidates))
        own_seeds = store.seeds()
        completion_tokens = store.totals().completion_tokens
    lang = facts.get("lang", "en")
    return ReportSource(
        name=name,
        kind="run",
        kept=kept,
        rejected=rejected,
        inherited=inherited,
        seeds=read_tasks(seeds) if seeds else own_seeds,
        seeds_name=seeds.name if seeds else "the run's own",
        jobs=jobs,
        completion_tokens=completion_tokens,
        threshold=float(facts.get("threshold", DEFAULT_THRESHOLD)),
        script="han" if lang == "zh" else script_of([each.task.instruction for each in kept]),
        tokenizer=TOKENIZERS["zh" if lang == "zh" else "en"],
        facts=facts,
        review=read_review(path),
    )


def _read_file(path: Path, seeds: Path | None, name: str, advance: Callable[[int], None]) -> ReportSource:
    kept: list[Decided] = []
    rejected: list[Decided] = []
    for count, row in enumerate(read_rows(path), start=1):
        decided = _decided(row)
        (rejected if decided.rule else kept).append(decided)
        if count % _LEDGER_STEP == 0:
            advance(_LEDGER_STEP)
    script = script_of([each.task.instruction for each in kept or rejected])
    chosen = seeds or seed_file("zh" if script == "han" else "en")
    return ReportSource(
        name=name,
        kind="file",
        kept=kept,
        rejected=rejected,
        inherited=0,
        seeds=read_tasks(chosen),
        seeds_name=seeds.name if seeds else f"the package's {chosen.name}",
        jobs=[],
        completion_tokens=0,
        threshold=DEFAULT_THRESHOLD,
        script=script,
        tokenizer="rouge" if script in {"latin", NO_LETTERS} else "unicode",
        facts={},
    )


def _decided(row: Row) -> Decided:
    """Return a file row with its verdict, as `selfinstruct filter --rejects` writes it."""
    task = row.task if row.task.id else row.task._replace(id=str(row.number))
    reason = read_reason(row.record)
    return Decided(task, reason.rule, reason.detail, str(reason.neighbor), reason.score) if reason else Decided(task)
