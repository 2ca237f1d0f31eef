"""`selfinstruct filter`."""

import gc
import time
from collections.abc import Collection, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from selfinstruct_local.cli.choices import PREFILTERS, RULE_SETS, TOKENIZER_NAMES, completing, languages
from selfinstruct_local.cli.options import ConfigOption, QuietOption
from selfinstruct_local.filter.limits import Limits
from selfinstruct_local.language import LANGUAGES, TOKENIZERS

if TYPE_CHECKING:
    from selfinstruct_local.filter.decide import Decider
    from selfinstruct_local.filter.files import FilterCounts
    from selfinstruct_local.filter.verify import DecisionLog, Verification

DEFAULT_THRESHOLD = 0.7
DEFAULT_RULES = "alpaca"
DEFAULT_LANG = "en"


def filter_(
    source: Annotated[
        Path | None, typer.Argument(metavar="[IN]", help="Tasks: JSONL, a JSON array, or Parquet.")
    ] = None,
    *,
    out: Annotated[
        Path | None, typer.Option(help="Survivors; .json makes an array, .parquet Parquet, else JSONL.")
    ] = None,
    rejects: Annotated[Path | None, typer.Option(help="Rejects with their reasons, JSONL.")] = None,
    run: Annotated[
        Path | None, typer.Option(help="In place of IN: decide this run again from its ledger, with no engine.")
    ] = None,
    into: Annotated[
        Path | None, typer.Option(metavar="NEWRUN", help="With --run: make a run of the new verdicts, to go on from.")
    ] = None,
    against: Annotated[
        list[Path] | None, typer.Option(help="Tasks that new ones must differ from too; may be repeated.")
    ] = None,
    config: ConfigOption = None,
    threshold: Annotated[
        float | None, typer.Option(help="ROUGE-L F above which it is a near copy. [default: 0.7, or the run's]")
    ] = None,
    prefilter: Annotated[
        str, typer.Option(help="exact, minhash, none or auto.", autocompletion=completing(PREFILTERS))
    ] = "exact",
    lang: Annotated[
        str | None,
        typer.Option(help="Of the rules: en or zh. [default: en, or the run's]", autocompletion=languages),
    ] = None,
    tokenizer: Annotated[
        str | None,
        typer.Option(
            help="rouge (a-z, 0-9) or unicode (all scripts). [default: by --lang]",
            autocompletion=completing(TOKENIZER_NAMES),
        ),
    ] = None,
    rules: Annotated[
        str | None,
        typer.Option(
            help="alpaca, self-instruct, alpaca-2023, self-instruct-2022 (as published) or none. "
            "[default: alpaca, or the run's]",
            autocompletion=completing(RULE_SETS),
        ),
    ] = None,
    decontaminate: Annotated[
        list[Path] | None,
        typer.Option(help="Evaluation set; tasks that share an n-gram with it go; may be repeated."),
    ] = None,
    ngram: Annotated[int, typer.Option(min=1, help="Words of such an n-gram.")] = 13,
    verify: Annotated[
        int, typer.Option(min=0, help="Check so many random pairs, and some decisions, with rouge_score.")
    ] = 0,
    skip_bad_lines: Annotated[
        bool, typer.Option("--skip-bad-lines", help="Count lines that cannot be read; exit 3 at the end.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the summary as JSON.")] = False,
    quiet: QuietOption = False,
) -> None:
    """Filter a file of tasks, or a run, by rules and ROUGE-L novelty, exactly, in its order."""
    choices = _Choices(rules, threshold, prefilter, lang, tokenizer, against or [], decontaminate or [], ngram, verify)
    if config is not None:
        _add_settings(choices, config, of_run=run is not None)
    _check_sources(source, run, into, out)
    _check_targets(source, out, rejects)
    _check_choices(choices, run=run)
    # What is loaded by now stays, and rows make no cycles: looking for some would take a tenth of the time.
    gc.disable()
    started = time.perf_counter()
    if run:
        counts, log = _filter_run(run, into, choices, out, rejects)
    elif source and out:
        counts, log = _filter_file(source, choices, out, rejects, skip_bad_lines=skip_bad_lines)
    seconds = time.perf_counter() - started
    verification = log.verify(verify, choices.threshold or DEFAULT_THRESHOLD) if log else None
    _print_summary(counts, [str(path) for path in (out, into) if path], seconds, verification, as_json=as_json)
    _raise_what_fell_short(source, counts, verification)


@dataclass(slots=True)
class _Choices:
    """What decides, as the options give it; None is filled in by `_filter_file` and `_filter_run`."""

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


def _add_settings(choices: _Choices, config: Path, *, of_run: bool) -> None:
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


def _filter_file(
    source: Path, choices: _Choices, out: Path, rejects: Path | None, *, skip_bad_lines: bool
) -> "tuple[FilterCounts, DecisionLog | None]":
    from selfinstruct_local.filter.files import FileFilter
    from selfinstruct_local.progress import counting, stderr_console

    choices.default_to(DEFAULT_RULES, DEFAULT_THRESHOLD, DEFAULT_LANG)
    decider, log = choices.make_decider()
    file_filter = FileFilter(decider, log)
    for path in choices.against:
        file_filter.add_known(path)
    with counting(stderr_console(), "filtering") as advance:
        counts = file_filter.filter_file(source, out, rejects, skip_bad_lines=skip_bad_lines, advance=advance)
    if choices.prefilter == "minhash":
        stderr_console().print(f"minhash: {file_filter.measure_recall()}")
    return counts, log


def _filter_run(
    run: Path, into: Path | None, choices: _Choices, out: Path | None, rejects: Path | None
) -> "tuple[FilterCounts, DecisionLog | None]":
    from selfinstruct_local.filter.ledger import LedgerFilter, begin_run
    from selfinstruct_local.progress import counting, stderr_console
    from selfinstruct_local.store import RunStore

    with ExitStack() as stack:
        ledger = stack.enter_context(RunStore(run, read_only=True))
        facts = ledger.facts()
        defaults = {"rules": DEFAULT_RULES, "threshold": DEFAULT_THRESHOLD, "lang": DEFAULT_LANG, **facts}
        choices.default_to(defaults["rules"], defaults["threshold"], defaults["lang"])
        choices.limits = {**facts, **choices.limits}
        decider, log = choices.make_decider()
        new = stack.enter_context(RunStore(into)) if into else None
        if new:
            changed = {"rules": choices.rules, "threshold": choices.threshold, "lang": choices.lang}
            begin_run(new, ledger, **changed, **Limits.of(choices.limits)._asdict())
        ledger_filter = LedgerFilter(decider, log)
        for path in choices.against:
            ledger_filter.add_known_file(path)
        with counting(stderr_console(), "filtering") as advance:
            return ledger_filter.filter_run(ledger, out, rejects, new, advance), log


def _check_sources(source: Path | None, run: Path | None, into: Path | None, out: Path | None) -> None:
    from selfinstruct_local.errors import WrongUseError

    if (source is None) == (run is None):
        message = "name either a file of tasks, or a run with --run RUN"
        raise WrongUseError(message)
    if into and not run:
        message = f"--into {into}: makes a run of another run's ledger; name that one with --run"
        raise WrongUseError(message)
    if not out and not into:
        message = "--out is missing: name the file for the survivors" + (" (or a run, with --into)" if run else "")
        raise WrongUseError(message)
    if source and (not source.exists() or source.is_dir()):
        message = f"{source}: {'is a folder' if source.is_dir() else 'no such file'}; name a file of tasks"
        raise WrongUseError(message)


def _check_targets(source: Path | None, out: Path | None, rejects: Path | None) -> None:
    from selfinstruct_local.errors import WrongUseError
    from selfinstruct_local.files import check_writable_file

    targets = [path.resolve() for path in (source, out, rejects) if path]
    if len(set(targets)) < len(targets):
        message = f"{source or out}: --out and --rejects must name other files than IN and than each other"
        raise WrongUseError(message)
    for flag, path in (("--out", out), ("--rejects", rejects)):
        if path:
            check_writable_file(path, flag)


def _check_choices(choices: _Choices, *, run: Path | None) -> None:
    from selfinstruct_local.errors import WrongUseError
    from selfinstruct_local.filter.rulesets import RULE_SETS

    if choices.threshold is not None and not 0 < choices.threshold <= 1:
        message = f"--threshold {choices.threshold}: above 0 and at most 1"
        raise WrongUseError(message)
    _check_choice("--rules", choices.rules, (None, *RULE_SETS))
    # A run is decided exactly, and by the tokens of its language: that is what a resumed `generate` goes on with.
    _check_choice("--prefilter", choices.prefilter, ("exact", "none", "auto", *(() if run else ("minhash",))))
    _check_choice("--lang", choices.lang, (None, *LANGUAGES))
    _check_choice("--tokenizer", choices.tokenizer, (None, "rouge", "unicode"))
    if run and choices.tokenizer:
        message = f"--tokenizer {choices.tokenizer}: a run is decided by the tokens of its --lang; leave it out"
        raise WrongUseError(message)
    if choices.verify and (choices.tokenizer == "unicode" or choices.lang == "zh"):
        message = "--verify: rouge_score sees a-z and 0-9 alone, so it can check --tokenizer rouge alone"
        raise WrongUseError(message)
    if choices.verify and choices.prefilter == "minhash":
        message = "--verify: minhash may miss pairs by its nature; check --prefilter exact, or read its recall"
        raise WrongUseError(message)


def _check_choice(flag: str, value: str | None, choices: Collection[str | None]) -> None:
    from selfinstruct_local.errors import WrongUseError

    if value not in choices:
        message = f"{flag} {value}: one of {', '.join(choice for choice in choices if choice)}"
        raise WrongUseError(message)


def _print_summary(
    counts: "FilterCounts", written: list[str], seconds: float, verification: "Verification | None", *, as_json: bool
) -> None:
    if as_json:
        import orjson

        summary: dict[str, Any] = {
            "read": counts.read,
            "kept": counts.kept,
            "rejected": dict(counts.rejected.most_common()),
            "skipped_lines": len(counts.skipped),
            "seconds": round(seconds, 3),
            "out": written[0],
        }
        if verification:
            summary["verified"] = {
                "pairs": verification.pairs,
                "decisions": verification.decisions,
                "disagreements": verification.disagreements,
            }
        typer.echo(orjson.dumps(summary).decode())
        return
    typer.echo(f"kept {counts.kept} of {counts.read} in {seconds:.2f} s: {', '.join(written)}")
    for rule, count in counts.rejected.most_common():
        typer.echo(f"{count:>8}  {rule}")
    if verification and not verification.disagreements:
        typer.echo(f"verified: {verification.describe()}")


def _raise_what_fell_short(source: Path | None, counts: "FilterCounts", verification: "Verification | None") -> None:
    from selfinstruct_local.errors import JobFailedError, PartlyDoneError

    if verification and verification.disagreements:
        raise JobFailedError(verification.describe())
    if counts.skipped:
        message = f"{source}: {len(counts.skipped)} line(s) could not be read, first: {counts.skipped[0]}"
        raise PartlyDoneError(message)
