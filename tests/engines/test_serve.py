"""`selfinstruct serve` up to the moment it becomes vLLM: the command it builds, and what it refuses."""

import shlex
import socket
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import orjson
import pytest

from selfinstruct_local.engines.serve import (
    Build,
    ServeSettings,
    check_ready,
    check_settings,
    installed_build,
    server_command,
    server_environment,
    show,
)
from selfinstruct_local.errors import UsageError
from selfinstruct_local.models import ModelFolder, check_model_folder


@pytest.fixture
def model(bare_model: Path) -> ModelFolder:
    return check_model_folder(bare_model)


@pytest.fixture
def adapter(tmp_path: Path) -> Path:
    folder = tmp_path / "my-adapter"
    folder.mkdir()
    (folder / "adapter_config.json").write_bytes(orjson.dumps({"r": 12}))
    return folder


def flag(command: Sequence[str], name: str) -> str:
    return command[command.index(name) + 1]


def test_the_command_serves_the_model_under_its_folders_name(model: ModelFolder) -> None:
    settings = ServeSettings(port=8123, in_flight=16, max_model_len=1024)
    command = server_command(model, settings, build="gpu", extra=["--seed", "7"])
    assert command[:4] == [sys.executable, "-P", "-m", "vllm.entrypoints.openai.api_server"]
    assert flag(command, "--model") == str(model.path)
    assert flag(command, "--served-model-name") == "bare-model"
    assert flag(command, "--host") == "127.0.0.1"
    assert flag(command, "--port") == "8123"
    assert flag(command, "--max-num-seqs") == "16"
    assert flag(command, "--max-model-len") == "1024"
    assert flag(command, "--gpu-memory-utilization") == "0.9"
    assert command[-2:] == ["--seed", "7"]
    assert {"--enable-prefix-caching", "--enable-prompt-tokens-details", "--disable-uvicorn-access-log"} < set(command)
    assert not {"--quantization", "--enable-lora", "--data-parallel-size", "--enforce-eager"} & set(command)


def test_on_a_cpu_prompts_are_computed_whole(model: ModelFolder) -> None:
    command = server_command(model, ServeSettings(max_model_len=8000), build="cpu")
    assert {"--enforce-eager", "--no-enable-chunked-prefill"} < set(command)
    assert flag(command, "--max-num-batched-tokens") == "8000"
    assert flag(command, "--dtype") == "float32"
    assert "--gpu-memory-utilization" not in command
    assert flag(server_command(model, ServeSettings(), build="cpu"), "--max-num-batched-tokens") == "4096"
    assert flag(server_command(model, ServeSettings(dtype="bfloat16"), build="cpu"), "--dtype") == "bfloat16"


def test_the_environment_is_offline_and_holds_the_key(model: ModelFolder) -> None:
    settings = ServeSettings(memory_gb=3)
    environment = server_environment(settings, build="cpu", api_key="sk-4711")
    assert environment["HF_HUB_OFFLINE"] == environment["VLLM_NO_USAGE_STATS"] == "1"
    assert environment["VLLM_CPU_KVCACHE_SPACE"] == "3"
    assert environment["VLLM_API_KEY"] == "sk-4711"
    command = server_command(model, settings, build="cpu")
    shown = show(command, environment)
    assert "sk-4711" not in shown
    assert 'VLLM_API_KEY="$SELFINSTRUCT_API_KEY"' in shown
    assert shlex.split(shown)[-len(command) :] == command
    bare = server_environment(settings, build="gpu")
    assert not {"VLLM_API_KEY", "VLLM_CPU_KVCACHE_SPACE"} & set(bare)


def test_an_adapter_is_served_with_the_smallest_rank_that_holds_it(model: ModelFolder, adapter: Path) -> None:
    command = server_command(model, ServeSettings(), build="gpu", adapter=adapter)
    assert "--enable-lora" in command
    assert flag(command, "--max-lora-rank") == "16"
    assert orjson.loads(flag(command, "--lora-modules")) == {"name": "my-adapter", "path": str(adapter)}


def test_four_machines_with_and_without_ray(model: ModelFolder) -> None:
    ray = ServeSettings(replicas=4, replicas_here=1, replica_backend="ray")
    head = ServeSettings(replicas=4, replicas_here=1, head_address="10.0.0.1", head_port=13345)
    third = head.model_copy(update={"first_replica": 2})
    for settings in (ray, head, third):
        check_settings(settings, model, "gpu")
        command = server_command(model, settings, build="gpu")
        assert flag(command, "--data-parallel-size") == "4"
        assert flag(command, "--data-parallel-size-local") == "1"
        assert ("--port" in command) == (settings is not third)
    assert flag(server_command(model, ray, build="gpu"), "--data-parallel-backend") == "ray"
    command = server_command(model, third, build="gpu")
    assert command[2:7] == ["-m", "vllm.entrypoints.cli.main", "serve", str(model.path), "--headless"]
    assert flag(command, "--data-parallel-start-rank") == "2"
    assert flag(command, "--data-parallel-address") == "10.0.0.1"
    assert flag(command, "--data-parallel-rpc-port") == "13345"


@pytest.mark.parametrize(
    ("settings", "build", "said"),
    [
        ({"max_model_len": 4096}, "gpu", "--max-model-len 4096: bare-model has a context of 2048 tokens"),
        ({"replicas": 2, "replicas_here": 3}, "gpu", "--replicas 2: "),
        ({"replicas": 4, "replicas_here": 1, "first_replica": 4, "head_address": "a"}, "gpu", "--replicas 4: "),
        ({"replicas": 4, "replicas_here": 1}, "gpu", "need --head-address"),
        ({"replicas": 4, "replicas_here": 1, "first_replica": 1, "replica_backend": "ray"}, "gpu", "leave it out"),
        ({"replicas": 4, "replicas_here": 1, "first_replica": 1, "head_address": "a"}, "cpu", "generate --endpoint"),
    ],
)
def test_what_cannot_work_is_refused(model: ModelFolder, settings: dict[str, Any], build: Build, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        check_settings(ServeSettings(**settings), model, build)


def test_a_taken_port_is_refused() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(UsageError, match=f"--port {port}: address already in use"):
            check_ready(ServeSettings(port=port))
    check_ready(ServeSettings(port=port))


@pytest.mark.parametrize("host", ["nosuch.invalid", "192.0.2.1"])
def test_a_strange_host_is_refused(host: str) -> None:
    with pytest.raises(UsageError, match=f"--host {host}"):
        check_ready(ServeSettings(host=host))


def test_a_missing_ray_or_vllm_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _name: None)
    with pytest.raises(UsageError, match="Ray is not installed"):
        check_ready(ServeSettings(replica_backend="ray"))
    with pytest.raises(UsageError, match="extra 'cpu' or 'gpu'"):
        installed_build()


@pytest.mark.engine
def test_vllm_knows_every_flag(model: ModelFolder, adapter: Path) -> None:
    from vllm.entrypoints.launchers.cli_args import make_arg_parser
    from vllm.utils.argparse_utils import FlexibleArgumentParser

    parser = make_arg_parser(FlexibleArgumentParser())
    assert installed_build() in {"cpu", "gpu"}
    head = {"replicas": 4, "replicas_here": 1, "head_address": "10.0.0.1", "head_port": 13345}
    builds: tuple[Build, ...] = ("cpu", "gpu")
    for build in builds:
        for changes in ({}, {"quantization": "fp8"}, head, {**head, "first_replica": 3}, {"replicas": 2}):
            command = server_command(model, ServeSettings(**changes), build=build, adapter=adapter)
            parsed = parser.parse_args(command[4 + ("serve" in command) :])
            assert str(model.path) in {parsed.model, parsed.model_tag}
            assert parsed.max_num_seqs == 32
            assert parsed.enable_prefix_caching
            assert not parsed.enable_log_requests
            assert parsed.lora_modules[0].name == "my-adapter"
            assert parsed.data_parallel_size == changes.get("replicas", 1)
            assert parsed.data_parallel_start_rank == changes.get("first_replica")
            if build == "cpu":
                assert parsed.enable_chunked_prefill is False
