"""Options that several commands share, and what they stand for."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from selfinstruct_local.cli.choices import DTYPES, PROMPT_FORMATS, completing

if TYPE_CHECKING:
    from selfinstruct_local.models import ModelFolder


def _be_quiet(wanted: bool) -> None:  # noqa: FBT001 - the signature typer calls
    if wanted:
        from selfinstruct_local.io.progress import be_quiet

        be_quiet()


ModelOption = Annotated[
    str | None,
    typer.Option(help="Local Hugging Face folder, or the name of a prepared model. Left out: the embedded small one."),
]
ConfigOption = Annotated[
    Path | None, typer.Option(metavar="FILE", help="YAML file of settings; flags win over it. See 'config show'.")
]
DtypeOption = Annotated[
    str | None,
    typer.Option(help="auto, float32, bfloat16 or float16. [default: auto]", autocompletion=completing(DTYPES)),
]
PromptFormatOption = Annotated[
    str | None,
    typer.Option(
        help="completion, or chat: the model's own template. [default: chat if it has one]",
        autocompletion=completing(PROMPT_FORMATS),
    ),
]
PromptsOption = Annotated[
    Path | None,
    typer.Option(
        metavar="DIR",
        help="Folder of prompt templates that replace built-in ones of the same names. See 'profiles --export'.",
    ),
]
DryRunOption = Annotated[
    bool, typer.Option("--dry-run", help="Check everything, say what would be done, and do nothing.")
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print the outcome as JSON.")]
# Its effect is the callback's: whatever makes a console afterwards finds it quiet, in child processes too.
QuietOption = Annotated[
    bool,
    typer.Option("--quiet", "-q", help="Show no progress and no messages; errors stay.", callback=_be_quiet),
]


def refuse_json_of_nothing(*, as_json: bool, dry_run: bool) -> None:
    """Refuses the two flags together: there is no outcome of what is not done.

    Raises:
        UsageError: both were given.
    """
    from selfinstruct_local.errors import UsageError

    if as_json and dry_run:
        message = "--json --dry-run: give one of them"
        raise UsageError(message)


def print_json(record: Any) -> None:
    """Prints one JSON object on stdout, on a line of its own."""
    import orjson

    typer.echo(orjson.dumps(record).decode())


def find_or_prepare(model: str | None, *, may_prepare: bool = True) -> "ModelFolder":
    """The model that a `--model` flag names; the embedded one, prepared on first use, when it names none.

    Args:
        model: as the flag gives it.
        may_prepare: whether the embedded one may be made; a dry run makes nothing.

    Raises:
        UsageError: there is none, or it is not whole or not safe.
    """
    from selfinstruct_local import models
    from selfinstruct_local.errors import UsageError
    from selfinstruct_local.io.progress import stderr_console, waiting
    from selfinstruct_local.models.folder import prepared_models

    if model is not None:
        return models.find_model(model)
    if models.EMBEDDED_NAME in prepared_models():
        return models.find_model(models.EMBEDDED_NAME)
    if not may_prepare:
        message = "--dry-run: the embedded model is not prepared; run 'selfinstruct models prepare' or name another"
        raise UsageError(message)
    with waiting(stderr_console(), "preparing the embedded model (once; about a minute)"):
        return models.prepare_embedded()
