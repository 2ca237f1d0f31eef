"""What decides in `selfinstruct filter`, as its options and `--config` give it."""

import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from selfinstruct_local.cli.choices import check_choice
from selfinstruct_local.filters.thresholds import Thresholds
from selfinstruct_local.languages.base import LANGUAGES, TOKENIZERS, Language

if TYPE_CHECKING:
    from selfinstruct_local.filters.decide import Decider
    from selfinstruct_local.filters.verify import DecisionLog
    from selfinstruct_local.kernels import NoveltyIndex, TokenizerName
    from selfinstruct_local.kernels.novelty import PrefilterName

DEFAULT_THRESHOLD = 0.7
DEFAULT_RULES = "alpaca"
DEFAULT_LANG = "en"


@dataclass(slots=True)
class FilterChoices:
    """What decides, as the options and `--config` give it; None is what the run says, or the default."""

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

    def settle(self, facts: Mapping[str, Any]) -> "SettledChoices":
        """What they come to where a run was decided by `facts`, which are empty for files.

        Raises:
            UsageError: the rules know no such language, or nothing can verify its tokens.
        """
        from selfinstruct_local.errors import UsageError
        from selfinstruct_local.filters.rulesets import PUBLISHED

        rules = self.rules or facts.get("rules", DEFAULT_RULES)
        lang: Language = self.lang or facts.get("lang", DEFAULT_LANG)  # type: ignore[assignment]  # checked by then
        tokenizer = self.tokenizer or TOKENIZERS[lang]
        if lang == "zh" and rules in PUBLISHED:
            message = f"--rules {rules}: the published rules are English only; name others for --lang zh"
            raise UsageError(message)
        if self.verify and tokenizer == "unicode":
            message = "--verify: rouge_score sees a-z and 0-9 alone, so it can check --tokenizer rouge alone"
            raise UsageError(message)
        return SettledChoices(
            rules=rules,
            threshold=self.threshold or facts.get("threshold", DEFAULT_THRESHOLD),
            prefilter=self.prefilter,  # type: ignore[arg-type]  # checked by then
            lang=lang,
            tokenizer=tokenizer,  # type: ignore[arg-type]  # checked by then
            limits=Thresholds.of({**facts, **self.limits}),
            against=self.against,
            decontaminate=self.decontaminate,
            ngram=self.ngram,
            verify=self.verify,
        )


@dataclass(frozen=True, slots=True)
class SettledChoices:
    """What decides; nothing is open."""

    rules: str
    threshold: float
    prefilter: "PrefilterName"
    lang: Language
    tokenizer: "TokenizerName"
    limits: Thresholds
    against: list[Path]
    decontaminate: list[Path]
    ngram: int
    verify: int

    def make_decider(self) -> "tuple[Decider, DecisionLog | None]":
        """A decider with an empty index, and a log of its decisions if they are to be checked."""
        from selfinstruct_local.filters.contamination import EvaluationSet
        from selfinstruct_local.filters.decide import Decider
        from selfinstruct_local.filters.rulesets import rule_set
        from selfinstruct_local.filters.verify import DecisionLog
        from selfinstruct_local.kernels import NoveltyIndex

        index = NoveltyIndex(threshold=self.threshold, prefilter=self.prefilter, tokenizer=self.tokenizer)
        evaluation = EvaluationSet(self.decontaminate, self.ngram, self.tokenizer) if self.decontaminate else None
        rules = rule_set(self.rules, self.lang, self.limits)
        return Decider(rules, index, evaluation), DecisionLog() if self.verify else None


def add_settings(choices: FilterChoices, config: Path, *, of_run: bool) -> None:
    """Takes from a file what no flag gave.

    Raises:
        UsageError: a key or value will not do; or the file asks of a file of tasks what runs alone have measured.
    """
    from selfinstruct_local.cli.settings import MEASURED, check_config
    from selfinstruct_local.config.loading import load_settings
    from selfinstruct_local.errors import UsageError
    from selfinstruct_local.generate.settings import GenerateSettings

    check_config("filter", config)
    # Alpaca brings no settings of its own, so what is set is what the file gives.
    settings = load_settings(GenerateSettings, config, {}, base={"profile": "alpaca"})
    given = {name: getattr(settings, name) for name in settings.model_fields_set}
    if not of_run and (unknown := sorted(MEASURED & given.keys())):
        message = f"--config {config}: {unknown[0]}: files of tasks do not tell; it is for --run"
        raise UsageError(message)
    choices.rules = choices.rules or given.get("rules")
    choices.threshold = choices.threshold if choices.threshold is not None else given.get("threshold")
    choices.lang = choices.lang or given.get("lang")
    choices.limits = {name: given[name] for name in Thresholds._fields if name in given}


def check_choices(choices: FilterChoices, *, of_run: bool) -> None:
    """Refuses what no filter takes.

    Raises:
        UsageError: a value is none of those allowed, or two do not go together.
    """
    from selfinstruct_local.errors import UsageError
    from selfinstruct_local.filters.rulesets import RULE_SETS

    if choices.threshold is not None and not 0 < choices.threshold <= 1:
        message = f"--threshold {choices.threshold}: above 0 and at most 1"
        raise UsageError(message)
    check_choice("--rules", choices.rules, (None, *RULE_SETS))
    # A run is decided exactly, and by the tokens of its language: that is what a resumed `generate` goes on with.
    check_choice("--prefilter", choices.prefilter, ("exact", "none", "auto", *(() if of_run else ("minhash",))))
    check_choice("--lang", choices.lang, (None, *LANGUAGES))
    check_choice("--tokenizer", choices.tokenizer, (None, "rouge", "unicode"))
    if of_run and choices.tokenizer:
        message = f"--tokenizer {choices.tokenizer}: a run is decided by the tokens of its --lang; leave it out"
        raise UsageError(message)
    if choices.verify and choices.prefilter == "minhash":
        message = "--verify: minhash may miss pairs by its nature; check --prefilter exact, or read its recall"
        raise UsageError(message)


def shared_facts(runs: list[Path], choices: FilterChoices) -> dict[str, Any]:
    """What the runs were decided by, as far as nothing else was asked for; empty for no run.

    Raises:
        UsageError: they differ in it, or one is no run.
    """
    from selfinstruct_local.errors import UsageError
    from selfinstruct_local.runs.store import RunStore

    flags = ("rules", "threshold", "lang")
    given = {name for name in flags if getattr(choices, name) is not None} | set(choices.limits)
    shared: dict[str, Any] = {}
    for number, run in enumerate(runs):
        with RunStore(run, read_only=True) as store:
            facts = store.facts()
        own = {name: facts[name] for name in (*flags, *Thresholds._fields) if name in facts}
        if number == 0:
            shared = own
        for name in sorted((shared.keys() | own.keys()) - given):
            if shared.get(name) != own.get(name):
                mend = f"--{name}" if name in flags else f"'{name}' in --config"
                values = f"{own.get(name)}, and {shared.get(name)} in {runs[0]}"
                message = f"--run {run}: {name} is {values}; name one with {mend}"
                raise UsageError(message)
    return shared


@contextmanager
def silent_told_once(index: "NoveltyIndex") -> Iterator[None]:
    """Tells of the texts without a token when all have joined the index, where it would warn of every batch."""
    from selfinstruct_local.kernels import NoTokensWarning

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NoTokensWarning)
        yield
    tell_silent(index.silent)


def tell_silent(texts: int) -> None:
    """Warns of that many texts without a token."""
    from selfinstruct_local.kernels import NoTokensWarning

    if texts:
        message = f"{texts} texts have no token [a-z0-9] and are near none; --tokenizer unicode sees every script"
        warnings.warn(message, NoTokensWarning, stacklevel=1)
