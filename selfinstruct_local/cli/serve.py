"""`selfinstruct serve`."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from selfinstruct_local.cli.choices import BACKENDS, completing
from selfinstruct_local.cli.options import ConfigOption, DtypeOption, ModelOption, find_or_prepare

if TYPE_CHECKING:
    from selfinstruct_local.engines.serve import ServeSettings


def serve(
    context: typer.Context,
    vllm_options: Annotated[
        list[str] | None, typer.Argument(metavar="[-- VLLM_OPTION...]", help="What follows -- goes to vLLM as it is.")
    ] = None,
    *,
    model: ModelOption = None,
    config: ConfigOption = None,
    host: Annotated[str | None, typer.Option(help="Address to listen on. [default: 127.0.0.1]")] = None,
    port: Annotated[int | None, typer.Option(help="Port to listen on. [default: 8000]")] = None,
    in_flight: Annotated[int | None, typer.Option(help="Requests a replica works on at a time. [default: 32]")] = None,
    max_model_len: Annotated[int | None, typer.Option(help="Context in tokens. [default: 2048, LLaMA-7B's]")] = None,
    dtype: DtypeOption = None,
    gpu_memory_share: Annotated[float | None, typer.Option(help="Share of GPU memory. [default: 0.9]")] = None,
    memory_gb: Annotated[float | None, typer.Option(help="GiB of KV cache on a CPU. [default: 2]")] = None,
    tensor_parallel: Annotated[int | None, typer.Option(help="GPUs for one copy. [default: 1]")] = None,
    quantization: Annotated[str | None, typer.Option(help="One of vLLM's methods for the weights.")] = None,
    adapter: Annotated[
        Path | None,
        typer.Option(
            help="LoRA folder, served beside the model under the folder's name; without --model, over the base that it "
            "names."
        ),
    ] = None,
    replicas: Annotated[int | None, typer.Option(help="Copies of the model, over all machines. [default: 1]")] = None,
    replicas_here: Annotated[int | None, typer.Option(help="Of them on this machine. [default: all]")] = None,
    replica_backend: Annotated[
        str | None,
        typer.Option(help="mp or ray: what starts those elsewhere. [default: mp]", autocompletion=completing(BACKENDS)),
    ] = None,
    head_address: Annotated[str | None, typer.Option(help="mp: the machine that takes the requests.")] = None,
    head_port: Annotated[int | None, typer.Option(help="mp: its port where the others join. [default: vLLM's]")] = None,
    first_replica: Annotated[
        int | None, typer.Option(help="mp: number of this machine's first, on all machines but the head.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the command for a shell, and end.")] = False,
) -> None:
    """Start vLLM's OpenAI server for a model, for 'generate --endpoint http://127.0.0.1:8000/v1'.

    Clients must send the key that $SELFINSTRUCT_API_KEY holds; without one everyone who reaches the port may ask.

    Four machines with a GPU each, in any of three ways:

    \b
    a server on each; one that is lost is done without:
      serve --host 0.0.0.0
      and 'generate' with four times --endpoint
    Ray, started on all with 'ray start'; on the first alone:
      serve --replicas 4 --replicas-here 1 --replica-backend ray
    no Ray; on the first, then on the others with 1, 2, 3:
      serve --replicas 4 --replicas-here 1 --head-address FIRST
      serve --replicas 4 --replicas-here 1 --head-address FIRST \\
            --first-replica 1
    """  # noqa: D301 - the escape is for the help, which keeps the lines after it
    from selfinstruct_local.config.loading import load_settings
    from selfinstruct_local.engines import serve as server
    from selfinstruct_local.errors import UsageError
    from selfinstruct_local.models.adapter import base_of

    extra = vllm_options or []
    if extra and not extra[0].startswith("-"):
        message = f"{extra[0]}: name a model with --model; options for vLLM follow --"
        raise UsageError(message)
    settings = load_settings(server.ServeSettings, config, context.params)
    build = server.installed_build()
    folder = base_of(adapter, model) if adapter else find_or_prepare(model)
    server.check_settings(settings, folder, build)
    api_key = os.environ.get(server.API_KEY_VARIABLE)
    command = server.server_command(folder, settings, build=build, adapter=adapter, extra=extra)
    environment = server.server_environment(settings, build=build, api_key=api_key)
    if dry_run:
        typer.echo(server.show(command, environment))
        return
    server.check_ready(settings)
    _say(settings, folder.path.name, has_key=bool(api_key))
    # Replaced and not started, so that signals and the exit code are the server's own.
    os.execve(command[0], command, {**os.environ, **environment})  # noqa: S606 - no shell


def _say(settings: "ServeSettings", name: str, *, has_key: bool) -> None:
    from selfinstruct_local.engines.serve import API_KEY_VARIABLE, LOOPBACK_HOSTS
    from selfinstruct_local.io.progress import stderr_console

    console = stderr_console()
    if settings.first_replica is not None:
        console.print(f"starting vLLM on {name}; it joins {settings.head_address}")
        return
    console.print(f"starting vLLM on {name}; answers at http://{settings.host}:{settings.port}/v1 when it is loaded")
    if settings.host not in LOOPBACK_HOSTS:
        # vLLM 0.32 asks for the key under /v1; /invocations, which generates as well, is among what it leaves open.
        key = "/v1 asks for the key, vLLM's other routes do not" if has_key else f"${API_KEY_VARIABLE} is not set"
        console.print(f"--host {settings.host}: reachable from other machines; {key}")
