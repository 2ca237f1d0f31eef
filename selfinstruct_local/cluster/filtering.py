"""The filter on Ray: four stages over Ray Data, with the decision between them.

1. Workers read and screen each part and tokenise the texts that pass.
2. The driver numbers all tokens from the rarest; workers send every text to the groups that need it.
3. Each group finds its near pairs; a greedy pass in the driver decides on them (`kernels.greedy`), and keeps further
   instances of kept tasks too (`filters.instances`).
4. Workers read each part again and write the kept and the rejected tasks.

A stage consists of stateless tasks, so Ray reruns those of a lost worker with the same result. The folder is written
under a hidden name and renamed at the end.
"""

import time
from collections import Counter
from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from operator import itemgetter
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import orjson
from numpy.typing import NDArray

from selfinstruct_local.cluster.joining import JoinPlan, gather, join_group, rank_tokens, route_part
from selfinstruct_local.cluster.reading import (
    KEPT_FOLDER,
    REJECTED_FOLDER,
    NearCopies,
    ScreenSettings,
    tokenise_part,
    widened,
    write_part,
)
from selfinstruct_local.cluster.sources import InputFile, SourcePart, divide, row_key
from selfinstruct_local.errors import UsageError
from selfinstruct_local.filters.files import FilterCounts
from selfinstruct_local.filters.instances import SAME, Digests, Instances
from selfinstruct_local.io.files import replace_atomically, whole_folder
from selfinstruct_local.io.reader import BadRecordError, warn_of_unread
from selfinstruct_local.kernels.greedy import Refused, refuse
from selfinstruct_local.kernels.minhash import choose_bands
from selfinstruct_local.kernels.novelty import DEFAULT_RECALL

if TYPE_CHECKING:
    from pyarrow import Schema
    from ray.data import Dataset

SUMMARY = "summary.json"
# A group is joined in one worker's memory; its tables take about ten times the bytes sent to it.
GROUP_BYTES = 128 << 20
GROUPS_A_WORKER = 4
# A text of n tokens is sent to about half as many groups.
_COPIES_A_TOKEN = 0.5
# The columns that describe a part after it is read.
_DIGESTS = ("numbers", "instructions", "cases", "case_counts")
_TOLD = ("rows", "skipped", "unread", "silent", "texts", "tokens", "schema", "fault")


class NoveltySettings(NamedTuple):
    """The settings of the novelty decision.

    Attributes:
        threshold: ROUGE-L F above which the later of two tasks is a near copy, in (0, 1].
        minhash: find near pairs by MinHash, which may miss some, instead of by rare tokens.
    """

    threshold: float
    minhash: bool = False


@dataclass(slots=True)
class ClusterCounts(FilterCounts):
    """The counts of a pass; known tasks do not count as read.

    Attributes:
        silent: texts without tokens, which are near to no other.
        pairs: near pairs found.
        copies: texts sent to groups, counted once per group.
        sent: total bytes of the copies.
        largest: number of texts in the largest group.
        parts: parts read and written.
        groups: groups joined.
        seconds: duration by stage.
    """

    silent: int = 0
    pairs: int = 0
    copies: int = 0
    sent: int = 0
    largest: int = 0
    parts: int = 0
    groups: int = 0
    seconds: dict[str, float] = field(default_factory=dict)


class ClusterFilter:
    """A filter pass over sources; use it within a `session.ray_session`."""

    def __init__(
        self,
        sources: Sequence[InputFile],
        screen: ScreenSettings,
        novelty: NoveltySettings,
        *,
        workers: int,
        say: Callable[[str], None] = lambda _line: None,
    ) -> None:
        """Create a filter pass.

        Args:
            sources: in the order of the pass; known ones precede all others.
            screen: settings of the checks on a single task.
            novelty: settings of the novelty decision.
            workers: number of Ray's processors.
            say: called with a line of text when a stage begins.
        """
        self._sources = sorted(sources, key=lambda source: not source.known)
        self._screen = screen
        self._novelty = novelty
        self._workers = workers
        self._say = say
        self._parts: list[SourcePart] = []
        self._texts, self._tokens = 0, 0  # of the tasks that passed the rules
        self.counts = ClusterCounts()

    def filter_into(self, out: Path) -> ClusterCounts:
        """Filter the sources into a folder with `kept/`, `rejected/` and `summary.json`, which is complete or absent.

        Args:
            out: the folder; it must be missing or empty.

        Raises:
            UsageError: a source cannot be read, the records do not share one table schema, or `out` is not empty.
        """
        self._screen.screen()  # raises if the evaluation set is unusable, before any work
        with self._timed("read"):
            self._parts = [
                SourcePart(number, part) for number, source in enumerate(self._sources) for part in divide(source)
            ]
            self.counts.parts = len(self._parts)
            tokenised = self._tokenise()
            schema = self._check(tokenised)
        with self._timed("join"):
            refused = self._keep_instances(tokenised, self._decide(tokenised))
        with whole_folder(out, "--out") as folder:
            for name in (KEPT_FOLDER, REJECTED_FOLDER):
                (folder / name).mkdir()
            with self._timed("write"):
                self._write(tokenised, refused, schema, folder)
            with replace_atomically(folder / SUMMARY) as stream:
                stream.write(orjson.dumps(self._summary(), option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE))
            for unfinished in folder.rglob(".*.tmp"):  # from workers that were killed while writing
                unfinished.unlink(missing_ok=True)
        return self.counts

    def _tokenise(self) -> "Dataset":
        self._say(f"reading {len(self._parts)} parts")
        rows = [{"part": part} for part in range(len(self._parts))]
        stage = partial(tokenise_part, sources=self._sources, parts=self._parts, settings=self._screen)
        tokenised: Dataset = _dataset(rows).map(stage).materialize()
        return tokenised

    def _check(self, tokenised: "Dataset") -> "Schema":
        """Count the records read and return the table schema of all records.

        Raises:
            UsageError: a part cannot be read, a source is empty, or the records do not share one table schema.
        """
        import pyarrow as pa

        read = Counter[int]()
        unread = [Counter[str]() for _ in self._sources]
        whole: Schema | None = None
        for row in sorted(_columns(tokenised, *_TOLD), key=itemgetter("part")):
            if row["fault"]:
                raise BadRecordError(row["fault"])
            source = self._parts[row["part"]].source
            skipped = orjson.loads(row["skipped"])
            read[source] += row["rows"]
            unread[source].update(orjson.loads(row["unread"]))
            self.counts.skipped.extend(skipped)
            self.counts.silent += row["silent"]
            self._texts += row["texts"]
            self._tokens += row["tokens"]
            if not self._sources[source].known:
                self.counts.read += row["rows"]
            if row["schema"]:
                whole = widened(whole, pa.ipc.read_schema(pa.py_buffer(row["schema"])), self._sources[source])
        for number, source in enumerate(self._sources):
            warn_of_unread(source.name, unread[number])
            if not read[number] and not source.run:
                message = f"{source.path}: holds no task; expected one JSON object per line, or a JSON array of objects"
                raise UsageError(message)
        return whole if whole is not None else pa.schema([("instruction", pa.string())])

    def _decide(self, tokenised: "Dataset") -> Refused:
        ranks, vocabulary = rank_tokens(
            _columns(tokenised, "token_bytes", "token_bounds", "token_counts"), self._screen.tokenizer
        )
        plan = self._plan(vocabulary)
        if not vocabulary:
            return refuse(gather([], plan))
        import ray

        self.counts.groups = plan.groups
        self._say(f"comparing in {plan.groups} groups")
        kept_here = {part: ray.put(rank) for part, rank in ranks.items()}
        texts = tokenised.select_columns(["part", "ids", "offsets", "numbers"])
        shares = texts.flat_map(partial(route_part, parts=self._parts, ranks=kept_here, plan=plan))
        groups = shares.groupby("group", num_partitions=plan.groups)
        joined = groups.map_groups(partial(join_group, plan=plan), batch_format="pyarrow")
        found = list(joined.iter_rows())
        self.counts.copies = sum(row["texts"] for row in found)
        self.counts.sent = sum(row["sent"] for row in found)
        self.counts.largest = max((row["texts"] for row in found), default=0)
        pairs = gather(found, plan)
        self.counts.pairs = pairs.left.size
        known = sum(source.known for source in self._sources)
        return refuse(pairs, row_key(known, 0))

    def _keep_instances(self, tokenised: "Dataset", refused: Refused) -> Refused:
        """Return the near copies without the further instances of kept tasks."""
        same = np.flatnonzero(refused.score == SAME)
        wanted = {*refused.key[same].tolist(), *refused.neighbor[same].tolist()}
        digests: dict[int, Digests] = {}
        for row in _columns(tokenised, *_DIGESTS) if wanted else ():
            digests |= _digests_of(row, self._parts[row["part"]].source, wanted)
        instances = Instances()
        stays = np.ones(refused.key.size, np.bool_)
        for place in same.tolist():
            own, first = digests.get(int(refused.key[place])), digests.get(int(refused.neighbor[place]))
            if own and first:  # tasks of runs and known tasks have none
                instances.add(first)
                stays[place] = not instances.take(own)
        self.counts.instances = int((~stays).sum())
        return Refused(refused.key[stays], refused.neighbor[stays], refused.score[stays])

    def _plan(self, vocabulary: int) -> JoinPlan:
        texts = self._texts
        mean = self._tokens / max(texts, 1)
        row = 4 * mean + 24  # its tokens, key and offset
        bands = choose_bands(self._novelty.threshold, DEFAULT_RECALL, texts) if self._novelty.minhash else None
        sent = texts * (bands.bands * (row + 8) if bands else max(1.0, _COPIES_A_TOKEN * mean) * row)
        groups = max(GROUPS_A_WORKER * self._workers, round(sent / GROUP_BYTES))
        return JoinPlan(self._novelty.threshold, vocabulary, groups, bands)

    def _write(self, tokenised: "Dataset", refused: Refused, schema: "Schema", folder: Path) -> None:
        import ray

        written = [place for place, part in enumerate(self._parts) if not self._sources[part.source].known]
        self._say(f"writing {len(written)} parts")
        names = self._names_in_runs(tokenised, refused.neighbor) if any(each.run for each in self._sources) else {}
        edges = np.searchsorted(refused.key, [*(part.first_key for part in self._parts), np.iinfo(np.int64).max])
        copies = {}
        for place in written:
            own = slice(edges[place], edges[place + 1])
            neighbors = refused.neighbor[own]
            named = [names.get(key, "") for key in neighbors.tolist()]
            copies[place] = ray.put(NearCopies(refused.key[own], neighbors, refused.score[own], named))
        stage = partial(
            write_part, sources=self._sources, parts=self._parts, copies=copies, schema=schema, folder=folder
        )
        for row in tokenised.select_columns(["part", "rows", "refused"]).map(stage).iter_rows():
            self.counts.kept += row["kept"]
            self.counts.rejected.update(orjson.loads(row["rejected"]))

    def _names_in_runs(self, tokenised: "Dataset", neighbors: NDArray[np.int64]) -> dict[int, str]:
        """Return the ids of those `neighbors` that are tasks of runs, by key."""
        wanted = set(neighbors.tolist())
        names: dict[int, str] = {}
        for row in _columns(tokenised, "numbers", "names"):
            source = self._parts[row["part"]].source
            if self._sources[source].run:
                numbers = np.frombuffer(row["numbers"], np.int64).tolist()
                keys = (row_key(source, number) for number in numbers)
                named = zip(keys, orjson.loads(row["names"]), strict=True)
                names |= {key: name for key, name in named if key in wanted}
        return names

    def _summary(self) -> dict[str, Any]:
        counts, screen = self.counts, self._screen
        return {
            "sources": [source._asdict() for source in self._sources],
            "rules": screen.rules,
            "lang": screen.lang,
            "limits": screen.limits._asdict(),
            "threshold": self._novelty.threshold,
            "prefilter": "minhash" if self._novelty.minhash else "exact",
            "tokenizer": screen.tokenizer,
            "decontaminate": [str(path) for path in screen.decontaminate],
            "ngram": screen.ngram,
            "read": counts.read,
            "kept": counts.kept,
            "instances": counts.instances,
            "rejected": dict(counts.rejected.most_common()),
            "skipped_lines": len(counts.skipped),
            "pairs": counts.pairs,
            "copies": counts.copies,
            "sent_bytes": counts.sent,
            "largest_group": counts.largest,
            "parts": counts.parts,
            "groups": counts.groups,
            "workers": self._workers,
            "seconds": {stage: round(spent, 3) for stage, spent in counts.seconds.items()},
        }

    @contextmanager
    def _timed(self, stage: str) -> Iterator[None]:
        started = time.perf_counter()
        yield
        self.counts.seconds[stage] = time.perf_counter() - started


def _dataset(rows: list[dict[str, Any]]) -> "Dataset":
    """Return a dataset with one block per row, so that each row is one Ray task."""
    import ray

    return ray.data.from_items(rows, override_num_blocks=len(rows))


def _digests_of(row: Mapping[str, Any], source: int, wanted: Container[int]) -> dict[int, Digests]:
    """Return the digests of those `wanted` tasks that are in a part, by key."""
    numbers, instructions, cases, counts = (np.frombuffer(row[name], np.int64) for name in _DIGESTS)
    stops = np.cumsum(counts)
    return {
        key: Digests(int(instructions[place]), tuple(cases[stops[place] - counts[place] : stops[place]].tolist()))
        for place in range(instructions.size)
        if (key := row_key(source, int(numbers[place]))) in wanted
    }


def _columns(dataset: "Dataset", *names: str) -> Iterator[dict[str, Any]]:
    yield from dataset.select_columns(["part", *names]).iter_rows()
