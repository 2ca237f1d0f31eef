"""Servers that refuse, stall, tear, die and come back: each fault is provoked on a real HTTP server."""

import asyncio
import logging
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from selfinstruct_local.engines import Completion, FinishReason, Request, RequestKey, Sampling, model_lists, server_pool
from selfinstruct_local.engines.completion_calls import MAX_TRIES
from selfinstruct_local.engines.endpoints import EndpointEngine, find_served_model, served_models
from selfinstruct_local.engines.server_pool import RetryableError, ServerPool
from selfinstruct_local.engines.settings import EngineSettings
from selfinstruct_local.errors import EngineDeadError, UsageError
from selfinstruct_local.models import ModelFolder
from selfinstruct_local.templates.conversation import FolderEncoder
from selfinstruct_local.templates.turns import Turn
from tests.scripted_engine import answer
from tests.scripted_server import CONTEXT, MODEL, ScriptedServer

LOGGER = "selfinstruct_local.engines"
ROOT = Path(__file__).parents[2]
SETTINGS = {"in_flight": 4, "request_seconds": 5.0, "outage_seconds": 5.0}


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr(server_pool, "FIRST_PAUSE", 0.02)
    monkeypatch.setattr(server_pool, "LONGEST_PAUSE", 0.2)
    monkeypatch.setattr(model_lists, "LOOK_AGAIN_SECONDS", 0.1)
    caplog.set_level(logging.INFO, LOGGER)


def requests(count: int, **sampling: Any) -> list[Request]:
    chosen = {"temperature": 1.0, "top_p": 0.9, "max_tokens": 64, **sampling}
    return [Request(RequestKey(job, "tasks", 0), f"prompt {job}", Sampling(seed=job, **chosen)) for job in range(count)]


def engine_over(*servers: ScriptedServer | str, **changes: Any) -> EndpointEngine:
    urls = [server if isinstance(server, str) else server.url for server in servers]
    key, limit = changes.pop("api_key", None), changes.pop("max_model_len", CONTEXT)
    folder = changes.pop("folder", None)
    settings = EngineSettings(**{**SETTINGS, **changes})
    return EndpointEngine(urls, model=MODEL, settings=settings, max_model_len=limit, api_key=key, folder=folder)


def answers(engine: EndpointEngine, asked: list[Request]) -> dict[RequestKey, Completion]:
    found: dict[RequestKey, Completion] = {}
    for batch in engine.generate(asked):
        for completion in batch:
            assert completion.key not in found
            found[completion.key] = completion
    assert set(found) == {request.key for request in asked}
    return found


def assert_all_right(engine: EndpointEngine, asked: list[Request]) -> None:
    found = answers(engine, asked)
    for request in asked:
        assert found[request.key].text == answer(request).text
        assert found[request.key].finish_reason is answer(request).finish_reason


def lines(caplog: pytest.LogCaptureFixture, word: str) -> list[str]:
    """What our own logger said with that word in it."""
    return [text for name, _, text in caplog.record_tuples if name == LOGGER and word in text]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def process(port: int, *options: str) -> Iterator["subprocess.Popen[str]"]:
    """A server that can be killed; yields when it listens."""
    command = [sys.executable, "-m", "tests.scripted_server", "--port", str(port), *options]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as started:
        assert started.stdout is not None
        assert started.stdout.readline().startswith("http")
        try:
            yield started
        finally:
            started.kill()


# What goes well.


def test_answers_are_the_servers_and_all_slots_are_used() -> None:
    with ScriptedServer(latency=0.02) as server:
        engine = engine_over(server)
        assert engine.capacity == 4
        assert engine.description == {"engine": "endpoints", "urls": server.url, "model": MODEL}
        asked = requests(30)
        found = answers(engine, asked)
        assert server.most_at_once == 4
    for request in asked:
        assert found[request.key] == replace(answer(request), cached_tokens=1, confidence=-0.375)


def test_a_request_says_what_the_engine_in_process_would_be_told() -> None:
    with ScriptedServer() as server, ScriptedServer(tells_context=False) as plain:
        asked = requests(1, presence_penalty=1.5, stop=("\n", "END"))
        assert_all_right(engine_over(server), asked)
        assert_all_right(engine_over(plain), requests(1))
    told = {"model": MODEL, "prompt": "prompt 0", "temperature": 1.0, "top_p": 0.9, "max_tokens": 64, "seed": 0}
    told["logprobs"] = 0
    extra = {"presence_penalty": 1.5, "stop": ["\n", "END"], "top_k": -1, "min_p": 0.0, "repetition_penalty": 1.0}
    assert server.asked == [told | extra]
    assert plain.asked == [told | {"presence_penalty": 0.0}]  # what only vLLM knows is not sent elsewhere


def test_requests_are_spread_over_the_least_loaded() -> None:
    with ScriptedServer(latency=0.05) as first, ScriptedServer(latency=0.05) as second:
        assert_all_right(engine_over(first, second, in_flight=6), requests(36))
        assert first.most_at_once == second.most_at_once == 3
        assert abs(len(first.asked) - len(second.asked)) <= 6


def test_a_slow_server_gets_fewer() -> None:
    with ScriptedServer(latency=0.3) as slow, ScriptedServer(latency=0.02) as fast:
        assert_all_right(engine_over(slow, fast, in_flight=4), requests(40))
        assert len(slow.asked) < len(fast.asked) / 2


def test_the_caller_gets_its_turn() -> None:
    with ScriptedServer(script="stall") as server:
        batches = engine_over(server).generate(iter([None, *requests(1), None]))
        assert next(batches) == []  # nothing in flight: at once
        started = time.monotonic()
        assert next(batches) == []
        assert next(batches) == []
        assert time.monotonic() - started < 10
        batches.close()


def test_proxy_variables_do_not_reach_loopback(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", f"http://127.0.0.1:{free_port()}")
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.delenv("no_proxy", raising=False)
    with ScriptedServer() as server:
        assert find_served_model([server.url], None, api_key=None, outage_seconds=0) == MODEL
        assert_all_right(engine_over(server), requests(3))


# Servers that answer badly.


@pytest.mark.parametrize(
    "script", ["500*3", "503 502", "garbage*2", "torn*3", "close*3", "429*5", "500 torn ok 429 close"]
)
def test_a_fault_is_asked_again(script: str) -> None:
    with ScriptedServer(script=script) as server:
        assert_all_right(engine_over(server), requests(12))


def test_retry_after_is_honoured_and_said_once(caplog: pytest.LogCaptureFixture) -> None:
    with ScriptedServer(script="429:1 ok*4 429") as server:
        started = time.monotonic()
        assert_all_right(engine_over(server, in_flight=1), requests(8))
        assert time.monotonic() - started >= 1.0
    assert len(lines(caplog, "slow down")) == 1


def test_a_stalled_request_is_timed_out_and_asked_again(caplog: pytest.LogCaptureFixture) -> None:
    with ScriptedServer(script="stall") as server:
        assert_all_right(engine_over(server, request_seconds=0.4), requests(5))
        assert server.disconnected.wait(2)  # so that the server stops working on it
    assert not lines(caplog, "responds again")  # its list of models came at once, so it was never called gone


def test_a_request_that_fails_while_others_are_answered_ends_aborted() -> None:
    with ScriptedServer(latency=0.01) as server:
        server.poison = "prompt 0"
        found = answers(engine_over(server, in_flight=2, outage_seconds=60), requests(200))
    poisoned = found.pop(RequestKey(0, "tasks", 0))
    assert (poisoned.finish_reason, poisoned.text) == (FinishReason.ABORT, "")
    assert "500 Internal Server Error: told to fail" in poisoned.given_up
    assert all(completion.text for completion in found.values())


@pytest.mark.parametrize("fault", ["502", "torn"])
def test_servers_that_fail_for_long_and_recover_lose_nothing(fault: str) -> None:
    with ScriptedServer(script=f"{fault}*{MAX_TRIES + 4}") as server:
        assert_all_right(engine_over(server, in_flight=1, outage_seconds=60), requests(3))


def test_servers_that_fail_for_too_long_are_an_outage() -> None:
    with ScriptedServer(script="502*") as server, pytest.raises(EngineDeadError, match=r"for 2 s: .* 502 Bad Gateway"):
        answers(engine_over(server, outage_seconds=1.5), requests(3))
    assert len(server.asked) > MAX_TRIES


def test_a_server_that_lists_its_models_and_answers_no_request_is_out(caplog: pytest.LogCaptureFixture) -> None:
    with ScriptedServer(script="ok*3 stall*") as server:
        batches = engine_over(server, request_seconds=0.3, outage_seconds=0.5).generate(requests(30))
        found: list[Completion] = []
        while len(found) < 3:
            found += next(batches)
        with pytest.raises(EngineDeadError, match=r"for 0 s: .* in 0\.3 s"):
            list(batches)
        assert server.looked > 1
    assert len(found) == 3
    assert not lines(caplog, "responds again")


def test_a_request_that_no_server_can_answer_is_given_up_alone_too() -> None:
    """Else a run that has decided all before it would end of it whenever it goes on."""
    with ScriptedServer() as server:
        server.poison = "prompt 1"
        found = answers(engine_over(server, in_flight=1, outage_seconds=0.5), requests(4))
    poisoned = found.pop(RequestKey(1, "tasks", 0))
    assert (poisoned.finish_reason, poisoned.text) == (FinishReason.ABORT, "")
    assert "500 Internal Server Error: told to fail" in poisoned.given_up
    assert len(found) == 3
    assert all(completion.text for completion in found.values())


def test_servers_that_answer_neither_of_two_are_an_outage() -> None:
    with ScriptedServer(script="ok 502*") as server, pytest.raises(EngineDeadError, match="502 Bad Gateway"):
        answers(engine_over(server, in_flight=1, outage_seconds=0.5), requests(4))


def test_one_request_that_runs_out_of_time_twice_makes_no_hung_server() -> None:
    """As long as others are answered in between."""

    async def hung(answered_between: bool) -> bool:  # noqa: FBT001
        pool = ServerPool(["http://127.0.0.1:9/v1"], "model", api_key=None, outage_seconds=60)
        (server,) = pool._servers
        now = asyncio.get_running_loop().time
        for _ in range(2):
            sent_at = now()
            await asyncio.sleep(0.01)
            if answered_between:
                pool.answered(server, sent_at)
            pool.struck(server, RetryableError("no answer in 0 s", silent=True), sent_at)
        return server.hangs

    assert not asyncio.run(hung(answered_between=True))
    assert asyncio.run(hung(answered_between=False))


def test_endless_refusal_to_work_is_an_outage() -> None:
    with ScriptedServer(script="429*") as server, pytest.raises(EngineDeadError, match="429"):
        answers(engine_over(server, outage_seconds=0.6), requests(3))


def test_other_words_for_the_end_of_a_text_are_known(caplog: pytest.LogCaptureFixture) -> None:
    for word in ("stop_sequence", "eos_token", "eos"):
        with ScriptedServer() as server:
            server.finish_words = {"stop": word}
            assert_all_right(engine_over(server), requests(5))
    assert not lines(caplog, "finish_reason")
    with ScriptedServer() as server:
        server.finish_words = {"stop": "whim", "length": "whim"}
        found = answers(engine_over(server), requests(5))
        assert {each.finish_reason for each in found.values()} == {FinishReason.ABORT}
    (line,) = lines(caplog, "finish_reason")
    assert line.startswith(f"{server.url}: ")
    assert "whim" in line


def test_a_broken_server_beside_a_good_one_is_left_alone(caplog: pytest.LogCaptureFixture) -> None:
    with ScriptedServer(script="500*") as broken, ScriptedServer(latency=0.01) as good:
        assert_all_right(engine_over(broken, good), requests(60))
        assert len(broken.asked) < 20
    assert len(lines(caplog, broken.url)) == 1


def test_any_other_refusal_of_a_request_ends_the_run() -> None:
    with ScriptedServer(script="ok*3 422") as server, pytest.raises(EngineDeadError) as caught:
        answers(engine_over(server), requests(8))
    assert server.url in str(caught.value)
    assert "told to fail" in str(caught.value)


def test_what_came_before_the_end_is_handed_out() -> None:
    with ScriptedServer(script="ok*5 400") as server:
        batches = engine_over(server, in_flight=1).generate(requests(8))
        found: list[Completion] = []
        while len(found) < 5:
            found += next(batches)
        with pytest.raises(EngineDeadError, match="told to fail"):
            list(batches)
    assert [completion.key.job for completion in found] == [0, 1, 2, 3, 4]


# Servers that are not there.


def test_a_refused_connection_goes_elsewhere(caplog: pytest.LogCaptureFixture) -> None:
    gone = f"http://127.0.0.1:{free_port()}/v1"
    with ScriptedServer() as server:
        assert_all_right(engine_over(gone, server), requests(20))
    assert len(lines(caplog, "connection refused")) == 1


def test_a_killed_server_that_comes_back_loses_nothing(caplog: pytest.LogCaptureFixture) -> None:
    port = free_port()
    asked = requests(60)
    found: list[Completion] = []
    with process(port, "--latency", "0.05") as first:
        batches = engine_over(f"http://127.0.0.1:{port}/v1", outage_seconds=20).generate(asked)
        while len(found) < 10:
            found += next(batches)
        first.send_signal(signal.SIGKILL)
        first.wait()
        for _ in range(3):
            found += next(batches)  # turns go on without a server
    with process(port):
        for batch in batches:
            found += batch
    assert sorted(completion.key for completion in found) == [request.key for request in asked]
    assert {each.key: each.text for each in found} == {each.key: answer(each).text for each in asked}
    # Refused or reset, as the kill fell; said once either way.
    assert len(lines(caplog, "until this is fixed")) == 1
    assert len(lines(caplog, "responds again")) == 1


def test_one_of_two_servers_is_killed_in_the_middle() -> None:
    port = free_port()
    asked = requests(60)
    with process(port, "--latency", "0.05") as dying, ScriptedServer(latency=0.05) as other:
        batches = engine_over(f"http://127.0.0.1:{port}/v1", other).generate(asked)
        found = list(next(batches))
        dying.kill()
        for batch in batches:
            found += batch
    assert sorted(completion.key for completion in found) == [request.key for request in asked]


def test_all_gone_too_long_ends_the_run() -> None:
    gone = f"http://127.0.0.1:{free_port()}/v1"
    with ScriptedServer() as server:
        batches = engine_over(server, gone, outage_seconds=0.8, in_flight=2).generate(requests(50))
        next(batches)
        server.close()
        started = time.monotonic()
        with pytest.raises(EngineDeadError) as caught:
            list(batches)
    assert 0.7 < time.monotonic() - started < 8
    for url in (gone, server.url):
        assert f"{url} (connection refused)" in str(caught.value)


def test_a_server_started_again_with_another_model_is_set_aside(caplog: pytest.LogCaptureFixture) -> None:
    asked = requests(60)
    with ScriptedServer(latency=0.01) as steady, ScriptedServer(latency=0.01) as other:
        batches = engine_over(other, steady).generate(asked)
        found = list(next(batches))
        other.close()
        with ScriptedServer(port=other.port, model="stranger") as stranger:
            for batch in batches:
                found += batch
            assert not stranger.asked
    assert sorted(completion.key for completion in found) == [request.key for request in asked]
    assert len(lines(caplog, f"{other.url}: ")) == 1


def test_a_model_swapped_behind_the_same_port_is_named() -> None:
    with ScriptedServer() as server:
        batches = engine_over(server, outage_seconds=0.5, in_flight=1).generate(requests(50))
        next(batches)
        server.model = "stranger"  # as if started again between two requests: the next one gets a 404
        with pytest.raises(EngineDeadError, match=f"serves stranger, not {MODEL}"):
            list(batches)


# Context, routes, keys.


def long_request(words: int, **sampling: Any) -> Request:
    chosen = {"temperature": 1.0, "top_p": 1.0, "max_tokens": 500, "seed": 1, **sampling}
    return Request(RequestKey(words, "tasks", 0), "word " * words, Sampling(**chosen))


def test_the_answer_is_clamped_to_the_context_and_a_prompt_too_long_is_refused() -> None:
    with ScriptedServer() as server:
        asked = [
            long_request(CONTEXT - 10),
            long_request(CONTEXT),
            long_request(3 * CONTEXT),
            long_request(5, max_tokens=9999),
        ]
        found = answers(engine_over(server, in_flight=1), asked)
        assert [each["max_tokens"] for each in server.asked] == [500, 10, 500, 500, CONTEXT, CONTEXT - 5]
    assert found[asked[0].key].text == answer(asked[0]).text
    for refused in asked[1:3]:
        assert found[refused.key] == Completion(refused.key, "", FinishReason.REFUSED, len(refused.prompt.split()), 0)
    assert found[asked[3].key].text


def test_without_a_tokenizer_route_a_prompt_too_long_is_refused_uncounted() -> None:
    asked = long_request(CONTEXT)
    with ScriptedServer(missing=("/tokenize",)) as server:
        assert answers(engine_over(server), [asked])[asked.key] == Completion(asked.key, "", FinishReason.REFUSED, 0, 0)


def test_a_longer_context_than_the_runs_is_not_used() -> None:
    with ScriptedServer(context=4 * CONTEXT) as server:
        asked = [long_request(CONTEXT - 7), long_request(CONTEXT + 1), long_request(3)]
        found = answers(engine_over(server, in_flight=1), asked)
        assert [each["max_tokens"] for each in server.asked] == [7, 500]
    assert found[asked[1].key].finish_reason is FinishReason.REFUSED


def test_a_server_without_completions_is_asked_by_chat(caplog: pytest.LogCaptureFixture) -> None:
    with ScriptedServer(missing=("/v1/completions",)) as server:
        assert_all_right(engine_over(server), requests(9))
        assert server.asked[0]["messages"] == [{"role": "user", "content": server.asked[0]["messages"][0]["content"]}]
    assert len(lines(caplog, "chat messages")) == 1


def test_a_server_with_neither_route_ends_the_run() -> None:
    routes = ("/v1/completions", "/v1/chat/completions")
    with ScriptedServer(missing=routes) as server, pytest.raises(EngineDeadError, match="/chat/completions"):
        answers(engine_over(server), requests(3))


def test_the_key_is_sent_and_not_logged(caplog: pytest.LogCaptureFixture) -> None:
    key = "sk-local-4711"
    with ScriptedServer(key=key, script="500 close") as server:
        assert find_served_model([server.url], None, api_key=key, outage_seconds=0) == MODEL
        caplog.set_level(logging.DEBUG)
        assert_all_right(engine_over(server, api_key=key), requests(4))
        with pytest.raises(EngineDeadError, match=r"\$SELFINSTRUCT_API_KEY"):
            answers(engine_over(server, api_key="another"), requests(1))
        with pytest.raises(UsageError, match=r"\$SELFINSTRUCT_API_KEY"):
            find_served_model([server.url], None, api_key=None, outage_seconds=5)
    assert key not in caplog.text
    with pytest.raises(UsageError) as caught:
        engine_over(server, api_key=f"{key}\n")
    assert key not in str(caught.value)


# Constraints and conversations.

RIVER = (Turn("system", "Be brief."), Turn("user", "Name a <|im_end|> river."))


def conversation(prompt: str = "", role: Any = "assistant", turns: tuple[Turn, ...] = RIVER) -> Request:
    return Request(RequestKey(0, "tasks", 0), prompt, Sampling(1.0, 1.0, 20), turns, role)


def test_constraints_are_sent_in_the_words_of_vllm(embedded_model: ModelFolder) -> None:
    (schema,) = requests(1, json_schema='{"type": "integer"}')
    (choice,) = requests(1, choice=("yes", "no"))
    (endless,) = requests(1, forbid_end=True)
    (pattern,) = requests(1, regex="[a-z]+")
    with ScriptedServer() as server:
        for request in (schema, choice, endless, pattern):
            answers(engine_over(server, folder=embedded_model.path), [request])  # reads no more than JSON files
        first, second, third, fourth = server.asked
        with pytest.raises(UsageError, match="--model"):
            answers(engine_over(server), [endless])
        assert len(server.asked) == 4
    assert first["structured_outputs"] == {"json": {"type": "integer"}}
    assert second["structured_outputs"] == {"choice": ["yes", "no"]}
    assert third["logit_bias"] == {"2": -100}
    assert fourth["structured_outputs"] == {"regex": "[a-z]+"}
    assert "logit_bias" not in first
    assert "structured_outputs" not in third


def test_turns_are_rendered_here_when_the_models_folder_is_known(embedded_model: ModelFolder) -> None:
    encoder = FolderEncoder(embedded_model.path)
    wanted = [conversation(), conversation("The"), conversation(role="user", turns=()), conversation("In a <|im_end|>")]
    with ScriptedServer() as server:
        engine = engine_over(server, folder=embedded_model.path)
        for request in wanted:
            (completion,) = answers(engine, [request]).values()
            assert completion.prompt_tokens == len(encoder.encode(request))
        assert [body["prompt"] for body in server.asked] == [encoder.encode(request) for request in wanted]
        # A plain prompt goes as text, unless a server would read control tokens in it.
        for text in ("a river", "a <|im_end|> river"):
            answers(engine, [conversation(text, turns=())])
        plain, with_control = (body["prompt"] for body in server.asked[-2:])
    assert plain == "a river"
    assert with_control == encoder.encode(conversation("a <|im_end|> river", turns=()))
    assert 2 not in with_control


def test_rendered_turns_fill_the_context_and_no_more(embedded_model: ModelFolder) -> None:
    long = conversation(turns=(Turn("user", "word " * 60),))
    length = len(FolderEncoder(embedded_model.path).encode(long))
    for context in (CONTEXT, length + 5):
        with ScriptedServer(context=context) as server:
            engine = engine_over(server, folder=embedded_model.path, max_model_len=length + 5)
            (completion,) = answers(engine, [long]).values()
            assert server.asked[-1]["max_tokens"] == 5
            assert completion.finish_reason is not FinishReason.REFUSED
            engine = engine_over(server, folder=embedded_model.path, max_model_len=length)
            (completion,) = answers(engine, [long]).values()
            assert completion == Completion(long.key, "", FinishReason.REFUSED, length, 0)


def test_without_the_folder_turns_go_as_chat_messages() -> None:
    messages = [turn._asdict() for turn in RIVER]
    with ScriptedServer() as server:
        (completion,) = answers(engine_over(server), [conversation()]).values()
        assert completion.confidence == -0.375
        assert server.asked[0]["messages"] == messages
        assert server.asked[0]["logprobs"] is True
        assert "continue_final_message" not in server.asked[0]
        answers(engine_over(server), [conversation("The Nile")])
        assert server.asked[1]["messages"] == [*messages, {"role": "assistant", "content": "The Nile"}]
        assert server.asked[1]["continue_final_message"] is True
        assert server.asked[1]["add_generation_prompt"] is False
        answers(engine_over(server), requests(1))
        assert server.asked[2]["prompt"] == "prompt 0"  # the others keep to their route
        with pytest.raises(UsageError, match=r"user turn.*--model"):
            answers(engine_over(server), [conversation(role="user")])


def test_turns_as_messages_are_counted_where_the_context_is_longer() -> None:
    long = conversation(turns=(Turn("user", "word " * 50), Turn("assistant", "word " * 30), Turn("user", "word")))
    with ScriptedServer() as server:
        answers(engine_over(server, max_model_len=91), [long])
        assert server.asked[0]["max_tokens"] == 10


def test_routes_that_conversations_miss_are_named(embedded_model: ModelFolder) -> None:
    with (
        ScriptedServer(missing=("/v1/chat/completions",)) as server,
        pytest.raises(EngineDeadError, match=r"/chat/completions.*--model"),
    ):
        answers(engine_over(server), [conversation()])
    with ScriptedServer(missing=("/v1/completions",)) as server:
        engine = engine_over(server, folder=embedded_model.path)
        answers(engine, [conversation()])
        assert server.asked[0]["messages"] == [turn._asdict() for turn in RIVER]
        with pytest.raises(EngineDeadError, match=r"/completions.*user turn"):
            answers(engine, [conversation(role="user")])


def test_a_server_that_refuses_logprobs_is_asked_without() -> None:
    with ScriptedServer() as server:
        server.tells_logprobs = False
        found = answers(engine_over(server, in_flight=1), requests(3))
        assert ["logprobs" in body for body in server.asked] == [True, False, False, False]
    assert all(completion.text and completion.confidence is None for completion in found.values())


# Closing.


@pytest.mark.parametrize("how", ["generator", "engine"])
def test_closing_with_requests_in_flight_does_not_hang(how: str) -> None:
    with ScriptedServer(script="ok stall*") as server:
        engine = engine_over(server, f"http://127.0.0.1:{free_port()}/v1", "http://127.0.0.1:9/v1")
        batches = engine.generate(requests(20))
        while len(server.asked) < 1 + engine.capacity:  # one answered, all slots stalled
            next(batches)
        started = time.monotonic()
        if how == "generator":
            batches.close()
        else:
            engine.close()
            with pytest.raises(EngineDeadError, match="closed"):
                list(batches)
        assert time.monotonic() - started < 10
        assert server.disconnected.wait(2)
    engine.close()
    assert not [thread for thread in threading.enumerate() if thread.name == "endpoints"]


# The model's name at the start.


def test_the_served_name_is_found(tmp_path: Path) -> None:
    folder = tmp_path / "tiny-llama"
    with (
        ScriptedServer() as scripted,
        ScriptedServer(model="models/tiny-llama") as by_name,
        ScriptedServer(model=str(folder)) as by_path,
    ):

        def find(server: ScriptedServer, wanted: str | None, folder: Path | None = None) -> str:
            return find_served_model([server.url], wanted, api_key=None, outage_seconds=0, folder=folder)

        assert served_models(scripted.url, None, 5) == {MODEL: CONTEXT}
        assert find(scripted, None) == MODEL
        assert find(scripted, MODEL) == MODEL
        assert find(by_name, None, folder) == "models/tiny-llama"
        assert find(by_path, None, folder) == str(folder)
        for wanted, searched in (("nothing-here", None), (None, folder)):
            with pytest.raises(UsageError) as caught:
                find(scripted, wanted, searched)
            assert f"--endpoint {scripted.url}: serves {MODEL}, not " in str(caught.value)


def test_all_servers_must_serve_the_same() -> None:
    with ScriptedServer() as first, ScriptedServer(model="stranger") as second, pytest.raises(UsageError) as caught:
        find_served_model([first.url, second.url], None, api_key=None, outage_seconds=0)
    assert f"{second.url}: serves stranger, not {MODEL}" in str(caught.value)


def test_the_first_server_is_waited_for(caplog: pytest.LogCaptureFixture) -> None:
    port = free_port()
    url = f"http://127.0.0.1:{port}/v1"
    started: list[ScriptedServer] = []
    later = threading.Timer(0.5, lambda: started.append(ScriptedServer(port=port)))
    later.start()
    assert find_served_model([url], None, api_key=None, outage_seconds=10) == MODEL
    later.join()
    started[0].close()
    assert len(lines(caplog, f"{url} (connection refused)")) == 1
    with pytest.raises(EngineDeadError, match="connection refused"):
        find_served_model([url], None, api_key=None, outage_seconds=0.2)


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("127.0.0.1:8000", "not a URL"),
        ("ftp://127.0.0.1", "not a URL"),
        ("http://me:secret@127.0.0.1/v1", r"--endpoint \.\.\.@127\.0\.0\.1: .*password"),
        ("http://[::1", "--endpoint"),
    ],
)
def test_urls_are_checked(url: str, said: str) -> None:
    with pytest.raises(UsageError, match=said) as caught:
        engine_over(url)
    assert "secret" not in str(caught.value)


def test_a_base_url_without_v1_is_told_so() -> None:
    with ScriptedServer() as server, pytest.raises(UsageError, match="end in /v1"):
        find_served_model([server.url.removesuffix("/v1")], None, api_key=None, outage_seconds=5)
