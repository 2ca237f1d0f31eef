"""`selfinstruct config`: the settings of a command as a file."""

from typing import Annotated

import typer

from selfinstruct_local.cli.choices import CONFIGURABLE, PRESETS, PROFILES, completing
from selfinstruct_local.cli.options import ConfigOption

app = typer.Typer(help="Look at the settings of a command.", no_args_is_help=True, rich_markup_mode=None)


@app.callback()
def _group() -> None:
    """Keeps `show` a command of its own while it is the only one."""


@app.command()
def show(
    command: Annotated[
        str,
        typer.Argument(metavar="COMMAND", help=", ".join(CONFIGURABLE) + ".", autocompletion=completing(CONFIGURABLE)),
    ],
    *,
    config: ConfigOption = None,
    preset: Annotated[
        str | None, typer.Option(help="Of train: the settings to begin with.", autocompletion=completing(PRESETS))
    ] = None,
    profile: Annotated[
        str | None, typer.Option(help="Of generate: how to ask.", autocompletion=completing(PROFILES))
    ] = None,
) -> None:
    """Print the settings of a command as YAML with a comment each, to be saved, edited and given back with --config."""
    from selfinstruct_local.cli.settings import as_yaml, resolve
    from selfinstruct_local.errors import shown

    typer.echo(shown(as_yaml(command, resolve(command, config, preset, profile))))
