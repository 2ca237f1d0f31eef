"""The command line: one thin module per command group, with heavy imports inside the functions.

`selfinstruct --help` must be fast, so neither this module nor the command modules import torch, vLLM, numba or
pydantic at the top level.
"""

import logging
import os
import sys
import warnings
from typing import Annotated

import typer

from selfinstruct_local import __version__
from selfinstruct_local.cli import (
    bench,
    chat,
    config,
    demo,
    doctor,
    eval_,
    export,
    filter_,
    generate,
    merge,
    models,
    profiles,
    report,
    review,
    rewrite,
    runs,
    seeds,
    serve,
    train,
)
from selfinstruct_local.errors import UserFacingError, one_line
from selfinstruct_local.offline import go_offline

app = typer.Typer(
    name="selfinstruct",
    help="Generate instruction-tuning data with a local model and fine-tune a model on it. Works offline.",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
app.command("generate")(generate.generate)
app.command("profiles")(profiles.profiles)
app.command("serve")(serve.serve)
app.command("filter")(filter_.filter_)
app.command("export")(export.export)
app.command("report")(report.report)
app.add_typer(review.app, name="review")
app.command("translate")(rewrite.translate)
app.command("polish")(rewrite.polish)
app.command("train")(train.train)
app.command("merge")(merge.merge)
app.command("chat")(chat.chat)
app.command("eval")(eval_.eval_)
app.add_typer(runs.app, name="runs")
app.add_typer(seeds.app, name="seeds")
app.add_typer(models.app, name="models")
app.add_typer(config.app, name="config")
app.command("demo")(demo.demo)
app.command("doctor")(doctor.doctor)
app.add_typer(bench.app, name="bench")


def _print_version(wanted: bool) -> None:  # noqa: FBT001 - the signature typer calls
    if wanted:
        typer.echo(f"selfinstruct-local {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    *,
    version: Annotated[
        bool, typer.Option("--version", help="Print the version.", callback=_print_version, is_eager=True)
    ] = False,
) -> None:
    """Define the options before the command."""


def main() -> None:
    """Run the command line and exit: 0 done, 1 failed, 2 wrong usage, 3 partly done, 130 and 143 for signals."""
    go_offline()
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)  # it warns about a library that is not used here
    os.environ["TQDM_DISABLE"] = "1"  # progress comes from our own displays, not from library progress bars
    warnings.showwarning = _show_warning  # type: ignore[assignment]
    try:
        code = app(standalone_mode=False)
    except UserFacingError as error:
        code = _fail(str(error), error.exit_code)
    except typer.TyperException as error:
        code = _fail(_usage_line(error), error.exit_code)
    except KeyboardInterrupt:
        code = 130
    except BrokenPipeError:
        # The reader closed the pipe (`| head -1`); Python would raise again when it flushes at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 1
    sys.exit(code if isinstance(code, int) else 0)


def _show_warning(message: Warning | str, *_where: object) -> None:
    """Print a warning on one line, without the source location that Python adds."""
    typer.echo(f"selfinstruct: warning: {one_line(str(message))}", err=True)


def _fail(message: str, code: int) -> int:
    typer.echo(f"selfinstruct: {one_line(message)}", err=True)
    return code


def _usage_line(error: typer.TyperException) -> str:
    context = getattr(error, "ctx", None)
    command = context.command_path if context else "selfinstruct"
    return f"{' '.join(error.format_message().split())} (see '{command} --help')"
