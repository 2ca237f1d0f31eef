"""`selfinstruct filter`."""

import gc
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from selfinstruct_local.filter.files import FilterCounts
    from selfinstruct_local.filter.verify import Verification


def filter_(
    source: Annotated[Path, typer.Argument(metavar="IN", help="Tasks: JSONL, a JSON array, or Parquet.")],
    *,
    out: Annotated[Path, typer.Option(help="Survivors; .json makes an array, .parquet Parquet, else JSONL.")],
    rejects: Annotated[Path | None, typer.Option(help="Rejects with their reasons, JSONL.")] = None,
    against: Annotated[
        list[Path] | None, typer.Option(help="Tasks that new ones must differ from too; may be repeated.")
    ] = None,
    threshold: Annotated[float, typer.Option(help="ROUGE-L F above which it is a near copy.")] = 0.7,
    prefilter: Annotated[str, typer.Option(help="exact, minhash, none or auto.")] = "exact",
    tokenizer: Annotated[str, typer.Option(help="rouge (a-z, 0-9) or unicode (all scripts).")] = "rouge",
    rules: Annotated[str, typer.Option(help="alpaca, self-instruct or none.")] = "alpaca",
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
) -> None:
    """Filter a file of tasks by rules and ROUGE-L novelty, exactly, in its order."""
    from selfinstruct_local.errors import JobFailedError, PartlyDoneError
    from selfinstruct_local.filter.rules import RULE_SETS
    from selfinstruct_local.progress import counting, stderr_console

    _check(source, out, rejects, threshold=threshold)
    _check_choice("--rules", rules, RULE_SETS)
    _check_choice("--prefilter", prefilter, ("exact", "minhash", "none", "auto"))
    _check_choice("--tokenizer", tokenizer, ("rouge", "unicode"))
    _check_verify(verify, prefilter=prefilter, tokenizer=tokenizer)

    from selfinstruct_local.filter.contamination import EvaluationSet
    from selfinstruct_local.filter.decide import Decider
    from selfinstruct_local.filter.files import FileFilter
    from selfinstruct_local.filter.verify import DecisionLog
    from selfinstruct_local.kernels import NoveltyIndex

    # What is loaded by now stays: the collector need not look through it again and again while rows go by.
    gc.disable()  # rows make no cycles, and looking for some takes a tenth of the time
    started = time.perf_counter()
    index = NoveltyIndex(threshold=threshold, prefilter=prefilter, tokenizer=tokenizer)  # type: ignore[arg-type]
    evaluation = EvaluationSet(decontaminate, ngram, index.tokenizer) if decontaminate else None
    log = DecisionLog() if verify else None
    file_filter = FileFilter(Decider(RULE_SETS[rules], index, evaluation), log)
    for path in against or []:
        file_filter.add_known(path)
    with counting(stderr_console(), "filtering") as advance:
        counts = file_filter.filter_file(source, out, rejects, skip_bad_lines=skip_bad_lines, advance=advance)
    seconds = time.perf_counter() - started
    verification = log.verify(verify, threshold) if log else None
    _print_summary(counts, out, seconds, verification, as_json=as_json)
    if prefilter == "minhash":
        stderr_console().print(f"minhash: {file_filter.measure_recall()}")
    if verification and verification.disagreements:
        raise JobFailedError(verification.describe())
    if counts.skipped:
        message = f"{source}: {len(counts.skipped)} line(s) could not be read, first: {counts.skipped[0]}"
        raise PartlyDoneError(message)


def _check(source: Path, out: Path, rejects: Path | None, *, threshold: float) -> None:
    from selfinstruct_local.errors import WrongUseError
    from selfinstruct_local.files import check_writable_file

    if not 0 < threshold <= 1:
        message = f"--threshold {threshold}: above 0 and at most 1"
        raise WrongUseError(message)
    if not source.exists() or source.is_dir():
        message = f"{source}: {'is a folder' if source.is_dir() else 'no such file'}; name a file of tasks"
        raise WrongUseError(message)
    targets = [path.resolve() for path in (source, out, rejects) if path]
    if len(set(targets)) < len(targets):
        message = f"{source}: --out and --rejects must name other files than IN and than each other"
        raise WrongUseError(message)
    check_writable_file(out, "--out")
    if rejects:
        check_writable_file(rejects, "--rejects")


def _check_choice(flag: str, value: str, choices: "Any") -> None:
    from selfinstruct_local.errors import WrongUseError

    if value not in choices:
        message = f"{flag} {value}: one of {', '.join(choices)}"
        raise WrongUseError(message)


def _check_verify(verify: int, *, prefilter: str, tokenizer: str) -> None:
    from selfinstruct_local.errors import WrongUseError

    if verify and tokenizer != "rouge":
        message = "--verify: rouge_score sees a-z and 0-9 alone, so it can check --tokenizer rouge alone"
        raise WrongUseError(message)
    if verify and prefilter == "minhash":
        message = "--verify: minhash may miss pairs by its nature; check --prefilter exact, or read its recall"
        raise WrongUseError(message)


def _print_summary(
    counts: "FilterCounts", out: Path, seconds: float, verification: "Verification | None", *, as_json: bool
) -> None:
    if as_json:
        import orjson

        summary: dict[str, Any] = {
            "read": counts.read,
            "kept": counts.kept,
            "rejected": dict(counts.rejected.most_common()),
            "skipped_lines": len(counts.skipped),
            "seconds": round(seconds, 3),
            "out": str(out),
        }
        if verification:
            summary["verified"] = {
                "pairs": verification.pairs,
                "decisions": verification.decisions,
                "disagreements": verification.disagreements,
            }
        typer.echo(orjson.dumps(summary).decode())
        return
    typer.echo(f"kept {counts.kept} of {counts.read} in {seconds:.2f} s: {out}")
    for rule, count in counts.rejected.most_common():
        typer.echo(f"{count:>8}  {rule}")
    if verification and not verification.disagreements:
        typer.echo(f"verified: {verification.describe()}")
