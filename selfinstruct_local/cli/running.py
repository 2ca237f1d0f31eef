"""Functions that `generate`, `translate` and `polish` share: running with a display, and reporting totals."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from selfinstruct_local.cli.options import print_json

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from contextlib import AbstractContextManager

    from selfinstruct_local.generate.job import Profile
    from selfinstruct_local.generate.launch import ChosenModel
    from selfinstruct_local.generate.run import Outcome, Work
    from selfinstruct_local.generate.settings import GenerateSettings
    from selfinstruct_local.runs.store import RunStore
    from selfinstruct_local.runs.store.records import Totals
    from selfinstruct_local.task import Task

# The flag of each budget that `Outcome.reason` can name.
BUDGETS = {"tokens": "--token-budget", "requests": "--request-budget", "minutes": "--minutes"}


def open_store(folder: Path, flag: str = "--run", *, dry_run: bool = False) -> "AbstractContextManager[RunStore]":
    """Return the open run in a folder, created if missing; a dry run gets it from `found_run`.

    Raises:
        UsageError: as in `RunStore` and `found_run`.
    """
    from selfinstruct_local.runs.store import RunStore

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
    """Run with a progress display, then report; arguments and errors are those of `generate.run.run`.

    Raises:
        Exit: a signal ended the run, with code 130 or 143.
    """
    from selfinstruct_local.generate.display import RunDisplay
    from selfinstruct_local.generate.launch import launch
    from selfinstruct_local.generate.run import run
    from selfinstruct_local.io.interrupt import interruptible
    from selfinstruct_local.io.progress import stderr_console

    log = store.folder / "engine.log"
    what = (
        f"waiting for {', '.join(settings.engine.endpoint)}"
        if settings.engine.endpoint
        else f"starting vLLM on {model.folder.path.name if model.folder else ''} (its log: {log})"
    )
    display = RunDisplay(stderr_console(), store.totals(), settings.num, what)
    with interruptible() as interrupt, display:
        outcome = run(
            store, settings, seeds, lambda: launch(model, settings, log, store), display, interrupt, work=work
        )
    report(outcome)
    if interrupt.signum is not None and outcome.reason == "interrupted":
        raise typer.Exit(128 + interrupt.signum)


def note_unused_prompts(settings: "GenerateSettings", profile: "Profile") -> None:
    """Print on stderr which of the user's own prompts this run does not use."""
    from selfinstruct_local.io.progress import stderr_console

    if note := settings.prompts.note_unused(profile.prompts, f"profile '{profile.name}' under these settings"):
        stderr_console().print(note)


def note_seeds(settings: "GenerateSettings", seeds: "Sequence[Task]", *, given: bool) -> None:
    """Print a note on stderr if magpie gets seeds, or if there are fewer seeds than few-shot examples per prompt.

    Args:
        settings: settings of this session.
        seeds: seeds of the run.
        given: whether the user passed the seeds.
    """
    from selfinstruct_local.generate.profiles.registry import PROFILES
    from selfinstruct_local.io.progress import stderr_console

    profile = PROFILES[settings.profile]
    if profile.name == "magpie" and given:
        stderr_console().print(
            "note: --profile magpie has no few-shot examples; it uses only the first words of some --seeds "
            "instructions, as openings of questions"
        )
    elif len(seeds) < profile.demonstrations:
        always = len(seeds) <= profile.demonstrations - profile.machine_made
        shown = "every prompt has all of them" if always else "prompts have all of them until tasks are accepted"
        stderr_console().print(
            f"seeds: {len(seeds)}, fewer than the {profile.demonstrations} few-shot examples of a prompt; {shown}"
        )


def describe_rejected(totals: "Totals") -> str:
    """Return the number of rejected tasks per rule as text."""
    return ", ".join(f"{count} {rule}" for rule, count in totals.rejected.items()) or "none"


def report_run(store: "RunStore", outcome: "Outcome", line: str, facts: "Mapping[str, Any] | None" = None) -> None:
    """Print what the session did and `line` on stderr, and the exported file on stdout.

    Args:
        store: the run.
        outcome: how the session ended.
        line: summary of the run for the user.
        facts: values to print as JSON with the totals instead of the file name; None prints the file name.
    """
    from selfinstruct_local.generate.display import describe_session
    from selfinstruct_local.generate.run import EXPORT
    from selfinstruct_local.io.progress import stderr_console

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
