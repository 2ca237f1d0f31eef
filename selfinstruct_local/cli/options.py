"""Options that several commands share, and the functions that resolve them."""

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
    typer.Option(
        help="Local Hugging Face model folder or name of a prepared model. [default: the embedded small model]"
    ),
]
ConfigOption = Annotated[
    Path | None, typer.Option(metavar="FILE", help="YAML file of settings; flags override it. See 'config show'.")
]
DtypeOption = Annotated[
    str | None,
    typer.Option(
        help="Precision of the weights: auto, float32, bfloat16 or float16. [default: auto]",
        autocompletion=completing(DTYPES),
    ),
]
PromptFormatOption = Annotated[
    str | None,
    typer.Option(
        help="Prompt format: completion, or chat with the model's chat template. [default: chat if it has one]",
        autocompletion=completing(PROMPT_FORMATS),
    ),
]
PromptsOption = Annotated[
    Path | None,
    typer.Option(
        metavar="DIR",
        help="Folder of prompt templates that replace the built-in ones of the same names. See 'profiles --export'.",
    ),
]
DryRunOption = Annotated[bool, typer.Option("--dry-run", help="Print the plan after all checks, and do nothing.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]
# The callback takes effect: every console created later is quiet, in child processes too.
QuietOption = Annotated[
    bool,
    typer.Option("--quiet", "-q", help="No progress and no messages, only warnings and errors.", callback=_be_quiet),
]


def refuse_json_of_nothing(*, as_json: bool, dry_run: bool) -> None:
    """Raise UsageError if --json and --dry-run are combined: a dry run has no result.

    Raises:
        UsageError: both flags are given.
    """
    from selfinstruct_local.errors import UsageError

    if as_json and dry_run:
        message = "--json --dry-run: use only one of them"
        raise UsageError(message)


def print_json(record: Any) -> None:
    """Print a record as one line of JSON on stdout."""
    import orjson

    typer.echo(orjson.dumps(record).decode())


def find_or_prepare(model: str | None, *, may_prepare: bool = True) -> "ModelFolder":
    """Return the model that `--model` names, or the embedded model, which is prepared on first use.

    Args:
        model: value of the flag; None selects the embedded model.
        may_prepare: whether the embedded model may be prepared; a dry run writes nothing.

    Raises:
        UsageError: the model does not exist, or its folder is incomplete or unsafe.
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
        message = "--dry-run: the embedded model is not prepared; run 'selfinstruct models prepare' or set --model"
        raise UsageError(message)
    with waiting(stderr_console(), "preparing the embedded model (once; about a minute)"):
        return models.prepare_embedded()
