"""Verification of the fast filter against google's `rouge_score`, on the user's own data.

Random pairs are scored by both. A sample of decisions is repeated by comparing the instruction with everything that was
in the index before it, as the published programs do.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass, field

from selfinstruct_local.filters.decide import NOT_NOVEL
from selfinstruct_local.kernels import rouge_l
from selfinstruct_local.task import Verdict

# Repeating a decision takes one published comparison (about 25 us) per older instruction, so only few decisions of a
# large file are repeated.
DECISION_COMPARISONS = 1_000_000
SHOWN = 3


@dataclass(slots=True)
class Verification:
    """The result of a verification.

    Attributes:
        pairs: number of random pairs scored by both.
        decisions: number of repeated decisions.
        disagreements: one line per difference; empty if all agree.
    """

    pairs: int = 0
    decisions: int = 0
    disagreements: list[str] = field(default_factory=list)

    def describe(self) -> str:
        """Return the result as one line of text."""
        if not self.disagreements:
            return f"{self.pairs} pairs and {self.decisions} decisions agree with rouge_score"
        shown = "; ".join(self.disagreements[:SHOWN])
        return f"{len(self.disagreements)} of {self.pairs} pairs and {self.decisions} decisions differ: {shown}"


class DecisionLog:
    """A record of the indexed instructions and the decisions on the others."""

    def __init__(self) -> None:
        self._indexed: list[str] = []
        # instruction, verdict, and the size of the index before it
        self._decided: list[tuple[str, Verdict, int]] = []

    def add_known(self, instructions: Sequence[str]) -> None:
        """Record instructions that were added to the index without a decision."""
        self._indexed.extend(instructions)

    def add_decided(self, instructions: Sequence[str], verdicts: Sequence[Verdict]) -> None:
        """Record a batch of decisions, in order.

        Decisions by a rule are left out, because they say nothing about novelty.
        """
        for instruction, verdict in zip(instructions, verdicts, strict=True):
            if verdict.keep or verdict.rule == NOT_NOVEL:
                self._decided.append((instruction, verdict, len(self._indexed)))
            if verdict.keep:
                self._indexed.append(instruction)

    def verify(self, count: int, threshold: float, seed: int = 0) -> Verification:
        """Check `count` random pairs, and as many decisions as a million comparisons allow, at least one."""
        from rouge_score.rouge_scorer import RougeScorer  # imports nltk

        scorer = RougeScorer(["rougeL"])
        result = Verification()
        stream = random.Random(seed)  # noqa: S311 - a sample, no secret
        texts = [*self._indexed, *(text for text, verdict, _ in self._decided if not verdict.keep)]

        def published(one: str, other: str) -> float:
            return float(scorer.score(one, other)["rougeL"].fmeasure)

        for _ in range(count if texts else 0):
            one, other = stream.choice(texts), stream.choice(texts)
            result.pairs += 1
            if rouge_l(one, other) != published(one, other):
                result.disagreements.append(f"score of {one!r} and {other!r}")
        spent = 0
        for text, verdict, before in stream.sample(self._decided, len(self._decided)):
            if spent and spent + before > DECISION_COMPARISONS:
                break
            spent += before
            scores = [published(old, text) for old in self._indexed[:before]]
            best = max(scores, default=0.0)
            result.decisions += 1
            copied = best > threshold
            expected = (not copied, scores.index(best) if copied else None, best if copied else None)
            if (verdict.keep, verdict.neighbor, verdict.score) != expected:
                result.disagreements.append(f"decision on {text!r}")
        return result
