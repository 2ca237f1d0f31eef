"""A judge over two answers: which is better, asked in both orders and held to the words that may be said.

After the pairwise comparison of MT-Bench (Zheng et al. 2023, arXiv 2306.05685), whose conservative rule for a judge
that favours a place is taken too: an answer wins when it is preferred in both orders, and all else is a tie.
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
    """What a judge says of a challenger's answer to one case beside that of the first evaluated.

    Attributes:
        as_second: which answer it called better when the challenger's stood second; None for no readable answer.
        as_first: the same with the challenger's first.
        same: the two answers are the same text, so nobody was asked.
    """

    as_second: Said | None = None
    as_first: Said | None = None
    same: bool = False

    @property
    def outcome(self) -> Outcome:
        """For the challenger."""
        if self.same:
            return "tie"
        if self.as_second is None or self.as_first is None:
            return "unjudged"
        if (self.as_second, self.as_first) == ("second", "first"):
            return "win"
        return "loss" if (self.as_second, self.as_first) == ("first", "second") else "tie"

    @property
    def consistent(self) -> bool:
        """Whether the judge said the same in both orders."""
        return (self.as_second, self.as_first) in {("second", "first"), ("first", "second"), ("tie", "tie")}


class Tally(NamedTuple):
    """The judgements of a challenger, counted.

    Attributes:
        wins: over the first evaluated.
        ties: with it.
        losses: to it.
        unjudged: cases of which the judge said nothing readable, or which its context does not hold.
        consistent: cases of which it said the same in both orders.
        asked: cases of which it said something readable in both.
    """

    wins: int
    ties: int
    losses: int
    unjudged: int
    consistent: int
    asked: int


def count(judgements: Iterable[Judgement]) -> Tally:
    """Counts the outcomes."""
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
    """Makes the requests to a judge and reads what it says."""

    def __init__(self, lang: Language, *, chats: bool, prompts: Prompts) -> None:
        """Takes the language of the question, whether the judge has a chat template, and the templates."""
        self._wording = WORDINGS[lang]
        self._template = prompts.load(judge_prompt(lang))
        self._words = WORDS[lang]
        self._chats = chats
        # A completion goes on after a colon, where a word has a space before it unless the script has none.
        space = " " if lang == "en" and not chats else ""
        self._sampling = Sampling(
            temperature=0.0, top_p=1.0, max_tokens=16, choice=tuple(f"{space}{word}" for word in self._words)
        )

    def request(self, key: RequestKey, case: Case, first: str, second: str) -> Request:
        """The question which of two answers to a case is better."""
        prompt = self._template.substitute(
            instruction=case.instruction,
            input=case.sample.input or self._wording.none,
            first=first,
            second=second,
        )
        turns = (Turn("user", prompt),) if self._chats else ()
        return Request(key, "" if self._chats else prompt, self._sampling, turns)

    def read(self, completion: Completion) -> Said | None:
        """Which answer was called better; None where the completion is none of the words."""
        return self._words.get(completion.text.strip())
