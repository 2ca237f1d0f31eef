"""A small real HTTP server that speaks as much of the OpenAI API as vLLM's does to us, and misbehaves when told to.

What it writes is that of `scripted_engine.py`: a function of prompt and seed alone. It runs inside a test, or as a
process of its own that can be killed: `python -m tests.scripted_server --port 8000 --script "429 500*3 torn"`.

A script is a list of faults, one for each request to a completion route, in the order they come; `500*3` stands for
three, `500*` for all that follow:

    ok          answers as it should
    429, 500    refuses with that status (any of 400 to 599); `429:2` asks for a pause of 2 s
    stall       answers nothing until it is closed
    close       closes the connection instead of answering
    torn        closes it in the middle of the answer
    garbage     answers a whole body that is no JSON

A test may also set `twist`, `card`, `error_headers`, `echoes_key` and `seconds_per_byte`, and give a certificate.
"""

import argparse
import contextlib
import itertools
import re
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Self

import orjson

from selfinstruct_local.engines import Completion, Request, RequestKey, Sampling
from tests.scripted_engine import answer

MODEL = "scripted"
CONTEXT = 2048
LOGPROBS = (-0.25, -0.5)  # of the tokens of every answer; their mean is -0.375


class ScriptedServer:
    """Listens from its making to its closing; `asked` holds the bodies of the completion requests it got."""

    def __init__(  # noqa: PLR0913 - each is one fault or fact of a server
        self,
        *,
        port: int = 0,
        model: str = MODEL,
        script: str = "",
        latency: float = 0.0,
        context: int = CONTEXT,
        missing: tuple[str, ...] = (),
        key: str | None = None,
        tells_context: bool = True,
        host: str = "127.0.0.1",
        certificate: Path | None = None,
    ) -> None:
        self.model = model
        self.latency = latency
        self.context = context
        self.missing = missing
        self.key = key
        self.tells_context = tells_context
        self.tells_logprobs = True
        self.poison = "\0"  # a prompt that holds this is refused with 500, whatever the script says
        self.finish_words: dict[str, str] = {}  # in place of those of the OpenAI API
        self.twist: Callable[[dict[str, Any]], object] = bool  # called with every answer, to change it
        self.card: dict[str, Any] = {}  # further fields in the list of models
        self.error_headers: dict[str, str] = {}
        self.echoes_key: Callable[[str], str] | None = None  # makes an error's message of the Authorization header
        self.seconds_per_byte = 0.0  # of the list of models
        self.asked: list[dict[str, Any]] = []
        self.writes: Callable[[Request], Completion] = answer
        self.looked = 0
        self.most_at_once = 0
        self.disconnected = threading.Event()
        self._at_once = 0
        self._lock = threading.Lock()
        self._faults = _faults(script)
        self.closing = threading.Event()
        self.host = host
        self.scheme = "http" if certificate is None else "https"
        self._http = _Http((host, port), self)
        if certificate is not None:
            tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
            tls.load_cert_chain(certificate)
            self._http.socket = tls.wrap_socket(self._http.socket, server_side=True)
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.02,), daemon=True)
        self._thread.start()

    @property
    def port(self) -> int:
        return int(self._http.server_address[1])

    @property
    def url(self) -> str:
        return f"{self.scheme}://{self.host}:{self.port}/v1"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Gone as a killed process is: open connections break too."""
        self.closing.set()
        self._http.shutdown()
        self._http.server_close()
        for connection in self._http.connections:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def next_fault(self, body: dict[str, Any]) -> str:
        with self._lock:
            self.asked.append(body)
            return next(self._faults)

    def enter(self) -> None:
        with self._lock:
            self._at_once += 1
            self.most_at_once = max(self.most_at_once, self._at_once)

    def leave(self) -> None:
        with self._lock:
            self._at_once -= 1


class _Http(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 256

    def __init__(self, address: tuple[str, int], scripted: ScriptedServer) -> None:
        self.scripted = scripted
        self.connections: list[socket.socket] = []
        super().__init__(address, _Handler)

    def process_request(self, request: Any, client_address: Any) -> None:
        self.connections.append(request)
        super().process_request(request, client_address)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that went away is what some tests are about."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: _Http

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the library's name
        pass

    def do_GET(self) -> None:
        scripted = self.server.scripted
        scripted.looked += 1
        if not self._has_key():
            return
        if self.path != "/v1/models":
            self._error(404, "Not Found")
            return
        card: dict[str, Any] = {"id": scripted.model, "object": "model", "owned_by": "scripted"}
        if scripted.tells_context:
            card["max_model_len"] = scripted.context
        card |= scripted.card
        self._send(200, {"object": "list", "data": [card]})

    def do_POST(self) -> None:
        scripted = self.server.scripted
        body = orjson.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if self.path in scripted.missing:
            self._error(404, "Not Found")
        elif not self._has_key():
            return
        elif body.get("model") != scripted.model:
            self._error(404, f"The model `{body.get('model')}` does not exist.")
        elif self.path == "/tokenize":
            self._send(200, {"count": _length(_prompt(body)), "max_model_len": scripted.context})
        elif self.path in {"/v1/completions", "/v1/chat/completions"}:
            if scripted.poison in _prompt(body):
                self._error(500, "told to fail on this prompt")
                return
            scripted.enter()
            try:
                self._complete(body)
            finally:
                scripted.leave()
        else:
            self._error(404, "Not Found")

    def _complete(self, body: dict[str, Any]) -> None:
        scripted = self.server.scripted
        fault, _, argument = scripted.next_fault(body).partition(":")
        if fault == "stall":
            self._stall()
        elif fault == "close":
            self.close_connection = True
        elif fault.isdigit():
            self._error(int(fault), "told to fail", {"Retry-After": argument} if argument else {})
        elif fault == "garbage":
            self._send_bytes(200, b"<html>not what you want</html>")
        else:
            scripted.closing.wait(scripted.latency)
            self._answer(body, torn=fault == "torn")

    def _stall(self) -> None:
        """Waits until the client or the test has enough of it."""
        scripted = self.server.scripted
        self.connection.settimeout(0.05)
        while not scripted.closing.is_set():
            try:
                if not self.connection.recv(1):
                    scripted.disconnected.set()
                    break
            except TimeoutError:
                continue
        self.close_connection = True

    def _answer(self, body: dict[str, Any], *, torn: bool) -> None:
        scripted = self.server.scripted
        prompt = _prompt(body)
        length, most = _length(prompt), body["max_tokens"]
        if "logprobs" in body and not scripted.tells_logprobs:
            self._error(400, "logprobs are not supported by this server")
            return
        if most > scripted.context:
            self._error(400, f"max_tokens={most} cannot be greater than max_model_len={scripted.context}.")
            return
        if length + most > scripted.context:  # older servers do not clamp by themselves
            self._error(
                400, f"This model's maximum context length is {scripted.context} tokens; {length} + {most} asked."
            )
            return
        choices = tuple(body.get("structured_outputs", {}).get("choice", ()))
        sampling = Sampling(body["temperature"], body["top_p"], most, seed=body.get("seed"), choice=choices)
        completion = scripted.writes(
            Request(RequestKey(0, _stage(prompt, body.get("stop") or ()), 0), prompt, sampling)
        )
        reason = completion.finish_reason.value
        choice: dict[str, Any] = {"index": 0, "finish_reason": scripted.finish_words.get(reason, reason)}
        if "messages" in body:
            choice["message"] = {"role": "assistant", "content": completion.text}
            if body.get("logprobs"):
                choice["logprobs"] = {"content": [{"token": "a", "logprob": each} for each in LOGPROBS]}
        else:
            choice["text"] = completion.text
            if "logprobs" in body:
                choice["logprobs"] = {"tokens": ["a"] * len(LOGPROBS), "token_logprobs": list(LOGPROBS)}
        usage = {
            "prompt_tokens": length,
            "completion_tokens": completion.completion_tokens,
            "prompt_tokens_details": {"cached_tokens": length // 2},
        }
        told = {"choices": [choice], "usage": usage}
        scripted.twist(told)
        self._send(200, told, torn=torn)

    def _has_key(self) -> bool:
        key = self.server.scripted.key
        if key is None or self.headers.get("Authorization") == f"Bearer {key}":
            return True
        self._send(401, {"error": "Unauthorized"})
        return False

    def _error(self, status: int, message: str, headers: dict[str, str] | None = None) -> None:
        scripted = self.server.scripted
        if scripted.echoes_key is not None:
            message = scripted.echoes_key(self.headers.get("Authorization", ""))
        self._send(status, {"error": {"message": message, "code": status}}, headers=headers or scripted.error_headers)

    def _send(
        self, status: int, body: dict[str, Any], *, headers: dict[str, str] | None = None, torn: bool = False
    ) -> None:
        self._send_bytes(status, orjson.dumps(body), headers=headers, torn=torn)

    def _send_bytes(
        self, status: int, content: bytes, *, headers: dict[str, str] | None = None, torn: bool = False
    ) -> None:
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.end_headers()
        scripted = self.server.scripted
        if scripted.seconds_per_byte and self.command == "GET":
            for byte in content:
                if scripted.closing.wait(scripted.seconds_per_byte):
                    return
                self.wfile.write(bytes([byte]))
        self.wfile.write(content[: len(content) // 2] if torn else content)
        self.close_connection = self.close_connection or torn


def _faults(script: str) -> Iterator[str]:
    for word in script.split():
        fault, star, times = word.partition("*")
        if star and not times:
            yield from itertools.repeat(fault)
        yield from itertools.repeat(fault, int(times or 1))
    yield from itertools.repeat("ok")


def _prompt(body: dict[str, Any]) -> str:
    if "messages" in body:
        return " ".join(str(message["content"]) for message in body["messages"])
    told = body["prompt"]
    return told if isinstance(told, str) else " ".join(map(str, told))


def _length(prompt: str) -> int:
    return len(prompt.split())


def _stage(prompt: str, stop: Sequence[str]) -> str:
    """The stage of the profile that asks so; a server knows no keys."""
    end = prompt.rstrip()
    if end.endswith("Is it classification?"):
        return "classification"
    if end.endswith("\nInput:"):
        return "input"
    if end.endswith("\nOutput:"):
        return "answer"
    if re.search(r"\n\d+\.$", end):
        return "instructions"
    # Of a task that is answered in a request of its own, the instruction alone is asked for.
    return "question" if list(stop) == ["\n"] or "\nOutput:" in stop else "tasks"


def main() -> None:
    parser = argparse.ArgumentParser(description="OpenAI-compatible server for tests")
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--model", default=MODEL)
    parser.add_argument("--latency", type=float, default=0.0, help="seconds before each answer")
    parser.add_argument("--context", type=int, default=CONTEXT, help="tokens (words) of prompt and answer")
    parser.add_argument("--key", help="that it asks for")
    parser.add_argument("--script", default="", help="faults, one a request")
    given = parser.parse_args()
    server = ScriptedServer(
        port=given.port,
        model=given.model,
        script=given.script,
        latency=given.latency,
        context=given.context,
        key=given.key,
    )
    print(server.url, flush=True)  # noqa: T201 - for whoever started it with port 0
    while True:
        time.sleep(3600)


if __name__ == "__main__":
    main()
