"""`selfinstruct filter` on files: rows stream through the decider and come out where they belong.

Survivors keep the record they came in, with fields this program does not know; rejects get the rule, what it saw, and
for near copies the nearest neighbour and its score. Records of equal instructions are instances of one task (see
instances.py). Only the index, digests of what was kept and one batch of records are in memory.
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

# Small enough to stay in the processor's cache between reading, deciding and writing.
BATCH = 1024
RECALL_SAMPLE = 500


@dataclass(slots=True)
class FilterCounts:
    """What a filter pass did.

    Attributes:
        read: records read.
        kept: records kept.
        instances: of these, further instances of a task that was kept before.
        rejected: count by rule.
        skipped: what was wrong with each record that could not be read.
    """

    read: int = 0
    kept: int = 0
    instances: int = 0
    rejected: Counter[str] = field(default_factory=Counter)
    skipped: list[str] = field(default_factory=list)


class FileFilter:
    """A greedy filter over files that remembers where each instruction of the index came from."""

    def __init__(self, decider: Decider, log: DecisionLog | None = None) -> None:
        """Takes a decider with an empty index.

        Args:
            decider: rules and index.
            log: told of every instruction and decision, for checking them afterwards.
        """
        self._decider = decider
        self._log = log
        self._instances = Instances()
        self._places: list[Place] = []  # of each index position
        self._sample: list[tuple[str, bool]] = []  # the first instructions that reached novelty, and whether kept

    def add_known(self, path: Path) -> None:
        """Puts the instructions of a file into the index undecided.

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
        """Filters files of tasks in order, as if they were one; the outputs are whole or absent.

        Args:
            sources: each JSONL, a JSON array, or Parquet.
            out: survivors, in the format its ending names (`.json` an array, `.parquet`, else JSONL).
            rejects: where to write what was rejected and why, as JSONL; None writes it nowhere.
            skip_bad_lines: count and describe records that cannot be read instead of stopping at the first.
            advance: told after every batch how many rows it had.

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
        """What share of the near pairs of a sample and the pool the prefilter finds, against a full scan; one line."""
        bins = self._decider.index.measure_recall([text for text, _ in self._sample])
        # A kept text of the sample stands in the pool and always finds itself.
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
