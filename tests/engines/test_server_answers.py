"""Odd but legal fields in the answers of servers: one line names the field, and nothing odd gets further in."""

import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import orjson
import pytest

from selfinstruct_local.engines import FinishReason
from selfinstruct_local.engines.endpoints import find_served_model, served_models
from selfinstruct_local.engines.http_clients import MAX_ANSWER_BYTES, Answer, UnreachableError
from selfinstruct_local.engines.keys import without_key
from selfinstruct_local.engines.server_answers import MAX_PAUSE, MAX_TOKENS, AnswerReader, OddAnswerError
from selfinstruct_local.errors import EngineDeadError
from tests.conftest import RunCli
from tests.engines.test_endpoints import answers, assert_all_right, engine_over, requests, short_pauses
from tests.scripted_server import CONTEXT, MODEL, ScriptedServer

__all__ = ["short_pauses"]  # a fixture of that module, in force here too
KEY = "sk-Local-9f81c2d47be0"

Twist = Callable[[dict[str, Any]], object]


def choice(**fields: Any) -> Twist:
    return lambda told: told["choices"][0].update(fields)


def usage(**fields: Any) -> Twist:
    return lambda told: told["usage"].update(fields)


ODD: dict[str, tuple[str, Twist]] = {
    "text-list": ("choices[0].text", choice(text=["a river"])),
    "text-dict": ("choices[0].text", choice(text={"a": "river"})),
    "text-number": ("choices[0].text", choice(text=7)),
    "finish-reason-dict": ("choices[0].finish_reason", choice(finish_reason={"type": "stop"})),
    "completion-tokens-u64": ("usage.completion_tokens", usage(completion_tokens=2**64 - 1)),
    "completion-tokens-i64": ("usage.completion_tokens", usage(completion_tokens=2**63 - 1)),
    "completion-tokens-float": ("usage.completion_tokens", usage(completion_tokens=1e30)),
    "completion-tokens-negative": ("usage.completion_tokens", usage(completion_tokens=-5)),
    "completion-tokens-word": ("usage.completion_tokens", usage(completion_tokens="many")),
    "completion-tokens-bool": ("usage.completion_tokens", usage(completion_tokens=True)),
    "prompt-tokens-list": ("usage.prompt_tokens", usage(prompt_tokens=[3])),
    "cached-word": ("usage.prompt_tokens_details.cached_tokens", usage(prompt_tokens_details={"cached_tokens": "all"})),
    "cached-list": ("usage.prompt_tokens_details.cached_tokens", usage(prompt_tokens_details={"cached_tokens": [1]})),
    "cached-half": ("usage.prompt_tokens_details.cached_tokens", usage(prompt_tokens_details={"cached_tokens": 1.5})),
    "details-list": ("usage.prompt_tokens_details", usage(prompt_tokens_details=[])),
    "usage-list": ("usage", lambda told: told.update(usage=[1])),
    "no-choices": ("choices", lambda told: told.update(choices=[])),
    "choices-dict": ("choices", lambda told: told.update(choices={"0": {}})),
    "choices-missing": ("choices", lambda told: told.pop("choices")),
    "logprob-word": ("choices[0].logprobs", choice(logprobs={"token_logprobs": ["sure"]})),
    "logprob-huge": ("choices[0].logprobs", choice(logprobs={"token_logprobs": [-1e308, -1e308]})),
    "error": (
        "status 200 with an error: loading",
        lambda told: told.update(error={"message": told.pop("choices") and "loading"}),
    ),
}


@pytest.mark.parametrize("case", ODD)
def test_an_odd_answer_counts_as_none_and_is_tried_elsewhere(case: str, caplog: pytest.LogCaptureFixture) -> None:
    field, twist = ODD[case]
    with ScriptedServer() as odd, ScriptedServer() as good:
        odd.twist = twist
        assert_all_right(engine_over(odd, good), requests(8))
        (line,) = [text for text in caplog.messages if odd.url in text]
    assert line.startswith(f"{odd.url}: {field}")


@pytest.mark.parametrize("case", ODD)
def test_a_server_that_answers_oddly_only_is_an_outage(case: str) -> None:
    field, twist = ODD[case]
    with ScriptedServer() as odd:
        odd.twist = twist
        began = time.monotonic()
        with pytest.raises(EngineDeadError, match=re.escape(field)):
            answers(engine_over(odd, outage_seconds=0.5), requests(3))
    assert time.monotonic() - began < 10


@pytest.mark.parametrize(
    "twist",
    [
        lambda told: told.pop("usage"),
        lambda told: told.update(usage=None),
        usage(prompt_tokens=None, completion_tokens=None, prompt_tokens_details=None),
        usage(completion_tokens=4.0, prompt_tokens_details={"cached_tokens": None}, queue_seconds=[]),
        usage(completion_tokens=MAX_TOKENS),
        choice(logprobs=[], index="first", stop_reason=2),
        choice(logprobs={"content": [{"token": "a"}, {"logprob": None}]}),
        lambda told: told.update(id=7, model=[], choices=[*told["choices"], told["choices"][0]]),
    ],
)
def test_what_is_left_out_or_not_used_may_be_anything(twist: Twist) -> None:
    with ScriptedServer() as server:
        server.twist = twist
        assert_all_right(engine_over(server), requests(4))


def parts(*content: object) -> Twist:
    return lambda told: told["choices"][0]["message"].update(content=list(content))


@pytest.mark.parametrize(
    ("twist", "text"),
    [
        (parts({"type": "text", "text": "Two"}, {"type": "text", "text": " rivers"}), "Two rivers"),
        (parts({"type": "thinking", "thinking": [{"type": "text", "text": "Hm"}]}, {"type": "text", "text": "A"}), "A"),
        (parts({"type": "reasoning", "text": "Hm"}, {"type": "output_text", "text": "A"}, "B"), "AB"),
        (parts({"text": "A"}), "A"),
        (parts({"type": "refusal", "refusal": "No."}), ""),
        (parts(), ""),
        (lambda told: told["choices"][0]["message"].update(content=None), ""),
    ],
)
def test_the_text_parts_of_a_message_are_joined(twist: Twist, text: str, caplog: pytest.LogCaptureFixture) -> None:
    with ScriptedServer(missing=("/v1/completions",)) as server:
        server.twist = twist
        found = answers(engine_over(server), requests(3))
    assert {each.text for each in found.values()} == {text}
    assert len([line for line in caplog.messages if "choices[0].message.content" in line]) <= 1


@pytest.mark.parametrize(
    "content", [7, {"type": "text", "text": "a"}, [7], [None], [{"type": "text"}], [{"type": 7, "text": "a"}]]
)
def test_a_message_without_a_readable_text_is_odd(content: object) -> None:
    with ScriptedServer(missing=("/v1/completions",)) as server:
        server.twist = lambda told: told["choices"][0]["message"].update(content=content)
        with pytest.raises(EngineDeadError, match=r"choices\[0\]\.message\.content "):
            answers(engine_over(server, outage_seconds=0.4), requests(2))


def test_parts_reach_the_run(tmp_path: Path, cli: RunCli) -> None:
    """On the command line, where what is stored is a text."""
    with ScriptedServer(missing=("/v1/completions",)) as server:
        server.twist = lambda told: told["choices"][0]["message"].update(
            content=[
                {"type": "thinking", "thinking": "Hm"},
                {"type": "text", "text": told["choices"][0]["message"]["content"]},
            ]
        )
        done = cli("generate", "--run", tmp_path / "run", "--endpoint", server.url, "--num", 3)
    assert done.returncode == 0, done.stderr
    assert len(orjson.loads((tmp_path / "run" / "alpaca.json").read_bytes())) >= 3


@pytest.mark.parametrize("told", ["long", -5, 0, True, 2.5, [2048], 2**63])
def test_an_odd_context_is_named_and_the_server_waited_for(told: object) -> None:
    with ScriptedServer() as server:
        server.card = {"max_model_len": told}
        with pytest.raises(EngineDeadError, match=r"data\[0\]\.max_model_len "):
            find_served_model([server.url], None, api_key=None, outage_seconds=0.2)
        with pytest.raises(EngineDeadError, match=r"data\[0\]\.max_model_len "):
            answers(engine_over(server, outage_seconds=0.4), requests(2))


@pytest.mark.parametrize("card", [{"max_model_len": None}, {"max_model_len": 512.0}, {"created": "yesterday"}])
def test_a_plain_list_of_models_is_read(card: dict[str, Any]) -> None:
    with ScriptedServer() as server:
        server.card = card
        context = card.get("max_model_len", CONTEXT)
        assert served_models(server.url, None, 5) == {MODEL: context}


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"null",
        b"[]",
        b'"models"',
        b'{"data": {}}',
        b'{"data": [7]}',
        b'{"data": [{"id": 7}]}',
        b"\xff",
        b"[" * 5000,
    ],
)
def test_what_is_no_list_of_models_is_said(body: bytes) -> None:
    import httpx

    with pytest.raises(OddAnswerError):
        AnswerReader(None).models(Answer(200, httpx.Headers(), body))


def test_an_odd_count_of_tokens_is_named() -> None:
    import httpx

    def read(told: dict[str, Any]) -> tuple[int, int | None] | None:
        return AnswerReader(None).prompt_length(Answer(200, httpx.Headers(), orjson.dumps(told)))

    assert read({"count": 7, "max_model_len": 2048}) == (7, 2048)
    assert read({"tokens": [1, 2]}) is None  # another program's route
    for odd in ({"count": "many"}, {"count": -1}, {"count": 7, "max_model_len": 0}):
        with pytest.raises(OddAnswerError, match=r"^(count|max_model_len) "):
            read(odd)


# Retry-After.


@pytest.mark.parametrize(
    ("told", "seconds"),
    [
        ("7", 7),
        (" 2.5 ", 2.5),
        ("9" * 400, MAX_PAUSE),
        ("Fri, 31 Dec 9999 23:59:59 GMT", MAX_PAUSE),
        ("Wed, 21 Oct 2015 07:28:00 GMT", 0),
        (None, None),
    ],
)
def test_a_pause_is_bounded(told: str | None, seconds: float | None) -> None:
    import httpx

    headers = httpx.Headers({} if told is None else {"Retry-After": told})
    assert AnswerReader(None).pause(Answer(429, headers, b"")) == seconds


@pytest.mark.parametrize(
    "told",
    ["\xb2", "Mon, 01 Jan 99999999999999999999 00:00:00 GMT", "soon", "", "-1", "1e3", "5, 5"],
)
def test_an_odd_pause_is_named_and_none(told: str, caplog: pytest.LogCaptureFixture) -> None:
    with ScriptedServer(script="429") as server:
        server.error_headers = {"Retry-After": told}
        assert_all_right(engine_over(server), requests(4))
        (line,) = [text for text in caplog.messages if "slow down" in text]
    assert line.startswith(f"{server.url}: ")
    assert "429 Too Many Requests; Retry-After " in line


# The key.

ECHOES: dict[str, Callable[[str], str]] = {
    "whole": lambda header: f"no such header: Authorization: {header}",
    "key": lambda header: f"bad key {header.split()[-1]} given",
    "beginning": lambda header: f"the key {header[: len(header) - 6]}... is not known",
    "end": lambda header: f"the key ...{header[-8:]} is not known",
    "upper": lambda header: header.upper(),
    "spread": " ".join,
    "lines": "\n".join,
    "quoted": lambda header: f"{list(header)!r}",
}


def parts_of_key(text: str) -> list[str]:
    letters = "".join(filter(str.isalnum, text)).casefold()
    key = "".join(filter(str.isalnum, KEY)).casefold()
    return [key[at : at + 6] for at in range(len(key) - 5) if key[at : at + 6] in letters]


@pytest.mark.parametrize("echo", ECHOES)
def test_no_part_of_the_key_is_left_in_a_text(echo: str) -> None:
    text = ECHOES[echo](f"Bearer {KEY}")
    assert parts_of_key(text)
    assert not parts_of_key(without_key(text, KEY))


@pytest.mark.parametrize("status", [400, 401, 404, 418, 429, 500])
def test_a_body_that_repeats_the_key_is_not_shown(status: int, caplog: pytest.LogCaptureFixture) -> None:
    with ScriptedServer(key=KEY, script=f"{status}*") as server:
        server.echoes_key = ECHOES["beginning"]
        with pytest.raises(EngineDeadError, match=server.url) as caught:
            answers(engine_over(server, api_key=KEY, outage_seconds=0.3), requests(2))
    assert not parts_of_key(f"{caught.value} {caplog.text}")


def test_other_fields_that_repeat_the_key_are_not_shown(caplog: pytest.LogCaptureFixture) -> None:
    with ScriptedServer(key=KEY) as server:
        for twist in (choice(text=[KEY]), choice(finish_reason=KEY), lambda told: told.update(usage=f"Bearer {KEY}")):
            server.twist = twist
            engine = engine_over(server, api_key=KEY, outage_seconds=0.3)
            try:
                assert {each.finish_reason for each in answers(engine, requests(1)).values()} == {FinishReason.ABORT}
            except EngineDeadError as error:
                assert KEY not in str(error)  # noqa: PT017 - one of three twists is no error
        server.model = f"of {KEY}"
        with pytest.raises(EngineDeadError) as caught:
            find_served_model([server.url], None, api_key=KEY, outage_seconds=0)
    assert KEY not in str(caught.value)
    assert KEY not in caplog.text
    assert caplog.text


def test_a_short_key_withholds_no_more_than_itself() -> None:
    assert without_key("the list is empty", "EMPTY") == "the list is empty"
    assert "EMPTY" not in without_key("key EMPTY is wrong", "EMPTY")
    assert without_key("the model is loading", KEY) == "the model is loading"
    assert without_key(f"the key {KEY}", None) == f"the key {KEY}"


@pytest.mark.parametrize(
    "url", [f"http://me:{KEY}@[::1", f"http://{KEY}@127.0.0.1/v1", f"http://127.0.0.1/v1?key={KEY}"]
)
def test_a_key_in_a_url_is_refused_and_not_shown(url: str) -> None:
    with pytest.raises(Exception, match="--endpoint") as caught:
        engine_over(url)
    assert KEY not in str(caught.value)


# Time and size.


def test_a_list_of_models_that_trickles_is_an_outage_in_time() -> None:
    with ScriptedServer() as server:
        server.seconds_per_byte = 0.5
        began = time.monotonic()
        with pytest.raises(EngineDeadError, match=r"for 1 s: .*list of models.* 2 s"):
            find_served_model(
                [server.url, server.url.replace("127.0.0.1", "localhost")], None, api_key=None, outage_seconds=1
            )
        with pytest.raises(EngineDeadError, match=r"list of models.* 2 s"):
            answers(engine_over(server, outage_seconds=1), requests(2))
    assert time.monotonic() - began < 10


def test_an_answer_without_end_is_broken_off(monkeypatch: pytest.MonkeyPatch) -> None:
    assert MAX_ANSWER_BYTES > 2**20
    monkeypatch.setattr("selfinstruct_local.engines.http_clients.MAX_ANSWER_BYTES", 2**20)
    with ScriptedServer() as server:
        server.card = {"padding": "x" * 2**22}
        with pytest.raises(UnreachableError, match="1 MiB"):
            served_models(server.url, None, 10)


@pytest.mark.parametrize("url", ["http://127.0.0.1:99999/v1", f"http://{'a' * 70}.example/v1", "http://a..example/v1"])
def test_a_url_that_names_no_host_or_port_is_one_line(url: str) -> None:
    with pytest.raises(Exception, match="http://") as caught:
        find_served_model([url], None, api_key=None, outage_seconds=0)
    assert caught.type.__module__ == "selfinstruct_local.errors"
