"""`selfinstruct filter --run`: rejudges the stored candidates of a run under other rules, without an engine.

Three kinds of verdicts are kept: rejections by the parser, and bare instructions that a profile rejected before it
requested their instance, because there is no complete task to judge; and prompt echoes, because the prompt is not
stored. All other candidates are judged again in job order, rejected ones included.
"""

import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from itertools import islice
from pathlib import Path
from typing import Any

from selfinstruct_local.errors import RunError
from selfinstruct_local.filters.contamination import CONTAMINATED
from selfinstruct_local.filters.decide import NOT_NOVEL, Decider
from selfinstruct_local.filters.files import FilterCounts
from selfinstruct_local.filters.rejects import Place, reject_record, task_record
from selfinstruct_local.filters.rulesets import PUBLISHED, RULE_SETS, rule_set
from selfinstruct_local.filters.thresholds import DEFAULT_THRESHOLDS
from selfinstruct_local.filters.verify import DecisionLog
from selfinstruct_local.io.files import whole_folder
from selfinstruct_local.io.reader import alpaca_records, read_rows
from selfinstruct_local.io.writer import RecordWriter, open_writer
from selfinstruct_local.languages.base import LANGUAGES
from selfinstruct_local.runs.store import Candidate, LedgerJob, RunStore
from selfinstruct_local.task import Task

# Jobs per batch; each has a few candidates.
JOBS = 512
# With a threshold of None its rule is left out.
ALL_LIMITS = DEFAULT_THRESHOLDS._replace(min_confidence=0.0)
DECIDED_HERE = frozenset(
    {"", NOT_NOVEL, CONTAMINATED}
    | {
        rule.name
        for lang in LANGUAGES
        for name in RULE_SETS
        if lang == "en" or name not in PUBLISHED
        for rule in rule_set(name, lang, ALL_LIMITS)
    }
)


def is_decided_here(candidate: Candidate) -> bool:
    """Return whether a candidate is judged again; the others keep their verdict."""
    return bool(candidate.task.instances) and candidate.verdict.rule in DECIDED_HERE


class LedgerFilter:
    """Judges the candidates of a run again and maps positions of the novelty index to task ids."""

    def __init__(self, decider: Decider, log: DecisionLog | None = None) -> None:
        """Create the filter from a decider with an empty index; `log` records all instructions and decisions."""
        self._decider = decider
        self._log = log
        self._ids: list[str] = []  # by index position

    def add_known_file(self, path: Path) -> None:
        """Add the instructions of a file to the index without judging them; their ids are `FILE:ROW`.

        Raises:
            UsageError: the file cannot be read.
        """
        self._add_known([row.task._replace(id=f"{path}:{row.number}") for row in read_rows(path)])

    def filter_run(
        self,
        run: RunStore,
        out: Path | None,
        rejects: Path | None,
        into: RunStore | None = None,
        advance: Callable[[int], None] = lambda _candidates: None,
    ) -> FilterCounts:
        """Judge all candidates of `run` in order and return the counts.

        Args:
            run: the source run, which is only read.
            out: file for the accepted tasks, as Alpaca records; None writes none.
            rejects: JSONL file for the rejected tasks with reasons; None writes none.
            into: run without jobs that gets the jobs with the new verdicts; None for no such run.
            advance: called after each batch with its number of candidates.
        """
        counts = FilterCounts()
        with ExitStack() as stack:
            kept = stack.enter_context(open_writer(out)) if out else None
            thrown = stack.enter_context(open_writer(rejects, lines=True)) if rejects else None
            self._add_known(run.seeds())
            inherited = [each.task for each in run.inherited()]
            self._add_known(inherited)
            _write_tasks(kept, inherited)
            ledger = run.ledger()
            while jobs := list(islice(ledger, JOBS)):
                candidates = [each for job in jobs for each in job.decided.candidates]
                self._decide(candidates)
                if into:
                    into.copy_jobs(_with_candidates(jobs, candidates))
                _write_tasks(kept, (each.task for each in candidates if each.verdict.keep))
                _count(counts, candidates, thrown)
                advance(len(candidates))
        return counts

    def _add_known(self, tasks: Sequence[Task]) -> None:
        instructions = [task.instruction for task in tasks]
        self._decider.index.add(instructions)
        self._ids.extend(task.id for task in tasks)
        if self._log:
            self._log.add_known(instructions)

    def _decide(self, candidates: list[Candidate]) -> None:
        """Replace the candidates for which `is_decided_here` is true by the same with new verdicts."""
        fresh = [number for number, candidate in enumerate(candidates) if is_decided_here(candidate)]
        tasks = [candidates[number].task for number in fresh]
        verdicts = self._decider.decide(tasks)
        if self._log:
            self._log.add_decided([task.instruction for task in tasks], verdicts)
        self._ids.extend(task.id for task, verdict in zip(tasks, verdicts, strict=True) if verdict.keep)
        for number, task, verdict in zip(fresh, tasks, verdicts, strict=True):
            neighbor = None if verdict.neighbor is None else self._ids[verdict.neighbor]
            candidates[number] = Candidate(task, verdict, neighbor)


def _with_candidates(jobs: Sequence[LedgerJob], candidates: Sequence[Candidate]) -> Iterator[LedgerJob]:
    """Yield the jobs with their candidates replaced by `candidates`, in order."""
    following = iter(candidates)
    for job in jobs:
        own = list(islice(following, len(job.decided.candidates)))
        yield job._replace(decided=job.decided._replace(candidates=own))


@contextmanager
def new_run(folder: Path, old: RunStore, **changed: Any) -> Iterator[RunStore]:
    """Yield a new run with the facts, seeds and inherited tasks of `old` and changed settings.

    It is moved to `folder` when the block ends without an error; otherwise `folder` does not exist.

    Raises:
        UsageError: `folder` is not empty or cannot be created.
        RunError: the disk is full or has an error.
    """
    with whole_folder(folder, "--into") as aside, RunStore(aside) as new:
        try:
            new.inherit(old.inherited())
            new.create({**old.facts(), **changed}, old.seeds())
            yield new
        except (
            sqlite3.OperationalError
        ) as error:  # the error of the store would name the temporary folder and suggest to resume
            message = f"--into {folder}: cannot be written ({error}); free disk space and re-run the same command"
            raise RunError(message) from error


def _write_tasks(writer: RecordWriter | None, tasks: Any) -> None:
    if writer:
        for record in alpaca_records(tasks):
            writer.write(record)


def _count(counts: FilterCounts, candidates: Sequence[Candidate], thrown: RecordWriter | None) -> None:
    counts.read += len(candidates)
    for task, verdict, neighbor in candidates:
        if verdict.keep:
            counts.kept += 1
            continue
        counts.rejected[verdict.rule] += 1
        if thrown:
            near = None if neighbor is None else Place(id=neighbor)
            thrown.write(reject_record(task_record(task), verdict, Place(id=task.id), near))
