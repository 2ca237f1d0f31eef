"""A pairwise judge: which of two answers is better, asked in both orders and constrained to the allowed words.

Based on the pairwise comparison of MT-Bench (Zheng et al. 2023, arXiv 2306.05685), including its conservative rule
against position bias: a win requires preference in both orders; everything else is a tie.
"""

from collections.abc import Iterable
from typing import Literal, NamedTuple

from selfinstruct_local.engines.base import Completion, Request, RequestKey, Sampling
from selfinstruct_local.evaluate.cases import Case
from selfinstruct_local.generate.wording import WORDINGS
from selfinstruct_local.languages.base import Language
from selfinstruct_local.prompts import Prompts
from selfinstruct_local.templates.turns import Turn

Said = Literal["first", "second", "tie"]
Outcome = Literal["win", "tie", "loss", "unjudged"]
WORDS: dict[Language, dict[str, Said]] = {
    "en": {"A": "first", "B": "second", "tie": "tie"},
    "zh": {"A": "first", "B": "second", "平局": "tie"},
}
STAGE = "judge"


class Judgement(NamedTuple):
    """A judge's comparison of a model's answer to one case with the first model's answer.

    Attributes:
        as_second: which answer is better with the model's answer second; None if the completion is unreadable.
        as_first: the same with the model's answer first.
        same: the two answers are identical, so the judge is not asked.
    """

    as_second: Said | None = None
    as_first: Said | None = None
    same: bool = False

    @property
    def outcome(self) -> Outcome:
        """Return the outcome for the model that is compared with the first."""
        if self.same:
            return "tie"
        if self.as_second is None or self.as_first is None:
            return "unjudged"
        if (self.as_second, self.as_first) == ("second", "first"):
            return "win"
        return "loss" if (self.as_second, self.as_first) == ("first", "second") else "tie"

    @property
    def consistent(self) -> bool:
        """Return whether the judge prefers the same answer in both orders."""
        return (self.as_second, self.as_first) in {("second", "first"), ("first", "second"), ("tie", "tie")}


class Tally(NamedTuple):
    """The counts of a model's judgements.

    Attributes:
        wins: cases won against the first model.
        ties: cases tied with it.
        losses: cases lost to it.
        unjudged: cases without a readable judgement, or that exceed the judge's context.
        consistent: cases judged the same in both orders.
        asked: cases with a readable judgement in both orders.
    """

    wins: int
    ties: int
    losses: int
    unjudged: int
    consistent: int
    asked: int


def count(judgements: Iterable[Judgement]) -> Tally:
    """Return the counts of the outcomes."""
    told = list(judgements)
    outcomes = [each.outcome for each in told]
    return Tally(
        wins=outcomes.count("win"),
        ties=outcomes.count("tie"),
        losses=outcomes.count("loss"),
        unjudged=outcomes.count("unjudged"),
        consistent=sum(each.consistent for each in told),
        asked=sum(not each.same and each.outcome != "unjudged" for each in told),
    )


def judge_prompt(lang: Language) -> str:
    """Return the name of the judge's prompt template."""
    return f"pairwise_judge{WORDINGS[lang].suffix}"


class PairwiseJudge:
    """Builds the requests to a judge and reads its completions."""

    def __init__(self, lang: Language, *, chats: bool, prompts: Prompts) -> None:
        """Create a judge from the tasks' language, whether it has a chat template, and the prompt templates."""
        self._wording = WORDINGS[lang]
        self._template = prompts.load(judge_prompt(lang))
        self._words = WORDS[lang]
        self._chats = chats
        # A completion follows a colon, where a word has a space before it unless the script has no spaces.
        space = " " if lang == "en" and not chats else ""
        self._sampling = Sampling(
            temperature=0.0, top_p=1.0, max_tokens=16, choice=tuple(f"{space}{word}" for word in self._words)
        )

    def request(self, key: RequestKey, case: Case, first: str, second: str) -> Request:
        """Return the request that asks which of two answers to a case is better."""
        prompt = self._template.substitute(
            instruction=case.instruction,
            input=case.sample.input or self._wording.none,
            first=first,
            second=second,
        )
        turns = (Turn("user", prompt),) if self._chats else ()
        return Request(key, "" if self._chats else prompt, self._sampling, turns)

    def read(self, completion: Completion) -> Said | None:
        """Return which answer is better, or None if the completion is none of the allowed words."""
        return self._words.get(completion.text.strip())
