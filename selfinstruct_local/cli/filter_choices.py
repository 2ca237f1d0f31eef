"""The choices of `selfinstruct filter` that determine its verdicts, from options and `--config`."""

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
    """The choices given by options and `--config`; None selects the value of the run, or the default."""

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
        """Return the resolved choices.

        Args:
            facts: deciding settings of the run that is rejudged; empty for files.

        Raises:
            UsageError: the rules do not support the language, or `verify` does not support the tokenizer.
        """
        from selfinstruct_local.errors import UsageError
        from selfinstruct_local.filters.rulesets import PUBLISHED

        rules = self.rules or facts.get("rules", DEFAULT_RULES)
        lang: Language = self.lang or facts.get("lang", DEFAULT_LANG)  # type: ignore[assignment]  # validated before
        tokenizer = self.tokenizer or TOKENIZERS[lang]
        if lang == "zh" and rules in PUBLISHED:
            message = f"--rules {rules}: the published rules are English only; use other rules for --lang zh"
            raise UsageError(message)
        if self.verify and tokenizer == "unicode":
            message = "--verify: rouge_score sees only a-z and 0-9, so it can only check --tokenizer rouge; remove it"
            raise UsageError(message)
        return SettledChoices(
            rules=rules,
            threshold=self.threshold or facts.get("threshold", DEFAULT_THRESHOLD),
            prefilter=self.prefilter,  # type: ignore[arg-type]  # validated before
            lang=lang,
            tokenizer=tokenizer,  # type: ignore[arg-type]  # validated before
            limits=Thresholds.of({**facts, **self.limits}),
            against=self.against,
            decontaminate=self.decontaminate,
            ngram=self.ngram,
            verify=self.verify,
        )


@dataclass(frozen=True, slots=True)
class SettledChoices:
    """The resolved choices."""

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
        """Return a decider with an empty index, and a log of its decisions if `verify` is set."""
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
    """Set choices from the file where no flag is given.

    Raises:
        UsageError: a key or value is invalid, or a threshold is on a value that only runs have measured.
    """
    from selfinstruct_local.cli.settings import MEASURED, check_config
    from selfinstruct_local.config.loading import load_settings
    from selfinstruct_local.errors import UsageError
    from selfinstruct_local.generate.settings import GenerateSettings

    check_config("filter", config)
    # The profile alpaca has no settings of its own, so the settings that are set are those of the file.
    settings = load_settings(GenerateSettings, config, {}, base={"profile": "alpaca"})
    given = {name: getattr(settings, name) for name in settings.model_fields_set}
    if not of_run and (unknown := sorted(MEASURED & given.keys())):
        message = f"--config {config}: {unknown[0]}: only for --run, files of tasks have no such value; remove it"
        raise UsageError(message)
    choices.rules = choices.rules or given.get("rules")
    choices.threshold = choices.threshold if choices.threshold is not None else given.get("threshold")
    choices.lang = choices.lang or given.get("lang")
    choices.limits = {name: given[name] for name in Thresholds._fields if name in given}


def check_choices(choices: FilterChoices, *, of_run: bool) -> None:
    """Raise UsageError if a choice is invalid.

    Raises:
        UsageError: a value is not allowed, or two values exclude each other.
    """
    from selfinstruct_local.errors import UsageError
    from selfinstruct_local.filters.rulesets import RULE_SETS

    if choices.threshold is not None and not 0 < choices.threshold <= 1:
        message = f"--threshold {choices.threshold}: use a value above 0 and at most 1"
        raise UsageError(message)
    check_choice("--rules", choices.rules, (None, *RULE_SETS))
    # A run is judged exactly and with the tokenizer of its language, as a resumed `generate` does.
    check_choice("--prefilter", choices.prefilter, ("exact", "none", "auto", *(() if of_run else ("minhash",))))
    check_choice("--lang", choices.lang, (None, *LANGUAGES))
    check_choice("--tokenizer", choices.tokenizer, (None, "rouge", "unicode"))
    if of_run and choices.tokenizer:
        message = f"--tokenizer {choices.tokenizer}: --lang selects the tokenizer of a run; remove it"
        raise UsageError(message)
    if choices.verify and choices.prefilter == "minhash":
        message = "--verify: minhash can miss pairs; use --prefilter exact, or see the recall that minhash prints"
        raise UsageError(message)


def shared_facts(runs: list[Path], choices: FilterChoices) -> dict[str, Any]:
    """Return the deciding settings that all runs share and that no choice overrides; empty without runs.

    Raises:
        UsageError: the runs differ in such a setting, or a folder is not a run.
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
                message = f"--run {run}: {name} is {values}; set one value with {mend}"
                raise UsageError(message)
    return shared


@contextmanager
def silent_told_once(index: "NoveltyIndex") -> Iterator[None]:
    """Warn once, at the end of the block, about texts without tokens, instead of once per batch."""
    from selfinstruct_local.kernels import NoTokensWarning

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NoTokensWarning)
        yield
    tell_silent(index.silent)


def tell_silent(texts: int) -> None:
    """Warn about the number of texts without tokens, if there are any."""
    from selfinstruct_local.kernels import NoTokensWarning

    if texts:
        message = (
            f"{texts} texts have no token [a-z0-9], so they match no other; use --tokenizer unicode for all scripts"
        )
        warnings.warn(message, NoTokensWarning, stacklevel=1)
