"""What `--dry-run` looks at and shows: the run as a start would find it, and a request as it would be sent.

Imports the loop and with it numba: commands import it when they are called.
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

WIDTH = 15  # of the names of facts


@contextmanager
def found_run(folder: Path, flag: str = "--run") -> Iterator[RunStore]:
    """The run in `folder` as a start would find it, and nothing made there.

    One that was begun is read only. One that a start would begin stands in a scratch folder, which is thrown away, so
    that all checks of a beginning can be made on it; what was imported into it is there.

    Raises:
        UsageError: the folder could not be made, or holds what is no run.
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
        scratch.folder = folder  # errors name the run that is meant
        scratch.inherit(inherited)
        yield scratch


def check_could_be_made(folder: Path, flag: str) -> None:
    """What `check_writable_folder` asks for, as far as it can be told without making anything.

    Raises:
        UsageError: it could not be made or written to, or its name is no text.
    """
    check_name(folder, flag)
    there = next(each for each in (folder, *folder.absolute().parents) if each.exists())
    if not there.is_dir() or not os.access(there, os.W_OK | os.X_OK):
        reason = "not a directory" if not there.is_dir() else "permission denied"
        message = f"{flag} {folder}: the folder cannot be written to ({reason}); name one that can"
        raise UsageError(message)


def print_facts(facts: "Iterable[tuple[str, object]]") -> None:
    """Prints names and values on stdout, a line each."""
    for name, value in facts:
        typer.echo(one_line(f"{name:<{WIDTH}}{value}"))


def describe_settings(settings: "GenerateSettings", model: "ChosenModel") -> list[tuple[str, object]]:
    """What is asked with, and of what."""
    engine = settings.engine
    name = model.folder.path.name if model.folder else model.served
    return [
        ("model", f"{name}{f' with {model.adapter}' if model.adapter else ''}, asked by {settings.prompt_format}"),
        ("engine", ", ".join(engine.endpoint) or f"vLLM on this machine, dtype {engine.dtype}"),
        ("in flight", f"{engine.in_flight} requests, window {settings.window} jobs"),
        ("context", f"{settings.max_model_len} tokens"),
    ]


def describe_rules(settings: "GenerateSettings") -> list[tuple[str, object]]:
    """What decides on a task."""
    limits = settings.thresholds()._asdict()
    told = ", ".join(f"{name} {value}" for name, value in limits.items() if value is not None)
    return [("rules", f"{settings.rules}, for {settings.lang}"), ("limits", f"threshold {settings.threshold}, {told}")]


def describe_prompts(settings: "GenerateSettings", profile: "Profile") -> list[tuple[str, object]]:
    """Return which of the profile's prompts are the user's own, where any is."""
    own = [name for name in profile.prompts if name in settings.prompts.own]
    return [("own prompts", f"{', '.join(own)}, from {settings.prompts.folder}")] if own else []


def next_request(
    store: RunStore, settings: "GenerateSettings", seeds: "Sequence[Task]", work: "Work | None" = None
) -> "Request | None":
    """The request that a start would send first; None when all of them were answered."""
    acceptance = make_acceptance(store, settings, seeds, store.pool(), work)
    return next(make_scheduler(store, settings, seeds, acceptance, work))


def show_request(request: "Request", folder: "ModelFolder | None", title: str = "first request") -> None:
    """Prints a request as the model would read it: with the chat template around a conversation.

    Args:
        request: to show.
        folder: of the model; None when its files are elsewhere, then a conversation is shown turn by turn.
        title: what the request is called.

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
        size = f"{len(turns)} turns, around which the server puts its template"
    sampling = request.sampling
    drawn = f"temperature {sampling.temperature}, top_p {sampling.top_p}, at most {sampling.max_tokens} tokens"
    key = request.key
    print_facts([(title, f"job {key.job}, stage {key.stage}; {size}; {drawn}")])
    typer.echo("")
    echo_data(text)
