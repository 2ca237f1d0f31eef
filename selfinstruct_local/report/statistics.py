"""The statistics of a source, as plain values: the page shows them, and `--json` prints them."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from selfinstruct_local.io.progress import counting
from selfinstruct_local.report.course import Step, over_jobs, over_rows
from selfinstruct_local.report.lengths import Histogram, LengthStatistics, bin_widths, describe_lengths, field_lengths
from selfinstruct_local.report.novelty import SimilarityScores
from selfinstruct_local.report.sources import ReportSource, script_of
from selfinstruct_local.report.verbs import VerbCounts, count_verbs
from selfinstruct_local.runs.store.review import RunReview
from selfinstruct_local.task import Task

if TYPE_CHECKING:
    from rich.console import Console

SCORE_BINS = 40
# Characters per instruction in the list of nearest pairs.
_SHOWN = 400
_SAID = {True: "yes", False: "no", None: "not said"}
_FACTS = ("profile", "model", "lang", "rules", "temperature", "top_p", "seed")


@dataclass(frozen=True, slots=True)
class ScoreCounts:
    """ROUGE-L F of instructions, each the highest with a set of others.

    Attributes:
        count: number of compared instructions.
        median: median of the scores.
        above: number of scores above the threshold.
        histogram: bins of 0.025 from 0 to 1, each including its upper edge, so that no bin contains scores on both
            sides of a threshold such as 0.7.
    """

    count: int
    median: float | None
    above: int
    histogram: Histogram


@dataclass(frozen=True, slots=True)
class ClosePair:
    """Two close instructions at or below the near-copy threshold: ids, texts (at most 400 characters), ROUGE-L F."""

    score: float
    id: str
    instruction: str
    earlier_id: str
    earlier_instruction: str


@dataclass(frozen=True, slots=True)
class SourceStatistics:
    """The statistics of a source.

    Attributes:
        source: name of the source.
        kind: `run` or `file`.
        facts: the settings that affect a run's tasks; empty for a file.
        kept: number of kept tasks.
        inherited: number of kept tasks that a run imported.
        rejected: number of rejected candidates by rule, in descending order.
        jobs: number of decided jobs of a run.
        completion_tokens: number of tokens that a run generated, including undecided jobs.
        instances: number of instances of the kept tasks.
        with_input: number of kept tasks with an input.
        classification: number of kept tasks by whether they are classification: `yes`, `no`, `not said`.
        scripts: number of kept tasks by their main script, in descending order.
        unit: unit of lengths.
        lengths: lengths by field.
        verbs: verbs of the instructions; None if they are not in Latin script.
        seeds: number of seeds.
        seeds_name: origin of the seeds.
        threshold: ROUGE-L F above which an instruction is a near copy.
        tokenizer: tokenizer of ROUGE-L.
        without_tokens: number of instructions without tokens.
        to_seeds: scores with the nearest seed; None without seeds.
        to_earlier: scores with the nearest earlier instruction.
        course: yield and novelty over jobs or rows.
        closest: pairs at or below the threshold, closest first.
        review: readers' scores of a sample of a run; None without a review.
    """

    source: str
    kind: str
    facts: dict[str, Any]
    kept: int
    inherited: int
    rejected: dict[str, int]
    jobs: int
    completion_tokens: int
    instances: int
    with_input: int
    classification: dict[str, int]
    scripts: dict[str, int]
    unit: str
    lengths: dict[str, LengthStatistics]
    verbs: VerbCounts | None
    seeds: int
    seeds_name: str
    threshold: float
    tokenizer: str
    without_tokens: int
    to_seeds: ScoreCounts | None
    to_earlier: ScoreCounts
    course: list[Step]
    closest: list[ClosePair]
    review: RunReview | None

    @property
    def rejections(self) -> int:
        """Return the number of rejected candidates."""
        return sum(self.rejected.values())

    @property
    def candidates(self) -> int:
        """Return the number of candidates decided in this source."""
        return self.kept - self.inherited + self.rejections

    @property
    def acceptance(self) -> float | None:
        """Return the share of candidates that were kept, in [0, 1]; None without candidates."""
        return (self.kept - self.inherited) / self.candidates if self.candidates else None

    @property
    def accepted_per_1000_tokens(self) -> float | None:
        """Return the accepted tasks per 1,000 tokens of the whole run; None if no token was counted."""
        return 1000 * (self.kept - self.inherited) / self.completion_tokens if self.completion_tokens else None

    def as_record(self) -> dict[str, Any]:
        """Return the statistics as JSON values, with the values derived from them."""
        following = ("rejections", "candidates", "acceptance", "accepted_per_1000_tokens")
        review = self.review.record() if self.review else None
        return {**asdict(self), **{name: getattr(self, name) for name in following}, "review": review}


def make_statistics(
    sources: Sequence[ReportSource], nears: Sequence[SimilarityScores], console: "Console"
) -> list[SourceStatistics]:
    """Return the statistics of all sources; histograms of the same quantity have the same bins in all of them.

    Args:
        sources: the sources to count.
        nears: the similarity scores of each source.
        console: for progress.
    """
    measured = [(source.unit, field_lengths(source)) for source in sources]
    widths = bin_widths(measured)
    made = []
    for source, near, (unit, lengths) in zip(sources, nears, measured, strict=True):
        described = {field: describe_lengths(values, widths[unit, field]) for field, values in lengths.items()}
        verbs = None
        if source.script == "latin":
            with counting(console, f"{source.name}: parsing") as advance:
                verbs = count_verbs([each.task.instruction for each in source.kept], advance)
        made.append(_figures(source, near, described, verbs))
    return made


def _figures(
    source: ReportSource, near: SimilarityScores, lengths: dict[str, LengthStatistics], verbs: VerbCounts | None
) -> SourceStatistics:
    tasks = [each.task for each in source.kept]
    own = near.to_earlier[source.inherited :]
    said = Counter(_SAID[task.is_classification] for task in tasks)
    scripts = Counter(_script(task) for task in tasks)
    return SourceStatistics(
        source=source.name,
        kind=source.kind,
        facts=_facts(source),
        kept=len(tasks),
        inherited=source.inherited,
        rejected=dict(
            sorted(Counter(each.rule for each in source.rejected).items(), key=lambda pair: (-pair[1], pair))
        ),
        jobs=len(source.jobs),
        completion_tokens=source.completion_tokens,
        instances=sum(len(task.instances) for task in tasks),
        with_input=sum(any(instance.input for instance in task.instances) for task in tasks),
        classification={name: said[name] for name in _SAID.values()},
        scripts=dict(scripts.most_common()),
        unit=source.unit,
        lengths=lengths,
        verbs=verbs,
        seeds=len(source.seeds),
        seeds_name=source.seeds_name,
        threshold=source.threshold,
        tokenizer=source.tokenizer,
        without_tokens=near.without_tokens,
        to_seeds=_score_counts(near.to_seeds, source.threshold) if source.seeds else None,
        to_earlier=_score_counts(near.to_earlier, source.threshold),
        course=over_jobs(source.jobs, own) if source.jobs else over_rows(near.to_earlier),
        closest=_close_pairs(source, near),
        review=source.review,
    )


def _facts(source: ReportSource) -> dict[str, Any]:
    """Return the settings that distinguish runs; of the model only its name, because a path describes the machine."""
    facts = dict(source.facts)
    if "model_path" in facts:
        facts["model"] = Path(str(facts["model_path"])).name
    return {name: facts[name] for name in _FACTS if facts.get(name) is not None}


def _script(task: Task) -> str:
    return script_of([" ".join((task.instruction, *(each.output for each in task.instances)))])


def _score_counts(scores: NDArray[np.float64], threshold: float) -> ScoreCounts:
    known = scores[np.isfinite(scores)]
    # 1e-9: bin edges are rarely exact in float64.
    bins = np.maximum(np.ceil(known * SCORE_BINS - 1e-9).astype(int) - 1, 0)
    counts = tuple(np.bincount(bins, minlength=SCORE_BINS).tolist())
    median = float(np.median(known)) if known.size else None
    return ScoreCounts(
        known.size, median, int((known > threshold).sum()), Histogram(1 / SCORE_BINS, counts, open_ended=False)
    )


def _close_pairs(source: ReportSource, near: SimilarityScores) -> list[ClosePair]:
    tasks = [*source.earlier, *(each.task for each in source.kept)]
    return [
        ClosePair(
            score,
            tasks[later].id,
            tasks[later].instruction[:_SHOWN],
            tasks[earlier].id,
            tasks[earlier].instruction[:_SHOWN],
        )
        for score, later, earlier in near.closest
    ]
