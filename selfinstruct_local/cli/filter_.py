"""`selfinstruct filter`."""

import gc
import time
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from selfinstruct_local.cli.choices import (
    FILTER_ENGINES,
    PREFILTERS,
    RULE_SETS,
    TOKENIZER_NAMES,
    check_choice,
    completing,
    languages,
)
from selfinstruct_local.cli.filter_choices import (
    FilterChoices,
    SettledChoices,
    add_settings,
    check_choices,
    shared_facts,
    silent_told_once,
)
from selfinstruct_local.cli.filter_ray import check_ray_choices, filter_on_ray
from selfinstruct_local.cli.options import ConfigOption, QuietOption

if TYPE_CHECKING:
    from selfinstruct_local.filters.files import FilterCounts
    from selfinstruct_local.filters.verify import DecisionLog, Verification


def filter_(
    sources: Annotated[
        list[Path] | None, typer.Argument(metavar="[IN]...", help="Files of tasks: JSONL, a JSON array, or Parquet.")
    ] = None,
    *,
    out: Annotated[
        Path | None,
        typer.Option(
            help="File of kept tasks: .json for a JSON array, .parquet for Parquet, else JSONL. For ray, a folder."
        ),
    ] = None,
    rejects: Annotated[Path | None, typer.Option(help="JSONL file of rejected tasks with reasons.")] = None,
    run: Annotated[
        list[Path] | None,
        typer.Option(help="Run to rejudge instead of IN, without a model. May be repeated for ray."),
    ] = None,
    into: Annotated[
        Path | None,
        typer.Option(metavar="NEWRUN", help="Folder of a new run with the new verdicts of --run, to continue from."),
    ] = None,
    against: Annotated[
        list[Path] | None, typer.Option(help="Tasks that kept tasks must also differ from; may be repeated.")
    ] = None,
    engine: Annotated[
        str,
        typer.Option(
            help="Filter engine: local, or ray for several machines.", autocompletion=completing(FILTER_ENGINES)
        ),
    ] = "local",
    ray_address: Annotated[
        str | None, typer.Option(help="Address of a Ray cluster, or auto. [default: a local Ray is started]")
    ] = None,
    workers: Annotated[int | None, typer.Option(min=1, help="CPUs of the local Ray. [default: all]")] = None,
    config: ConfigOption = None,
    threshold: Annotated[
        float | None,
        typer.Option(help="ROUGE-L F above which an instruction is a near copy. [default: 0.7, or the run's]"),
    ] = None,
    prefilter: Annotated[
        str, typer.Option(help="Prefilter: exact, minhash, none or auto.", autocompletion=completing(PREFILTERS))
    ] = "exact",
    lang: Annotated[
        str | None,
        typer.Option(help="Language of the rules: en or zh. [default: en, or the run's]", autocompletion=languages),
    ] = None,
    tokenizer: Annotated[
        str | None,
        typer.Option(
            help="Tokenizer: rouge (a-z, 0-9) or unicode (all scripts). [default: by --lang]",
            autocompletion=completing(TOKENIZER_NAMES),
        ),
    ] = None,
    rules: Annotated[
        str | None,
        typer.Option(
            help="Rule set: alpaca, self-instruct, alpaca-2023, self-instruct-2022 (as published) or none. "
            "[default: alpaca, or the run's]",
            autocompletion=completing(RULE_SETS),
        ),
    ] = None,
    decontaminate: Annotated[
        list[Path] | None,
        typer.Option(help="Evaluation set; tasks that share an n-gram with it are rejected. May be repeated."),
    ] = None,
    ngram: Annotated[int, typer.Option(min=1, help="Words per n-gram of --decontaminate.")] = 13,
    verify: Annotated[
        int, typer.Option(min=0, help="Number of random pairs to verify with rouge_score, and some decisions.")
    ] = 0,
    skip_bad_lines: Annotated[
        bool, typer.Option("--skip-bad-lines", help="Skip and count invalid lines; exit code 3 at the end.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the summary as JSON.")] = False,
    quiet: QuietOption = False,
) -> None:
    """Filter files of tasks, or a run, by rules and exact ROUGE-L novelty, in order."""
    choices = FilterChoices(
        rules, threshold, prefilter, lang, tokenizer, against or [], decontaminate or [], ngram, verify
    )
    files, runs = sources or [], run or []
    if config is not None:
        add_settings(choices, config, of_run=bool(runs))
    _check_engine(engine, ray_address, workers, runs)
    _check_sources(files, runs, into)
    check_choices(choices, of_run=bool(runs))
    if engine == "ray":
        folder = check_ray_choices(choices, out, rejects, into)
    else:
        inputs = [*files, *choices.against, *choices.decontaminate, config]
        _check_targets({"--out": out, "--rejects": rejects}, inputs, into, of_run=bool(runs))
    settled = choices.settle(shared_facts(runs, choices))
    log = None
    started = time.perf_counter()
    if engine == "ray":
        counts: FilterCounts = filter_on_ray(
            files, runs, settled, folder, address=ray_address, workers=workers, skip_bad_lines=skip_bad_lines
        )
    else:
        # Loaded modules stay, and rows have no reference cycles: looking for some would take a tenth of the time.
        gc.disable()
        if runs:
            counts, log = _filter_run(runs[0], into, settled, out, rejects)
        elif out:
            counts, log = _filter_files(files, settled, out, rejects, skip_bad_lines=skip_bad_lines)
    seconds = time.perf_counter() - started
    verification = log.verify(verify, settled.threshold) if log else None
    _print_summary(counts, [str(path) for path in (out, into) if path], seconds, verification, as_json=as_json)
    _raise_what_fell_short(files, counts, verification)


def _filter_files(
    sources: list[Path], choices: SettledChoices, out: Path, rejects: Path | None, *, skip_bad_lines: bool
) -> "tuple[FilterCounts, DecisionLog | None]":
    from selfinstruct_local.filters.files import FileFilter
    from selfinstruct_local.io.progress import counting, stderr_console

    decider, log = choices.make_decider()
    file_filter = FileFilter(decider, log)
    with silent_told_once(decider.index):
        for path in choices.against:
            file_filter.add_known(path)
        with counting(stderr_console(), "filtering") as advance:
            counts = file_filter.filter_files(sources, out, rejects, skip_bad_lines=skip_bad_lines, advance=advance)
        if choices.prefilter == "minhash":
            stderr_console().print(f"minhash: {file_filter.measure_recall()}")
    return counts, log


def _filter_run(
    run: Path, into: Path | None, choices: SettledChoices, out: Path | None, rejects: Path | None
) -> "tuple[FilterCounts, DecisionLog | None]":
    from selfinstruct_local.io.progress import counting, stderr_console
    from selfinstruct_local.runs.rejudge import LedgerFilter, new_run
    from selfinstruct_local.runs.store import RunStore

    with ExitStack() as stack:
        ledger = stack.enter_context(RunStore(run, read_only=True))
        decider, log = choices.make_decider()
        stack.enter_context(silent_told_once(decider.index))
        ledger_filter = LedgerFilter(decider, log)
        for path in choices.against:
            ledger_filter.add_known_file(path)
        new = None
        if into:
            changed = {"rules": choices.rules, "threshold": choices.threshold, "lang": choices.lang}
            new = stack.enter_context(new_run(into, ledger, **changed, **choices.limits._asdict()))
        with counting(stderr_console(), "filtering") as advance:
            return ledger_filter.filter_run(ledger, out, rejects, new, advance), log


def _check_engine(engine: str, address: str | None, workers: int | None, runs: list[Path]) -> None:
    from selfinstruct_local.errors import UsageError

    check_choice("--engine", engine, FILTER_ENGINES)
    message = ""
    if engine == "local" and (address or workers):
        message = f"{'--ray-address' if address else '--workers'}: only for --engine ray; remove it"
    elif address and workers:
        message = f"--workers {workers}: the cluster at --ray-address has its own workers; remove it"
    elif engine == "local" and len(runs) > 1:
        message = f"--run {runs[1]}: several runs need --engine ray; name only one"
    if message:
        raise UsageError(message)


def _check_sources(files: list[Path], runs: list[Path], into: Path | None) -> None:
    from selfinstruct_local.errors import UsageError
    from selfinstruct_local.io.reader import reading

    if bool(files) == bool(runs):
        message = "name either files of tasks, or a run with --run RUN"
        raise UsageError(message)
    if into and not runs:
        message = f"--into {into}: needs a run to rejudge; name it with --run"
        raise UsageError(message)
    for source in files:
        with reading(source):
            if not source.exists() or source.is_dir():
                message = f"{source}: {'is a folder' if source.is_dir() else 'no such file'}; name a file of tasks"
                raise UsageError(message)


def _check_targets(
    targets: Mapping[str, Path | None], inputs: list[Path | None], into: Path | None, *, of_run: bool
) -> None:
    from selfinstruct_local.errors import UsageError
    from selfinstruct_local.io.files import check_new_folder
    from selfinstruct_local.runs.targets import check_targets

    if not targets["--out"] and not into:
        message = "--out is missing: name the file for the kept tasks" + (" (or a run, with --into)" if of_run else "")
        raise UsageError(message)
    if into:
        check_new_folder(into, "--into")
        for flag, path in targets.items():
            if path and into.resolve() in path.resolve().parents:
                message = f"{flag} {path}: is in the folder that --into creates at the end; name a file elsewhere"
                raise UsageError(message)
    check_targets(targets, inputs)


def _print_summary(
    counts: "FilterCounts", written: list[str], seconds: float, verification: "Verification | None", *, as_json: bool
) -> None:
    if as_json:
        import orjson

        summary: dict[str, Any] = {
            "read": counts.read,
            "kept": counts.kept,
            "instances": counts.instances,
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
    if counts.instances:
        typer.echo(f"{counts.instances:>8}  further instances of kept tasks, included above")
    for rule, count in counts.rejected.most_common():
        typer.echo(f"{count:>8}  {rule}")
    if verification and not verification.disagreements:
        typer.echo(f"verified: {verification.describe()}")


def _raise_what_fell_short(files: list[Path], counts: "FilterCounts", verification: "Verification | None") -> None:
    from selfinstruct_local.errors import PartlyDoneError, RunError

    if verification and verification.disagreements:
        raise RunError(verification.describe())
    if counts.skipped:
        what = str(files[0]) if len(files) == 1 else f"{len(files)} files"
        message = f"{what}: {len(counts.skipped)} invalid line(s) skipped, the first: {counts.skipped[0]}"
        raise PartlyDoneError(message)
