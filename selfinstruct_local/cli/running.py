"""What `generate`, `translate` and `polish` have in common: choosing the model, the run on display, the totals."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from selfinstruct_local.cli.options import find_or_prepare, print_json

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from contextlib import AbstractContextManager

    from selfinstruct_local.config import GenerateSettings
    from selfinstruct_local.generate.launch import ChosenModel
    from selfinstruct_local.generate.run import Outcome, Work
    from selfinstruct_local.store import RunStore
    from selfinstruct_local.store.records import Totals
    from selfinstruct_local.tasks import Task

# The flags of the budgets that an outcome may name.
BUDGETS = {"tokens": "--token-budget", "requests": "--request-budget", "minutes": "--minutes"}


def choose_model(
    model: str | None, adapter: Path | None, settings: "GenerateSettings", *, may_prepare: bool = True
) -> "ChosenModel":
    """What `--model` and `--adapter` name: on this machine, or as the servers of `--endpoint` offer it.

    Args:
        model: a folder, or the name of a prepared or served model; None for the embedded one or the only one served.
        adapter: a LoRA folder over it.
        settings: `engine.endpoint` names the servers.
        may_prepare: see `find_or_prepare`.

    Raises:
        WrongUseError: there is no such model, it is not whole or not safe, or its context is too short.
    """
    from selfinstruct_local.errors import WrongUseError
    from selfinstruct_local.generate.launch import ChosenModel, choose_served_model
    from selfinstruct_local.models.adapter import check_adapter

    if settings.engine.endpoint:
        if adapter:
            message = "--adapter: servers load adapters themselves; name the one they serve with --model"
            raise WrongUseError(message)
        return choose_served_model(model, settings)
    if adapter:
        check_adapter(adapter)
    folder = find_or_prepare(model, may_prepare=may_prepare)
    folder.check_context(settings.max_model_len)
    return ChosenModel(folder, adapter=adapter)


def open_store(folder: Path, flag: str = "--run", *, dry_run: bool = False) -> "AbstractContextManager[RunStore]":
    """The run in a folder, which is made; a dry run finds it as `found_run` says.

    Raises:
        WrongUseError: see `RunStore` and `found_run`.
    """
    from selfinstruct_local.store import RunStore

    if dry_run:
        from selfinstruct_local.cli.dry_run import found_run

        return found_run(folder, flag)
    return RunStore(folder)


def run_on_display(
    store: "RunStore",
    settings: "GenerateSettings",
    model: "ChosenModel",
    seeds: "Sequence[Task]",
    report: "Callable[[Outcome], None]",
    work: "Work | None" = None,
) -> None:
    """Runs with a display of what happens, then reports; see `run` for what it takes and raises.

    Raises:
        Exit: a signal ended it, 130 or 143.
    """
    from selfinstruct_local.generate.launch import launch
    from selfinstruct_local.generate.run import run
    from selfinstruct_local.interrupt import interruptible
    from selfinstruct_local.progress import RunDisplay, stderr_console

    log = store.folder / "engine.log"
    what = (
        f"waiting for {', '.join(settings.engine.endpoint)}"
        if settings.engine.endpoint
        else f"starting vLLM on {model.folder.path.name if model.folder else ''} (its log: {log})"
    )
    display = RunDisplay(stderr_console(), store.totals(), settings.num, what)
    with interruptible() as interrupt, display:
        outcome = run(store, settings, seeds, lambda: launch(model, settings, log), display, interrupt, work=work)
    report(outcome)
    if interrupt.signum is not None and outcome.reason == "interrupted":
        raise typer.Exit(128 + interrupt.signum)


def describe_rejected(totals: "Totals") -> str:
    """How many were rejected by each rule."""
    return ", ".join(f"{count} {rule}" for rule, count in totals.rejected.items()) or "none"


def report_run(store: "RunStore", outcome: "Outcome", line: str, facts: "Mapping[str, Any] | None" = None) -> None:
    """Prints what the start did and `line` about the run on stderr, and the exported file on stdout.

    Args:
        store: the run.
        outcome: of this start.
        line: for a person.
        facts: for a program, which gets them with the totals in place of the file's name; None prints the name.
    """
    from selfinstruct_local.generate.run import EXPORT
    from selfinstruct_local.progress import describe_session, stderr_console

    console = stderr_console()
    if outcome.meter:
        console.print(describe_session(outcome.accepted, outcome.meter))
    console.print(line)
    if facts is None:
        typer.echo(store.folder / EXPORT)
        return
    totals = store.totals()._asdict()
    seconds = round(outcome.meter.elapsed, 3) if outcome.meter else 0.0
    session = {"reason": outcome.reason, "accepted_now": outcome.accepted, "seconds": seconds}
    print_json({"file": str(store.folder / EXPORT), **session, **facts, **totals})
