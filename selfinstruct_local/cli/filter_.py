"""`selfinstruct filter`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from selfinstruct_local.filter.files import FilterCounts


def filter_(
    source: Annotated[Path, typer.Argument(metavar="IN", help="Tasks: JSONL, or a JSON array.")],
    *,
    out: Annotated[Path, typer.Option(help="Survivors: JSONL, or a JSON array if it ends in .json.")],
    rejects: Annotated[Path | None, typer.Option(help="Rejects with their reasons, JSONL.")] = None,
    threshold: Annotated[float, typer.Option(help="ROUGE-L F above which it is a near copy.")] = 0.7,
    rules: Annotated[str, typer.Option(help="alpaca, self-instruct or none.")] = "alpaca",
    skip_bad_lines: Annotated[
        bool, typer.Option("--skip-bad-lines", help="Count lines that cannot be read; exit 3 at the end.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the summary as JSON.")] = False,
) -> None:
    """Filter a file of tasks by rules and ROUGE-L novelty, exactly, in its order."""
    from selfinstruct_local.errors import PartlyDoneError, WrongUseError
    from selfinstruct_local.files import check_writable_file
    from selfinstruct_local.filter.rules import RULE_SETS

    if rules not in RULE_SETS:
        message = f"--rules {rules}: one of {', '.join(RULE_SETS)}"
        raise WrongUseError(message)
    if not 0 < threshold <= 1:
        message = f"--threshold {threshold}: above 0 and at most 1"
        raise WrongUseError(message)
    if not source.is_file():
        message = f"{source}: no such file"
        raise WrongUseError(message)
    targets = [path.resolve() for path in (source, out, rejects) if path]
    if len(set(targets)) < len(targets):
        message = f"{source}: --out and --rejects must name other files than IN and than each other"
        raise WrongUseError(message)
    check_writable_file(out, "--out")
    if rejects:
        check_writable_file(rejects, "--rejects")

    from selfinstruct_local.filter.decide import Decider
    from selfinstruct_local.filter.files import filter_file
    from selfinstruct_local.kernels import NoveltyIndex

    decider = Decider(RULE_SETS[rules], NoveltyIndex(threshold=threshold))
    counts = filter_file(source, out, rejects, decider, skip_bad_lines=skip_bad_lines)
    _print_summary(counts, out, as_json=as_json)
    if counts.skipped:
        message = f"{source}: {len(counts.skipped)} line(s) could not be read, first: {counts.skipped[0]}"
        raise PartlyDoneError(message)


def _print_summary(counts: "FilterCounts", out: Path, *, as_json: bool) -> None:
    if as_json:
        import orjson

        summary = {
            "read": counts.read,
            "kept": counts.kept,
            "rejected": dict(counts.rejected.most_common()),
            "skipped_lines": len(counts.skipped),
            "out": str(out),
        }
        typer.echo(orjson.dumps(summary).decode())
        return
    typer.echo(f"kept {counts.kept} of {counts.read}: {out}")
    for rule, count in counts.rejected.most_common():
        typer.echo(f"{count:>8}  {rule}")
