"""`--dry-run`: opens a run as a session would, and prints settings and requests without sending anything.

This module imports the generation loop and with it numba, so the commands import it inside their functions.
"""

import os
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import typer

from selfinstruct_local.errors import UsageError, one_line
from selfinstruct_local.generate.run import make_acceptance, make_scheduler
from selfinstruct_local.io.files import check_name
from selfinstruct_local.io.terminal import echo_data
from selfinstruct_local.runs.store import DATABASE, RunStore
from selfinstruct_local.templates.conversation import PromptEncoder, is_conversation
from selfinstruct_local.train.trainer import load_tokenizer

if TYPE_CHECKING:
    from collections.abc import Sequence

    from selfinstruct_local.engines.base import Request
    from selfinstruct_local.generate.job import Profile
    from selfinstruct_local.generate.launch import ChosenModel
    from selfinstruct_local.generate.run import Work
    from selfinstruct_local.generate.settings import GenerateSettings
    from selfinstruct_local.models import ModelFolder
    from selfinstruct_local.task import Task

WIDTH = 15  # characters of the column of names


@contextmanager
def found_run(folder: Path, flag: str = "--run") -> Iterator[RunStore]:
    """Yield the run in `folder` as a session would open it, without any change to the folder.

    A started run is opened read-only. A new run is created in a temporary folder that is deleted afterwards, so that
    all checks of a new run apply to it; it has the tasks that were imported into `folder`.

    Raises:
        UsageError: the folder could not be created, or it is not a run.
    """
    with ExitStack() as stack:
        inherited = []
        if (folder / DATABASE).exists():
            store = stack.enter_context(RunStore(folder, read_only=True))
            if store.facts():
                yield store
                return
            inherited = list(store.inherited())
        check_could_be_made(folder, flag)
        place = stack.enter_context(TemporaryDirectory(prefix="selfinstruct-dry-run-"))
        scratch = stack.enter_context(RunStore(Path(place)))
        scratch.folder = folder  # errors name the folder of the user
        scratch.inherit(inherited)
        yield scratch


def check_could_be_made(folder: Path, flag: str) -> None:
    """Raise UsageError if `check_writable_folder` would fail; the folder is not created.

    Raises:
        UsageError: the folder could not be created or written to, or its name is not UTF-8.
    """
    check_name(folder, flag)
    there = next(each for each in (folder, *folder.absolute().parents) if each.exists())
    if not there.is_dir() or not os.access(there, os.W_OK | os.X_OK):
        reason = "not a directory" if not there.is_dir() else "permission denied"
        message = f"{flag} {folder}: the folder cannot be written to ({reason}); name a writable folder"
        raise UsageError(message)


def print_facts(facts: "Iterable[tuple[str, object]]") -> None:
    """Print names and values on stdout, one pair per line."""
    for name, value in facts:
        typer.echo(one_line(f"{name:<{WIDTH}}{value}"))


def describe_settings(settings: "GenerateSettings", model: "ChosenModel") -> list[tuple[str, object]]:
    """Return the model, engine and context settings as names and values."""
    engine = settings.engine
    name = model.folder.path.name if model.folder else model.served
    return [
        ("model", f"{name}{f' with {model.adapter}' if model.adapter else ''}, prompt format {settings.prompt_format}"),
        ("engine", ", ".join(engine.endpoint) or f"vLLM on this machine, dtype {engine.dtype}"),
        ("in flight", f"{engine.in_flight} concurrent requests, window of {settings.window} jobs"),
        ("context", f"{settings.max_model_len} tokens"),
    ]


def describe_rules(settings: "GenerateSettings") -> list[tuple[str, object]]:
    """Return the rule set and its thresholds as names and values."""
    limits = settings.thresholds()._asdict()
    told = ", ".join(f"{name} {value}" for name, value in limits.items() if value is not None)
    return [
        ("rules", f"{settings.rules}, for {settings.lang}"),
        ("thresholds", f"threshold {settings.threshold}, {told}"),
    ]


def describe_prompts(settings: "GenerateSettings", profile: "Profile") -> list[tuple[str, object]]:
    """Return the names of the user's own prompts that the profile uses; empty if there are none."""
    own = [name for name in profile.prompts if name in settings.prompts.own]
    return [("own prompts", f"{', '.join(own)}, from {settings.prompts.folder}")] if own else []


def next_request(
    store: RunStore, settings: "GenerateSettings", seeds: "Sequence[Task]", work: "Work | None" = None
) -> "Request | None":
    """Return the request that a session would send first, or None if all requests are answered."""
    acceptance = make_acceptance(store, settings, seeds, store.pool(), work)
    return next(make_scheduler(store, settings, seeds, acceptance, work))


def show_request(request: "Request", folder: "ModelFolder | None", title: str = "first request") -> None:
    """Print a request as the model receives it; a conversation is formatted with the chat template.

    Args:
        request: the request.
        folder: folder of the model; None if only a server has its files, then a conversation is printed turn by turn.
        title: name of the request in the output.

    Raises:
        UsageError: the model has no chat template, or its tokenizer cannot be loaded.
    """
    text, size = request.prompt, f"{len(request.prompt)} characters"
    if is_conversation(request) and folder is not None:
        tokenizer = load_tokenizer(folder)
        ids = PromptEncoder(tokenizer, folder.path.name).encode(request)
        text, size = str(tokenizer.decode(ids)), f"{len(ids)} tokens"
    elif is_conversation(request):
        turns = [*request.turns, *([(request.role, request.prompt)] if request.prompt else [])]
        text = "\n\n".join(f"[{role}]\n{content}" for role, content in turns)
        size = f"{len(turns)} turns, which the server formats with its chat template"
    sampling = request.sampling
    drawn = f"temperature {sampling.temperature}, top_p {sampling.top_p}, at most {sampling.max_tokens} tokens"
    key = request.key
    print_facts([(title, f"job {key.job}, stage {key.stage}; {size}; {drawn}")])
    typer.echo("")
    echo_data(text)
