"""The metrics of each evaluated model, as a table and as a JSON record."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from selfinstruct_local.engines.base import Completion, FinishReason
from selfinstruct_local.evaluate.cases import Case
from selfinstruct_local.evaluate.evaluated_models import EvaluatedModel
from selfinstruct_local.evaluate.losses import Surprise
from selfinstruct_local.evaluate.pairwise import Judgement, Tally, count
from selfinstruct_local.evaluate.scores import Interval, RougeL, bootstrap, has_label, is_exact_match
from selfinstruct_local.languages.base import Language

_MARGIN = 2


@dataclass(frozen=True, slots=True)
class Scored:
    """A model's answers, one per case, and the measures of each.

    Attributes:
        evaluated: the model.
        answers: the texts, without surrounding white space.
        completions: the engine's completions.
        rouge_l: ROUGE-L F with the reference.
        matches: whether the answer equals the reference, for cases with a label; None for the others.
        surprises: the losses of the references under the model.
        judgements: comparisons with the first model's answers; empty without a judge.
        engine: names and versions of the engine.
    """

    evaluated: EvaluatedModel
    answers: list[str]
    completions: list[Completion]
    rouge_l: list[float]
    matches: list[bool | None]
    surprises: list[Surprise]
    judgements: list[Judgement]
    engine: dict[str, str]


class Scorer:
    """Compares answers with the references of the cases."""

    def __init__(self, cases: Sequence[Case], lang: Language) -> None:
        """Create a scorer for cases in a language."""
        self._cases = cases
        self._rouge_l = RougeL(lang)
        self.labels = [has_label(case, lang) for case in cases]

    def rouge_l(self, answers: Sequence[str]) -> list[float]:
        """Return the ROUGE-L F of each answer."""
        return [self._rouge_l(answer, case.reference) for answer, case in zip(answers, self._cases, strict=True)]

    def matches(self, answers: Sequence[str]) -> list[bool | None]:
        """Return whether each answer equals its reference; None if the reference is no label."""
        rows = zip(answers, self._cases, self.labels, strict=True)
        return [is_exact_match(answer, case.reference) if label else None for answer, case, label in rows]


@dataclass(frozen=True, slots=True)
class Metrics:
    """The metrics of a model.

    Attributes:
        name: name of the model.
        template: its prompt template.
        rouge_l: mean ROUGE-L F over all cases.
        rouge_l_bounds: its 95 % interval.
        difference: mean F minus the first model's; None for the first.
        difference_bounds: its 95 % interval from the paired bootstrap; None for the first.
        matched: number of the `labelled` cases that were answered with exactly the label.
        labelled: number of cases with a label.
        stop_rate: share of the answers that stopped on their own.
        mean_tokens: mean number of tokens per answer.
        loss: mean negative log-likelihood per supervised token of the references, in nats.
        supervised: number of supervised tokens, which depends on the tokenizer and the template.
        bits_per_byte: the same likelihoods over the UTF-8 bytes of the references (Gao et al. 2020, arXiv 2101.00027),
            which are the same for all models.
        tally: counts of the judgements; None for the first model and without a judge.
    """

    name: str
    template: str
    rouge_l: float
    rouge_l_bounds: Interval
    difference: float | None
    difference_bounds: Interval | None
    matched: int
    labelled: int
    stop_rate: float
    mean_tokens: float
    loss: float
    supervised: int
    bits_per_byte: float
    tally: Tally | None

    @property
    def perplexity(self) -> float:
        """Return the perplexity per token of the references."""
        return math.exp(self.loss)

    @property
    def consistency(self) -> float | None:
        """Return the share of judged cases with the same judgement in both orders; None if there are none."""
        return self.tally.consistent / self.tally.asked if self.tally and self.tally.asked else None

    def record(self) -> dict[str, Any]:
        """Return the metrics as JSON values; shares and scores are in [0, 1]."""
        found: dict[str, Any] = {
            "rouge_l": {"mean": self.rouge_l, **self.rouge_l_bounds._asdict()},
            "rouge_l_difference": None
            if self.difference is None or self.difference_bounds is None
            else {"mean": self.difference, **self.difference_bounds._asdict()},
            "exact_match": {"matched": self.matched, "labelled": self.labelled},
            "stop_rate": self.stop_rate,
            "mean_tokens": self.mean_tokens,
            "loss": self.loss,
            "perplexity": self.perplexity,
            "supervised_tokens": self.supervised,
            "bits_per_byte": self.bits_per_byte,
        }
        if self.tally:
            found["judged"] = {**self.tally._asdict(), "consistency": self.consistency}
        return found


def make_metrics(scored: Sequence[Scored], cases: Sequence[Case]) -> list[Metrics]:
    """Return the metrics of all models; the others are compared with the first."""
    first = scored[0]
    size = sum(len(case.reference.encode()) for case in cases)
    return [_figures(each, None if each is first else first, size) for each in scored]


def _figures(scored: Scored, first: Scored | None, size: int) -> Metrics:
    differences = [own - other for own, other in zip(scored.rouge_l, first.rouge_l, strict=True)] if first else []
    labels = [matched for matched in scored.matches if matched is not None]
    stopped = [each.finish_reason is FinishReason.STOP for each in scored.completions]
    nats = sum(each.nats for each in scored.surprises)
    supervised = sum(each.tokens for each in scored.surprises)
    return Metrics(
        name=scored.evaluated.name,
        template=scored.evaluated.template,
        rouge_l=_mean(scored.rouge_l),
        rouge_l_bounds=bootstrap(scored.rouge_l),
        difference=_mean(differences) if differences else None,
        difference_bounds=bootstrap(differences) if differences else None,
        matched=sum(labels),
        labelled=len(labels),
        stop_rate=_mean(stopped),
        mean_tokens=_mean([each.completion_tokens for each in scored.completions]),
        loss=nats / supervised,
        supervised=supervised,
        bits_per_byte=nats / math.log(2) / size,
        tally=count(scored.judgements) if scored.judgements else None,
    )


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def table(figures: Sequence[Metrics]) -> list[str]:
    """Return the metrics as the lines of a table with one column per model."""
    first = figures[0].name
    rows = [
        ["", *(each.name for each in figures)],
        ["template", *(each.template for each in figures)],
        ["ROUGE-L F", *(f"{each.rouge_l:.3f}" for each in figures)],
        ["  95 % interval", *(_bounds(each.rouge_l_bounds) for each in figures)],
    ]
    if len(figures) > 1:
        rows += [
            [f"  minus {first}", *("" if each.difference is None else f"{each.difference:+.3f}" for each in figures)],
            ["  95 % interval", *(_bounds(each.difference_bounds, "+") for each in figures)],
        ]
    if figures[0].labelled:
        rows.append(["exact match", *(f"{each.matched} of {each.labelled}" for each in figures)])
    rows += [
        ["stopped by itself", *(f"{each.stop_rate:.0%}" for each in figures)],
        ["tokens per answer", *(f"{each.mean_tokens:.0f}" for each in figures)],
        ["held-out loss per token", *(f"{each.loss:.3f}" for each in figures)],
        ["  perplexity", *(f"{each.perplexity:.2f}" for each in figures)],
        ["  in bits per byte", *(f"{each.bits_per_byte:.3f}" for each in figures)],
    ]
    if any(each.tally for each in figures):
        rows.append([f"wins-ties-losses over {first}", *(_score(each.tally) for each in figures)])
        rows.append(["  same in both orders", *(_share(each.consistency) for each in figures)])
    if any(each.tally and each.tally.unjudged for each in figures):
        rows.append(["  not judged", *(str(each.tally.unjudged) if each.tally else "" for each in figures)])
    widths = [max(map(len, column)) + _MARGIN for column in zip(*rows, strict=True)]
    return [
        (name.ljust(widths[0]) + "".join(cell.rjust(width) for cell, width in zip(cells, widths[1:], strict=True)))
        for name, *cells in rows
    ]


def _bounds(bounds: Interval | None, sign: str = "") -> str:
    return "" if bounds is None else f"{bounds.low:{sign}.3f} to {bounds.high:{sign}.3f}"


def _score(tally: Tally | None) -> str:
    return f"{tally.wins}-{tally.ties}-{tally.losses}" if tally else ""


def _share(value: float | None) -> str:
    return "" if value is None else f"{value:.0%}"
