"""All that a report counts of a source, as plain values: the page shows them, and `--json` prints them."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from selfinstruct_local.io.progress import counting
from selfinstruct_local.report.course import Step, over_jobs, over_rows
from selfinstruct_local.report.lengths import Histogram, Lengths, bin_widths, describe_lengths, field_lengths
from selfinstruct_local.report.novelty import SimilarityScores
from selfinstruct_local.report.sources import Source, script_of
from selfinstruct_local.report.verbs import VerbCounts, count_verbs
from selfinstruct_local.runs.store.review import RunReview
from selfinstruct_local.task import Task

if TYPE_CHECKING:
    from rich.console import Console

SCORE_BINS = 40
# Characters of an instruction that the list of nearest pairs shows.
_SHOWN = 400
_SAID = {True: "yes", False: "no", None: "not said"}
_FACTS = ("profile", "model", "lang", "rules", "temperature", "top_p", "seed")


@dataclass(frozen=True, slots=True)
class ScoreCounts:
    """ROUGE-L F of instructions, each the largest with some set of others.

    Attributes:
        count: instructions that were compared.
        median: of the scores.
        above: scores above the threshold.
        histogram: of the scores; bins of 0.025 from 0 to 1, each with its upper edge, so that none has scores of both
            sides of a threshold such as 0.7.
    """

    count: int
    median: float | None
    above: int
    histogram: Histogram


@dataclass(frozen=True, slots=True)
class ClosePair:
    """Two instructions that are nearly near copies: ids, texts (cut to 400 characters) and ROUGE-L F."""

    score: float
    id: str
    instruction: str
    earlier_id: str
    earlier_instruction: str


@dataclass(frozen=True, slots=True)
class Figures:
    """What is counted of a source.

    Attributes:
        source: its name.
        kind: `run` or `file`.
        facts: what decided a run; empty for a file.
        kept: tasks.
        inherited: those of them that a run took over from elsewhere.
        rejected: candidates by the rule that turned them away, most first.
        jobs: decided jobs of a run.
        completion_tokens: that a run generated, with those of jobs that are not decided yet.
        instances: worked cases of the kept tasks.
        with_input: kept tasks with an input.
        classification: kept tasks by whether they are classification: `yes`, `no`, `not said`.
        scripts: kept tasks by the script of most of their letters, most first.
        unit: what lengths are told in.
        lengths: by field.
        verbs: of the instructions; None where they are not in Latin letters.
        seeds: how many there are.
        seeds_name: where they are from.
        threshold: ROUGE-L F above which an instruction is a near copy.
        tokenizer: of ROUGE-L.
        without_tokens: instructions it finds nothing in.
        to_seeds: the nearest seed of each; None where there are no seeds.
        to_earlier: the nearest instruction before each.
        course: over jobs or rows.
        closest: pairs at or below the threshold, closest first.
        review: what readers said of a sample of a run; None where nobody read one.
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
    lengths: dict[str, Lengths]
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
        """Candidates that were turned away."""
        return sum(self.rejected.values())

    @property
    def candidates(self) -> int:
        """All that was decided in this source."""
        return self.kept - self.inherited + self.rejections

    @property
    def acceptance(self) -> float | None:
        """Share of the candidates that were kept, in [0, 1]; None where there are none."""
        return (self.kept - self.inherited) / self.candidates if self.candidates else None

    @property
    def accepted_per_1000_tokens(self) -> float | None:
        """Over the whole run; None where no token was counted."""
        return 1000 * (self.kept - self.inherited) / self.completion_tokens if self.completion_tokens else None

    def as_record(self) -> dict[str, Any]:
        """The same as JSON values, with what follows from them."""
        following = ("rejections", "candidates", "acceptance", "accepted_per_1000_tokens")
        review = self.review.record() if self.review else None
        return {**asdict(self), **{name: getattr(self, name) for name in following}, "review": review}


def make_figures(sources: Sequence[Source], nears: Sequence[SimilarityScores], console: "Console") -> list[Figures]:
    """Counts all sources; histograms of the same thing have the same bins in all of them.

    Args:
        sources: what to count.
        nears: what was found of the novelty of each.
        console: shows progress.
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


def _figures(source: Source, near: SimilarityScores, lengths: dict[str, Lengths], verbs: VerbCounts | None) -> Figures:
    tasks = [each.task for each in source.kept]
    own = near.to_earlier[source.inherited :]
    said = Counter(_SAID[task.is_classification] for task in tasks)
    scripts = Counter(_script(task) for task in tasks)
    return Figures(
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


def _facts(source: Source) -> dict[str, Any]:
    """What tells runs apart; of the model its name alone, for a path says more of a machine than of the data."""
    facts = dict(source.facts)
    if "model_path" in facts:
        facts["model"] = Path(str(facts["model_path"])).name
    return {name: facts[name] for name in _FACTS if facts.get(name) is not None}


def _script(task: Task) -> str:
    return script_of([" ".join((task.instruction, *(each.output for each in task.instances)))])


def _score_counts(scores: NDArray[np.float64], threshold: float) -> ScoreCounts:
    known = scores[np.isfinite(scores)]
    # 1e-9: an edge is seldom exact in float64.
    bins = np.maximum(np.ceil(known * SCORE_BINS - 1e-9).astype(int) - 1, 0)
    counts = tuple(np.bincount(bins, minlength=SCORE_BINS).tolist())
    median = float(np.median(known)) if known.size else None
    return ScoreCounts(
        known.size, median, int((known > threshold).sum()), Histogram(1 / SCORE_BINS, counts, open_ended=False)
    )


def _close_pairs(source: Source, near: SimilarityScores) -> list[ClosePair]:
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
