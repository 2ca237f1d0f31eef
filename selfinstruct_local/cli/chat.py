"""`selfinstruct chat`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

import typer

from selfinstruct_local.cli.choices import TEMPLATES, completing
from selfinstruct_local.cli.options import ModelOption, QuietOption, find_or_prepare

if TYPE_CHECKING:
    from selfinstruct_local.templates.alpaca import TemplateName


def chat(
    *,
    once: Annotated[
        str | None, typer.Option(help="Single instruction to answer. [default: one instruction per line of stdin]")
    ] = None,
    input_: Annotated[str, typer.Option("--input", help="Input of the instruction.")] = "",
    model: ModelOption = None,
    adapter: Annotated[
        Path | None,
        typer.Option(help="Adapter folder of 'selfinstruct train'. Without --model, the adapter names the base."),
    ] = None,
    template: Annotated[
        str | None,
        typer.Option(
            help="Prompt template: alpaca or chat. [default: as the adapter was trained, else chat]",
            autocompletion=completing(TEMPLATES),
        ),
    ] = None,
    max_tokens: Annotated[int, typer.Option(min=1, help="Maximum tokens per completion.")] = 256,
    quiet: QuietOption = False,
) -> None:
    """Print the greedy answers of a base or fine-tuned model to instructions."""
    from selfinstruct_local.errors import UsageError
    from selfinstruct_local.evaluate.chat import Chat
    from selfinstruct_local.io.progress import stderr_console, waiting
    from selfinstruct_local.io.terminal import echo_data
    from selfinstruct_local.models.adapter import base_of

    chosen: TemplateName | None = None
    if template in {"alpaca", "chat"}:
        chosen = cast("TemplateName", template)
    elif template is not None:
        message = f"--template {template}: use alpaca or chat"
        raise UsageError(message)
    folder = base_of(adapter, model) if adapter else find_or_prepare(model)
    with waiting(stderr_console(), f"loading {folder.path.name}"):
        loaded = Chat(folder, adapter, chosen)
    if once is not None:
        echo_data(loaded.answer(once, input_, max_tokens))
        return
    for line in typer.get_text_stream("stdin"):
        if line.strip():
            echo_data(loaded.answer(line.strip(), input_, max_tokens))
