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
        list[str] | None,
        typer.Argument(metavar="[-- VLLM_OPTION...]", help="Options after --, passed to vLLM unchanged."),
    ] = None,
    *,
    model: ModelOption = None,
    config: ConfigOption = None,
    host: Annotated[str | None, typer.Option(help="Listening address. [default: 127.0.0.1]")] = None,
    port: Annotated[int | None, typer.Option(help="Listening port. [default: 8000]")] = None,
    in_flight: Annotated[
        int | None, typer.Option(help="Maximum concurrent requests per replica. [default: 32]")
    ] = None,
    max_model_len: Annotated[
        int | None, typer.Option(help="Context length in tokens. [default: 2048, LLaMA-7B's]")
    ] = None,
    dtype: DtypeOption = None,
    gpu_memory_share: Annotated[
        float | None, typer.Option(help="Share of each GPU's memory for vLLM. [default: 0.9]")
    ] = None,
    memory_gb: Annotated[float | None, typer.Option(help="KV cache size on a CPU, in GiB. [default: 2]")] = None,
    tensor_parallel: Annotated[int | None, typer.Option(help="GPUs per model replica. [default: 1]")] = None,
    quantization: Annotated[
        str | None, typer.Option(help="vLLM quantization method, e.g. fp8. [default: the model's]")
    ] = None,
    adapter: Annotated[
        Path | None,
        typer.Option(
            help="LoRA adapter folder, served together with the model under the folder's name. Without --model, the "
            "adapter names the base."
        ),
    ] = None,
    replicas: Annotated[int | None, typer.Option(help="Model replicas on all machines together. [default: 1]")] = None,
    replicas_here: Annotated[int | None, typer.Option(help="Model replicas on this machine. [default: all]")] = None,
    replica_backend: Annotated[
        str | None,
        typer.Option(
            help="Launcher of replicas on other machines: mp or ray. [default: mp]", autocompletion=completing(BACKENDS)
        ),
    ] = None,
    head_address: Annotated[
        str | None, typer.Option(help="Address of the machine that takes the requests, for mp.")
    ] = None,
    head_port: Annotated[
        int | None, typer.Option(help="Port of the head for the other replicas, for mp. [default: vLLM's]")
    ] = None,
    first_replica: Annotated[
        int | None,
        typer.Option(help="Number of this machine's first replica, for mp, on every machine except the head."),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print the vLLM command for a shell, and do nothing.")
    ] = False,
) -> None:
    """Start vLLM's OpenAI server for a model, for 'generate --endpoint http://127.0.0.1:8000/v1'.

    Clients must send the key in $SELFINSTRUCT_API_KEY. Without a key, everyone who reaches the port can use the
    server.

    Three ways to serve from four machines with one GPU per machine:

    \b
    One server per machine; the loss of one is tolerated:
      serve --host 0.0.0.0
      and 'generate' with --endpoint four times
    Ray, started on all with 'ray start'; only on the first:
      serve --replicas 4 --replicas-here 1 --replica-backend ray
    No Ray; on the first, then on the others with 1, 2, 3:
      serve --replicas 4 --replicas-here 1 --head-address FIRST
      serve --replicas 4 --replicas-here 1 --head-address FIRST \\
            --first-replica 1
    """  # noqa: D301 - the escape makes the help keep the lines after it
    from selfinstruct_local.config.loading import load_settings
    from selfinstruct_local.engines import serve as server
    from selfinstruct_local.errors import UsageError
    from selfinstruct_local.models.adapter import base_of

    extra = vllm_options or []
    if extra and not extra[0].startswith("-"):
        message = f"{extra[0]}: not an option; name a model with --model and put options for vLLM after --"
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
    # exec instead of a child process, so that signals and the exit code are those of the server.
    os.execve(command[0], command, {**os.environ, **environment})  # noqa: S606 - no shell


def _say(settings: "ServeSettings", name: str, *, has_key: bool) -> None:
    from selfinstruct_local.engines.serve import API_KEY_VARIABLE, LOOPBACK_HOSTS
    from selfinstruct_local.io.progress import stderr_console

    console = stderr_console()
    if settings.first_replica is not None:
        console.print(f"starting vLLM on {name}; it joins {settings.head_address}")
        return
    console.print(
        f"starting vLLM on {name}; it serves http://{settings.host}:{settings.port}/v1 when the model is loaded"
    )
    if settings.host not in LOOPBACK_HOSTS:
        # vLLM 0.32 checks the key under /v1; other routes stay open, among them /invocations, which also generates.
        key = "/v1 requires the key, vLLM's other routes do not" if has_key else f"${API_KEY_VARIABLE} is not set"
        console.print(f"--host {settings.host}: reachable from other machines; {key}")
