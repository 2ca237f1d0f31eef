"""`selfinstruct config`: prints the settings of a command as a file."""

from typing import Annotated

import typer

from selfinstruct_local.cli.choices import CONFIGURABLE, PRESETS, PROFILES, completing
from selfinstruct_local.cli.options import ConfigOption

app = typer.Typer(help="Show the settings of a command.", no_args_is_help=True, rich_markup_mode=None)


@app.callback()
def _group() -> None:
    """Make typer keep `show` as a subcommand, although it is the only one."""


@app.command()
def show(
    command: Annotated[
        str,
        typer.Argument(metavar="COMMAND", help=", ".join(CONFIGURABLE) + ".", autocompletion=completing(CONFIGURABLE)),
    ],
    *,
    config: ConfigOption = None,
    preset: Annotated[
        str | None, typer.Option(help="Training preset, only for train.", autocompletion=completing(PRESETS))
    ] = None,
    profile: Annotated[
        str | None, typer.Option(help="Generation profile, only for generate.", autocompletion=completing(PROFILES))
    ] = None,
) -> None:
    """Print the settings of a command as commented YAML, to save, edit and pass back with --config."""
    from selfinstruct_local.cli.settings import as_yaml, resolve
    from selfinstruct_local.errors import shown

    typer.echo(shown(as_yaml(command, resolve(command, config, preset, profile))))
