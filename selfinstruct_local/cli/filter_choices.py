"""What decides in `selfinstruct filter`, as its options and `--config` give it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from selfinstruct_local.cli.choices import check_choice
from selfinstruct_local.filter.limits import Limits
from selfinstruct_local.language import LANGUAGES, TOKENIZERS

if TYPE_CHECKING:
    from selfinstruct_local.filter.decide import Decider
    from selfinstruct_local.filter.verify import DecisionLog

DEFAULT_THRESHOLD = 0.7
DEFAULT_RULES = "alpaca"
DEFAULT_LANG = "en"


@dataclass(slots=True)
class FilterChoices:
    """What decides, as the options give it; `default_to` fills in what is None."""

    rules: str | None
    threshold: float | None
    prefilter: str
    lang: str | None
    tokenizer: str | None
    against: list[Path]
    decontaminate: list[Path]
    ngram: int
    verify: int
    limits: Mapping[str, Any] = field(default_factory=dict)

    def default_to(self, rules: str, threshold: float, lang: str) -> None:
        """Fills in what was not given.

        Raises:
            WrongUseError: the rules know no such language.
        """
        from selfinstruct_local.errors import WrongUseError
        from selfinstruct_local.filter.rulesets import PUBLISHED

        self.rules = self.rules or rules
        self.threshold = self.threshold or threshold
        self.lang = self.lang or lang
        self.tokenizer = self.tokenizer or TOKENIZERS[self.lang]  # type: ignore[index]  # checked by then
        if self.lang == "zh" and self.rules in PUBLISHED:
            message = f"--rules {self.rules}: the published rules are English only; name others for --lang zh"
            raise WrongUseError(message)

    def make_decider(self) -> "tuple[Decider, DecisionLog | None]":
        """A decider with an empty index, and a log of its decisions if they are to be checked."""
        from selfinstruct_local.filter.contamination import EvaluationSet
        from selfinstruct_local.filter.decide import Decider
        from selfinstruct_local.filter.rulesets import rule_set
        from selfinstruct_local.filter.verify import DecisionLog
        from selfinstruct_local.kernels import NoveltyIndex

        index = NoveltyIndex(
            threshold=self.threshold or DEFAULT_THRESHOLD,
            prefilter=self.prefilter,  # type: ignore[arg-type]
            tokenizer=self.tokenizer,  # type: ignore[arg-type]
        )
        evaluation = EvaluationSet(self.decontaminate, self.ngram, index.tokenizer) if self.decontaminate else None
        rules = rule_set(self.rules or DEFAULT_RULES, self.lang or DEFAULT_LANG, Limits.of(self.limits))
        return Decider(rules, index, evaluation), DecisionLog() if self.verify else None


def add_settings(choices: FilterChoices, config: Path, *, of_run: bool) -> None:
    """Takes from a file what no flag gave.

    Raises:
        WrongUseError: a key or value will not do; or the file asks of a file of tasks what runs alone have measured.
    """
    from selfinstruct_local.cli.settings import MEASURED, check_config
    from selfinstruct_local.config import GenerateSettings, load_settings
    from selfinstruct_local.errors import WrongUseError

    check_config("filter", config)
    settings = load_settings(GenerateSettings, config, {})
    given = {name: getattr(settings, name) for name in settings.model_fields_set}
    if not of_run and (unknown := sorted(MEASURED & given.keys())):
        message = f"--config {config}: {unknown[0]}: files of tasks do not tell; it is for --run"
        raise WrongUseError(message)
    choices.rules = choices.rules or given.get("rules")
    choices.threshold = choices.threshold if choices.threshold is not None else given.get("threshold")
    choices.lang = choices.lang or given.get("lang")
    choices.limits = {name: given[name] for name in Limits._fields if name in given}


def check_choices(choices: FilterChoices, *, of_run: bool) -> None:
    """Refuses what no filter takes.

    Raises:
        WrongUseError: a value is none of those allowed, or two do not go together.
    """
    from selfinstruct_local.errors import WrongUseError
    from selfinstruct_local.filter.rulesets import RULE_SETS

    if choices.threshold is not None and not 0 < choices.threshold <= 1:
        message = f"--threshold {choices.threshold}: above 0 and at most 1"
        raise WrongUseError(message)
    check_choice("--rules", choices.rules, (None, *RULE_SETS))
    # A run is decided exactly, and by the tokens of its language: that is what a resumed `generate` goes on with.
    check_choice("--prefilter", choices.prefilter, ("exact", "none", "auto", *(() if of_run else ("minhash",))))
    check_choice("--lang", choices.lang, (None, *LANGUAGES))
    check_choice("--tokenizer", choices.tokenizer, (None, "rouge", "unicode"))
    if of_run and choices.tokenizer:
        message = f"--tokenizer {choices.tokenizer}: a run is decided by the tokens of its --lang; leave it out"
        raise WrongUseError(message)
    if choices.verify and (choices.tokenizer == "unicode" or choices.lang == "zh"):
        message = "--verify: rouge_score sees a-z and 0-9 alone, so it can check --tokenizer rouge alone"
        raise WrongUseError(message)
    if choices.verify and choices.prefilter == "minhash":
        message = "--verify: minhash may miss pairs by its nature; check --prefilter exact, or read its recall"
        raise WrongUseError(message)
