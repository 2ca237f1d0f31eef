"""`selfinstruct serve` on the embedded model, asked through `EndpointEngine`, killed, and started again.

One test of two starts, since each takes more than a minute on two cores.
"""

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from selfinstruct_local.engine import Completion, FinishReason, Request, RequestKey, Sampling
from selfinstruct_local.engine.endpoints import EndpointEngine, find_served_model
from selfinstruct_local.engine.serve import API_KEY_VARIABLE
from selfinstruct_local.engine.settings import EngineSettings
from selfinstruct_local.models import ModelFolder

CONTEXT = 1024
KEY = "sk-of-the-test"
START_SECONDS = 400.0
STORY = "Once upon a time there was a river that ran through the hills and the fields and past the old mill. " * 10


@contextmanager
def served(model: ModelFolder, port: int, log: Path) -> Iterator["subprocess.Popen[bytes]"]:
    """The server as a user starts it, in a process group of its own."""
    options = ["--model", model.path, "--port", port, "--max-model-len", CONTEXT, "--in-flight", 4, "--memory-gb", 1]
    command = [sys.executable, "-m", "selfinstruct_local", "serve", *map(str, options)]
    with (
        log.open("ab") as output,
        subprocess.Popen(
            command,
            stdout=output,
            stderr=output,
            start_new_session=True,
            env={**os.environ, API_KEY_VARIABLE: KEY},
        ) as process,
    ):
        try:
            yield process
        finally:
            kill(process)


def kill(process: "subprocess.Popen[bytes]") -> None:
    """The server and the processes it has made, as when the machine takes them."""
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def request(job: int, prompt: str, **sampling: Any) -> Request:
    return Request(
        RequestKey(job, "test", 0), prompt, Sampling(**{"temperature": 0.0, "top_p": 1.0, "max_tokens": 12, **sampling})
    )


@pytest.mark.engine
@pytest.mark.timeout(1200)
def test_a_real_server_is_asked_killed_and_asked_again(
    tmp_path: Path, embedded_model: ModelFolder, caplog: pytest.LogCaptureFixture
) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    url, log = f"http://127.0.0.1:{port}/v1", tmp_path / "server.log"
    settings = EngineSettings(in_flight=4, request_seconds=120, outage_seconds=START_SECONDS)

    with served(embedded_model, port, log) as process:
        name = find_served_model([url], None, api_key=KEY, outage_seconds=START_SECONDS, folder=embedded_model.path)
        assert name == embedded_model.path.name
        engine = EndpointEngine([url], model=name, settings=settings, max_model_len=CONTEXT, api_key=KEY)
        found = {
            completion.key.job: completion
            for batch in engine.generate(
                [
                    request(0, STORY, temperature=1.5, seed=7),
                    request(1, "1, 2, 3, 4, 5,", stop=(" 8",), max_tokens=40),
                    request(2, "word " * (CONTEXT - 3), max_tokens=5000),
                    request(3, "word" + " word" * (CONTEXT - 1)),
                    request(4, "word " * (CONTEXT + 50)),
                ]
            )
            for completion in batch
        }
        # Asked by themselves, so that the first answer's prompt is in the prefix cache.
        again = [
            completion
            for seed in (7, 8)
            for batch in engine.generate([request(seed, STORY, temperature=1.5, seed=seed)])
            for completion in batch
        ]
        assert_sane(found, again)

        asked = [request(job, f"{job} plus one is", max_tokens=60, temperature=1.0, seed=job) for job in range(24)]
        batches = engine.generate(asked)
        answered: list[Completion] = []
        while len(answered) < 4:
            answered += next(batches)
        kill(process)
    assert len(answered) < len(asked)
    with served(embedded_model, port, log):
        for batch in batches:
            answered += batch
    assert sorted(completion.key for completion in answered) == [each.key for each in asked]
    assert all(completion.text for completion in answered)
    assert KEY not in caplog.text
    assert KEY not in log.read_text(encoding="utf-8")


def assert_sane(found: dict[int, Completion], again: list[Completion]) -> None:
    assert found[0].prompt_tokens > 100
    assert 0 < found[0].completion_tokens <= 12
    assert again[0].text == found[0].text  # the seed fixes the draw
    assert again[1].text != found[0].text
    assert all(completion.cached_tokens is not None for completion in found.values() if completion.text)
    assert again[0].cached_tokens is not None
    assert again[0].cached_tokens > 100
    assert found[1].finish_reason is FinishReason.STOP
    assert " 8" not in found[1].text
    assert found[2].prompt_tokens + found[2].completion_tokens <= CONTEXT
    assert found[2].completion_tokens > 0
    for refused, length in ((found[3], CONTEXT), (found[4], CONTEXT + 51)):
        assert refused.finish_reason is FinishReason.REFUSED
        assert refused.text == ""
        assert refused.prompt_tokens == length
