"""`selfinstruct filter` on files: rows stream through the decider to the kept file or the rejects file.

Kept records stay unchanged, including fields that this program does not know. Rejects get the rule, what it found, and
for near copies the nearest neighbour and its score. Records with the same instruction are instances of one task (see
instances.py). Only the index, digests of the kept tasks and one batch of records are in memory.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

from selfinstruct_local.filters.decide import NOT_NOVEL, Decider
from selfinstruct_local.filters.instances import Instances
from selfinstruct_local.filters.rejects import Place, reject_record
from selfinstruct_local.filters.verify import DecisionLog
from selfinstruct_local.io.reader import Row, read_rows
from selfinstruct_local.io.writer import open_writer

# Small enough to stay in the CPU cache between reading, deciding and writing.
BATCH = 1024
RECALL_SAMPLE = 500


@dataclass(slots=True)
class FilterCounts:
    """The counts of a filter pass.

    Attributes:
        read: number of records read.
        kept: number of records kept.
        instances: how many of the kept records are further instances of an already kept task.
        rejected: number of rejected records by rule.
        skipped: for each unreadable record, what is wrong with it.
    """

    read: int = 0
    kept: int = 0
    instances: int = 0
    rejected: Counter[str] = field(default_factory=Counter)
    skipped: list[str] = field(default_factory=list)


class FileFilter:
    """A greedy filter over files that records where each instruction of the index comes from."""

    def __init__(self, decider: Decider, log: DecisionLog | None = None) -> None:
        """Create a filter from a decider with an empty index.

        Args:
            decider: the rules and the index.
            log: receives every instruction and decision, for later verification.
        """
        self._decider = decider
        self._log = log
        self._instances = Instances()
        self._places: list[Place] = []  # by index position
        self._sample: list[tuple[str, bool]] = []  # the first to reach the novelty check, and whether kept

    def add_known(self, path: Path) -> None:
        """Add the instructions of a file to the index without a decision.

        Raises:
            UsageError: the file cannot be read.
        """
        for batch in _batches(read_rows(path)):
            instructions = [row.task.instruction for row in batch]
            self._decider.index.add(instructions)
            self._places.extend(Place(str(path), row.number) for row in batch)
            if self._log:
                self._log.add_known(instructions)

    def filter_files(
        self,
        sources: Sequence[Path],
        out: Path,
        rejects: Path | None,
        *,
        skip_bad_lines: bool = False,
        advance: Callable[[int], None] = lambda _rows: None,
    ) -> FilterCounts:
        """Filter files of tasks in order, as if they were one; each output file is complete or absent.

        Args:
            sources: task files; each is JSONL, a JSON array, or Parquet.
            out: file for the kept records; its suffix sets the format (`.json` an array, `.parquet`, otherwise JSONL).
            rejects: JSONL file for the rejected records and the reasons; None writes none.
            skip_bad_lines: count and describe unreadable records instead of stopping at the first.
            advance: called after every batch with its number of rows.

        Raises:
            UsageError: a source cannot be read.
        """
        counts = FilterCounts()
        skipped = counts.skipped if skip_bad_lines else None
        with ExitStack() as stack:
            kept = stack.enter_context(open_writer(out))
            thrown = stack.enter_context(open_writer(rejects, lines=True)) if rejects else None
            for source, batch in _sourced_batches(sources, skipped):
                tasks = [row.task for row in batch]
                decided = self._decider.decide(tasks)
                if self._log:
                    self._log.add_decided([task.instruction for task in tasks], decided)
                counts.read += len(batch)
                for row, novelty, verdict in zip(batch, decided, self._instances.settle(tasks, decided), strict=True):
                    if len(self._sample) < RECALL_SAMPLE and (novelty.keep or novelty.rule == NOT_NOVEL):
                        self._sample.append((row.task.instruction, novelty.keep))
                    if novelty.keep:
                        self._places.append(Place(str(source), row.number))
                    if verdict.keep:
                        counts.kept += 1
                        counts.instances += not novelty.keep
                        kept.write(row.record)
                        continue
                    counts.rejected[verdict.rule] += 1
                    if thrown:
                        own = Place(str(source) if len(sources) > 1 else "", row.number)
                        near = None if verdict.neighbor is None else self._places[verdict.neighbor]
                        thrown.write(reject_record(row.record, verdict, own, near))
                advance(len(batch))
        return counts

    def measure_recall(self) -> str:
        """Return one line: how many near pairs of a sample and the pool the prefilter finds, next to a full scan."""
        bins = self._decider.index.measure_recall([text for text, _ in self._sample])
        # A kept text of the sample is in the pool and always finds itself.
        themselves = sum(kept for _, kept in self._sample)
        parts = []
        for each in bins:
            own = themselves if each.high == 1.0 else 0
            parts.append(f"{each.found - own} of {each.pairs - own} above {each.low:.2f}")
        return f"pairs found on a sample of {len(self._sample)}: {', '.join(parts)}"


def _sourced_batches(sources: Sequence[Path], skipped: list[str] | None) -> Iterator[tuple[Path, Sequence[Row]]]:
    for source in sources:
        for batch in _batches(read_rows(source, skipped=skipped)):
            yield source, batch


def _batches(rows: Iterator[Row]) -> Iterator[Sequence[Row]]:
    while batch := list(islice(rows, BATCH)):
        yield batch
