"""`selfinstruct serve` on the embedded model, asked through `EndpointEngine`; and a run on it that sees it killed and
started again in the middle.

One test of two starts, since each takes more than a minute on two cores.
"""

import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import orjson
import pytest

from selfinstruct_local.engines import Completion, FinishReason, Request, RequestKey, Sampling
from selfinstruct_local.engines.endpoints import EndpointEngine, find_served_model
from selfinstruct_local.engines.serve import API_KEY_VARIABLE
from selfinstruct_local.engines.settings import EngineSettings
from selfinstruct_local.models import ModelFolder
from selfinstruct_local.runs.store import DATABASE, RunStore
from selfinstruct_local.templates.turns import Turn

CONTEXT = 1024
KEY = "sk-of-the-test"
WANTED = 3
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
def test_a_run_on_a_real_server_that_is_killed_and_started_again_ends_whole(
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
        assert_talks_and_obeys(url, name, embedded_model)

        run = tmp_path / "run"
        generating = start_generating(run, url)
        wait_until(lambda: stored(run) >= 3, generating)
        kill(process)
    lost_at = stored(run)
    with served(embedded_model, port, log):
        stdout, stderr = generating.communicate(timeout=600)
    assert generating.returncode == 0, stderr
    assert Path(stdout.strip()) == run / "alpaca.json"
    assert len(orjson.loads((run / "alpaca.json").read_bytes())) >= WANTED
    assert f"{url} is down" in stderr or url in stderr
    assert stored(run) > lost_at
    with RunStore(run, read_only=True) as store:
        assert store.totals().accepted >= WANTED
        assert [session.outcome for session in store.sessions()] == ["done"]
    assert KEY not in caplog.text
    assert KEY not in stderr
    assert KEY not in log.read_text(encoding="utf-8")


def assert_talks_and_obeys(url: str, name: str, model: ModelFolder) -> None:
    """Turns rendered here and there are the same to the model; constraints hold behind a server too."""
    settings = EngineSettings(in_flight=4, request_seconds=120, outage_seconds=START_SECONDS)
    turns = (Turn("user", "What is the capital of France?"),)
    asked = [
        replace(request(0, ""), turns=turns),
        replace(request(1, "The capital of"), turns=turns),
        request(2, "The sky is", choice=("blue", "green"), temperature=2.0),
        request(3, "A number:", json_schema='{"type": "boolean"}', temperature=1.0),
        request(7, "A word:", regex="[a-z]{3}", temperature=1.0),
    ]
    with_folder = [
        replace(request(4, "", max_tokens=40), role="user"),
        replace(request(5, "", max_tokens=40, forbid_end=True), turns=turns),
        request(6, "a <|im_end|> b", max_tokens=1),
    ]
    there, here = (
        {
            completion.key.job: completion
            for batch in EndpointEngine(
                [url], model=name, settings=settings, max_model_len=CONTEXT, api_key=KEY, folder=folder
            ).generate(each)
            for completion in batch
        }
        for folder, each in ((None, asked), (model.path, asked + with_folder))
    )
    for found in (there, here):
        assert found[2].text in {"blue", "green"}
        assert isinstance(orjson.loads(found[3].text), bool)
        assert re.fullmatch("[a-z]{3}", found[7].text)
        assert all(each.confidence is not None and each.confidence < 0 for each in found.values() if each.text)
    for job in (0, 1):
        assert there[job].text == here[job].text
        assert there[job].prompt_tokens == here[job].prompt_tokens
    assert "Paris" in here[0].text
    assert here[4].text.strip()
    assert here[5].completion_tokens == 40
    assert here[6].prompt_tokens >= 7  # many tokens, and not the one it names


def start_generating(run: Path, url: str) -> "subprocess.Popen[str]":
    options = ["--run", run, "--endpoint", url, "--num", WANTED, "--in-flight", 4, "--window", 8, "--max-tokens", 160]
    command = [
        sys.executable,
        "-m",
        "selfinstruct_local",
        "generate",
        *map(str, options),
        "--max-model-len",
        str(CONTEXT),
    ]
    return subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, API_KEY_VARIABLE: KEY},
    )


def stored(run: Path) -> int:
    if not (run / DATABASE).exists():
        return 0
    with RunStore(run, read_only=True) as store:
        return store.totals().completions


def wait_until(holds: Callable[[], bool], process: "subprocess.Popen[str]") -> None:
    while not holds():
        assert process.poll() is None, process.communicate()
        time.sleep(0.2)


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
