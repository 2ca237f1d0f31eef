"""`selfinstruct doctor`."""

import sys
from collections import Counter
from io import TextIOWrapper
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from selfinstruct_local.cli.choices import PRESETS, completing
from selfinstruct_local.cli.options import ModelOption, QuietOption

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from selfinstruct_local.doctor import Finding

STYLES = {"ok": "green", "warn": "yellow", "fail": "red"}
# Length of the longest check name, "shared memory".
WIDTH = 13


def doctor(
    *,
    model: ModelOption = None,
    out: Annotated[Path, typer.Option(help="Folder for runs and trained models.")] = Path(),
    preset: Annotated[
        str | None,
        typer.Option(
            help="Training preset to check, as in 'train --preset'. [default: LoRA, with warnings only]",
            autocompletion=completing(PRESETS),
        ),
    ] = None,
    port: Annotated[
        int | None, typer.Option(min=1, max=65535, help="Port for 'selfinstruct serve'. [default: 8000]")
    ] = None,
    endpoint: Annotated[
        list[str] | None, typer.Option(help="Base URL of a server that must be reachable. May be repeated.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    quiet: QuietOption = False,
) -> None:
    """Check whether this machine is ready for a long run. Exit code 1 if a check fails."""
    from selfinstruct_local.doctor import Wish, examine
    from selfinstruct_local.io.progress import stderr_console, waiting

    training = None
    endpoints: tuple[str, ...] = ()
    if preset is not None:
        from selfinstruct_local.train.settings import load_train_settings

        training = load_train_settings(preset, None, {})
    if endpoint:
        from selfinstruct_local.engines.model_lists import check_urls

        endpoints = check_urls(endpoint)
    found = examine(Wish(model, out, training, port, endpoints))
    if as_json:
        with waiting(stderr_console(), "checking this machine (half a minute)"):
            findings = list(found)
        _print_json(findings)
    else:
        findings = _print(found)
    if any(each.status == "fail" for each in findings):
        raise typer.Exit(1)


def _print(found: "Iterable[Finding]") -> "list[Finding]":
    """Print each finding as it comes and then the summary, and return all findings."""
    from rich.console import Console
    from rich.text import Text

    from selfinstruct_local.errors import one_line

    if isinstance(sys.stdout, TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # prints in ASCII locales too
    console = Console(highlight=False, markup=False, soft_wrap=True)
    findings = []
    for each in found:
        findings.append(each)
        mend = f" — {each.mend}" if each.mend else ""
        rest = one_line(f"  {each.check:<{WIDTH}}  {each.detail}{mend}")
        console.print(Text.assemble((f"{each.status:<4}", STYLES[each.status]), rest))
    console.print(_summary(findings))
    return findings


def _summary(findings: "Sequence[Finding]") -> str:
    counts = _counts(findings)
    verdict = "not ready: fix the failed checks" if counts["fail"] else "ready"
    return f"{verdict}; {counts['ok']} ok, {counts['warn']} warn, {counts['fail']} fail"


def _counts(findings: "Sequence[Finding]") -> dict[str, int]:
    found = Counter(each.status for each in findings)
    return {"ok": found["ok"], "warn": found["warn"], "fail": found["fail"]}


def _print_json(findings: "Sequence[Finding]") -> None:
    import orjson

    counts = _counts(findings)
    # orjson writes dataclasses as objects, in the order of their attributes.
    record = {"findings": findings, "summary": {**counts, "fit": not counts["fail"]}}
    typer.echo(orjson.dumps(record, option=orjson.OPT_INDENT_2).decode())
