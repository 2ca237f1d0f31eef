"""An engine for tests: what it writes depends on the prompt and the sampling seed alone.

It writes whole tasks, near copies, empty outputs and torn ends, finishes requests out of order, and can die.
"""

import random
import time
from collections.abc import Callable, Generator, Iterable

from selfinstruct_local.engines import Completion, FinishReason, Request
from selfinstruct_local.errors import EngineDeadError

VERBS = ("Describe", "List", "Explain", "Compare", "Translate", "Summarize", "Rank", "Count", "Name", "Sort", "Invent")
THINGS = ("rivers", "planets", "recipes", "bridges", "poems", "engines", "markets", "seasons", "letters", "borders")
PLACES = ("Norway", "Peru", "Kenya", "Japan", "Iceland", "Turkey", "Chile", "Ghana", "Nepal", "Spain", "Malta", "Cuba")


class ScriptedEngine:
    """Answers up to `in_flight` requests at a time.

    `order` shuffles who finishes first, `latency` is slept before each batch, the engine dies after `die_after`
    answers, and every `abort_every`-th answer is an abort.
    """

    def __init__(
        self,
        in_flight: int = 4,
        order: int = 0,
        die_after: int | None = None,
        latency: float = 0.0,
        abort_every: int | None = None,
    ) -> None:
        self.capacity = in_flight
        self.answered = 0
        self.asked: list[Request] = []
        self._order = random.Random(order)
        self._die_after = die_after
        self._latency = latency
        self._abort_every = abort_every

    @property
    def description(self) -> dict[str, str]:
        return {"engine": "scripted"}

    def wait_until_ready(self, keep_waiting: Callable[[], bool]) -> None:
        pass

    def generate(self, requests: Iterable[Request | None]) -> Generator[list[Completion], None, None]:
        source = iter(requests)
        flying: list[Request] = []
        exhausted = False
        while True:
            while not exhausted and len(flying) < self.capacity:
                try:
                    request = next(source)
                except StopIteration:
                    exhausted = True
                    break
                if request is None:
                    break
                self.asked.append(request)
                flying.append(request)
            if not flying:
                if exhausted:
                    return
                yield []
                continue
            finished = [flying.pop(self._order.randrange(len(flying)))]
            if flying and self._order.random() < 0.3:
                finished.append(flying.pop(self._order.randrange(len(flying))))
            if self._die_after is not None and self.answered >= self._die_after:
                message = "the engine stopped: scripted"
                raise EngineDeadError(message)
            time.sleep(self._latency)
            yield [self._answer(request) for request in finished]

    def _answer(self, request: Request) -> Completion:
        self.answered += 1
        if self._abort_every and self.answered % self._abort_every == 0:
            return Completion(request.key, "torn", FinishReason.ABORT, 1, 1)
        return answer(request)

    def close(self) -> None:
        pass


def answer(request: Request) -> Completion:
    """What the engine writes for a request: a function of its prompt and seed."""
    read = "\n".join([*(turn.content for turn in request.turns), request.prompt])
    stream = random.Random(f"{request.sampling.seed}|{read}")
    reason = FinishReason.STOP
    if request.sampling.choice:
        # The same label whatever its place, as a model that knows the answer gives.
        text = random.Random(str(sorted(request.sampling.choice))).choice(request.sampling.choice)
    elif request.key.stage == "classification":
        text = stream.choice([" Yes", " No", " no way"])
    elif request.key.stage == "instance":
        text = f" {stream.choice(THINGS)}\nOutput: {stream.choice(PLACES)} {stream.randrange(100)}"
    elif request.key.stage == "instructions":
        text = "\n".join(f"{number}. {_instruction(stream)}" for number in range(9, 12)).removeprefix("9.")
    elif request.key.stage == "question":
        text = _question(stream)
        if stream.random() < 0.1:
            text, reason = text[: len(text) // 2], FinishReason.LENGTH
    elif request.key.stage == "input":
        text = stream.choice([" none", f" {stream.choice(THINGS)}, {stream.choice(THINGS)}, {stream.choice(PLACES)}"])
    elif request.key.stage == "answer":
        text = "" if stream.random() < 0.1 else f" {stream.choice(PLACES)} and {stream.choice(PLACES)}."
    else:
        text = _blocks(stream)
        if stream.random() < 0.2:
            text, reason = text[: len(text) // 2], FinishReason.LENGTH
    return Completion(request.key, text, reason, len(read.split()), len(text.split()))


def _question(stream: random.Random) -> str:
    instruction = _instruction(stream).lower()
    if stream.random() < 0.4:
        return f" check {instruction.partition(' ')[2]}. Answer with right or wrong."
    return f" {instruction}"


def _instruction(stream: random.Random) -> str:
    extra = " ".join(stream.choice(PLACES) for _ in range(stream.randrange(1, 4)))
    return f"{stream.choice(VERBS)} {stream.randrange(2, 9)} {stream.choice(THINGS)} of {extra}"


def _blocks(stream: random.Random) -> str:
    blocks = []
    for number in range(4, 4 + stream.randrange(1, 4)):
        output = "" if stream.random() < 0.1 else f"{stream.choice(PLACES)} and {stream.choice(PLACES)}."
        task_input = stream.choice(["none", f"{stream.choice(THINGS)}, {stream.choice(THINGS)}"])
        blocks.append(f"### Task {number}\nInstruction: {_instruction(stream)}\nInput: {task_input}\nOutput: {output}")
    return "\n\n".join(blocks).removeprefix("### Task 4\nInstruction:")
