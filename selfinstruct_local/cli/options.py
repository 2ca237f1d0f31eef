"""Options that several commands share, and what they stand for."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from selfinstruct_local.models import ModelFolder

ModelOption = Annotated[
    str | None,
    typer.Option(help="Local Hugging Face folder, or the name of a prepared model. Left out: the embedded small one."),
]
ConfigOption = Annotated[Path | None, typer.Option(help="YAML file of settings; flags win over it.")]


def find_or_prepare(model: str | None) -> "ModelFolder":
    """The model that a `--model` flag names; the embedded one, prepared on first use, when it names none.

    Raises:
        WrongUseError: there is none, or it is not whole or not safe.
    """
    from selfinstruct_local import models
    from selfinstruct_local.models.folder import prepared_models
    from selfinstruct_local.progress import stderr_console, waiting

    if model is not None:
        return models.find_model(model)
    if models.EMBEDDED_NAME in prepared_models():
        return models.find_model(models.EMBEDDED_NAME)
    with waiting(stderr_console(), "preparing the embedded model (once; about a minute)"):
        return models.prepare_embedded()
