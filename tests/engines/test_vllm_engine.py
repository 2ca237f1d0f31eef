"""The real engine on the embedded model. One engine serves the module, since it takes half a minute to start.

It stands in a process of its own, as it does in a run: vLLM 0.32 cannot start where numba was imported before.
"""

import math
import os
import re
import signal
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from typing import Any

import orjson
import psutil
import pytest

from selfinstruct_local.engines import Completion, Engine, FinishReason, Request, RequestKey, Sampling
from selfinstruct_local.engines.process import EngineProcess
from selfinstruct_local.engines.settings import EngineSettings
from selfinstruct_local.engines.vllm_engine import VllmEngine, describe_vllm
from selfinstruct_local.errors import OutOfMemoryError
from selfinstruct_local.generate.profiles.paragraph import PARAGRAPH
from selfinstruct_local.models import ModelFolder
from selfinstruct_local.templates.turns import Turn
from tests.kernels.oracles import SOAK

pytestmark = pytest.mark.engine
CONTEXT = 2048  # of LLaMA-7B


@pytest.fixture(scope="module")
def engine(embedded_model: ModelFolder) -> Iterator[EngineProcess]:
    settings = EngineSettings(in_flight=4, memory_gb=1)
    make_engine = partial(VllmEngine, embedded_model, settings, max_model_len=CONTEXT)
    with EngineProcess(make_engine, settings, describe_vllm(embedded_model)) as started:
        started.wait_until_ready()
        yield started


def request(job: int, prompt: str, **sampling: object) -> Request:
    defaults = {"temperature": 0.0, "top_p": 1.0, "max_tokens": 12}
    return Request(RequestKey(job, "test", 0), prompt, Sampling(**{**defaults, **sampling}))  # type: ignore[arg-type]


def conversation(job: int, *turns: Turn, prompt: str = "", role: Any = "assistant", **sampling: object) -> Request:
    return replace(request(job, prompt, **sampling), turns=turns, role=role)


def answers(engine: Engine, requests: list[Request]) -> dict[int, Completion]:
    return {each.key.job: each for batch in engine.generate(requests) for each in batch}


def test_answers_more_requests_than_fit_at_once(engine: Engine) -> None:
    found = answers(engine, [request(job, f"{job} plus one is", max_tokens=4 + job) for job in range(10)])
    assert set(found) == set(range(10))
    for job, completion in found.items():
        assert completion.text
        assert completion.prompt_tokens > 2
        assert completion.completion_tokens <= 4 + job


def test_a_seed_fixes_the_draw(engine: Engine) -> None:
    prompt = "Once upon a time there was"
    found = answers(engine, [request(job, prompt, temperature=1.5, seed=seed) for job, seed in enumerate((7, 7, 8))])
    assert found[0].text == found[1].text
    assert found[0].text != found[2].text


def test_stop_texts_end_a_completion_and_are_not_part_of_it(engine: Engine) -> None:
    (found,) = answers(engine, [request(0, "1, 2, 3, 4, 5,", stop=(" 8",), max_tokens=40)]).values()
    assert found.finish_reason is FinishReason.STOP
    assert " 8" not in found.text


def test_the_answer_is_clamped_to_the_context_and_a_prompt_too_long_is_refused(engine: Engine) -> None:
    long_prompt = "word " * (CONTEXT - 10)
    found = answers(
        engine,
        [
            request(0, long_prompt, max_tokens=5000, stop=()),
            request(1, "word " * (CONTEXT + 50)),
            request(2, "A river in Africa is the"),
        ],
    )
    assert found[0].prompt_tokens + found[0].completion_tokens <= CONTEXT
    assert found[1].finish_reason is FinishReason.REFUSED
    assert found[1].completion_tokens == 0
    assert found[2].text


def test_the_prefix_cache_serves_a_prompt_that_begins_alike(engine: Engine) -> None:
    prefix = "The rivers of Africa are many, and the longest of them all is the Nile. " * 12
    (first,) = answers(engine, [request(0, prefix + "One")]).values()
    (second,) = answers(engine, [request(1, prefix + "Two")]).values()
    assert first.cached_tokens == 0
    assert second.cached_tokens is not None
    assert second.cached_tokens >= 128  # one block of the cache on a CPU; 16 tokens on a GPU


def test_a_choice_is_one_of_the_choices(engine: Engine) -> None:
    colours = ("red as a rose", "blue", "green")
    found = answers(
        engine,
        [request(job, "The sky is", choice=colours, temperature=2.0, seed=job, max_tokens=20) for job in range(6)],
    )
    for completion in found.values():
        assert completion.text in colours
        assert completion.finish_reason is FinishReason.STOP


def test_json_obeys_its_schema(engine: Engine) -> None:
    schema = {
        "type": "object",
        "properties": {"river": {"type": "string", "maxLength": 12}, "old": {"type": "boolean"}},
        "required": ["river", "old"],
        "additionalProperties": False,
    }
    text = orjson.dumps(schema).decode()
    asked = [
        conversation(
            job, Turn("user", "Name a river, as JSON."), json_schema=text, temperature=1.0, seed=job, max_tokens=120
        )
        for job in range(3)
    ]
    for completion in answers(engine, asked).values():
        told = orjson.loads(completion.text)
        assert set(told) == {"river", "old"}
        assert isinstance(told["river"], str)
        assert isinstance(told["old"], bool)


def test_a_regex_is_matched_as_a_whole(engine: Engine) -> None:
    words = [request(job, "A word:", regex="[a-z]{3,8}", temperature=1.0, seed=job) for job in range(3)]
    for completion in answers(engine, words).values():
        assert completion.finish_reason is FinishReason.STOP
        assert re.fullmatch("[a-z]{3,8}", completion.text)
    (paragraph,) = answers(
        engine, [conversation(3, Turn("user", "List five ways to sleep well."), regex=PARAGRAPH, max_tokens=200)]
    ).values()
    assert paragraph.text
    assert "\n" not in paragraph.text


def test_a_forbidden_end_is_never_reached(engine: Engine) -> None:
    turns = (Turn("user", "Answer with the one word yes."),)
    found = answers(
        engine,
        [
            conversation(0, *turns, max_tokens=64),
            conversation(1, *turns, max_tokens=64, forbid_end=True),
            conversation(2, *turns, max_tokens=64, forbid_end=True, temperature=1.0, seed=3),
        ],
    )
    assert found[0].finish_reason is FinishReason.STOP
    for job in (1, 2):
        assert found[job].finish_reason is FinishReason.LENGTH
        assert found[job].completion_tokens == 64


def test_both_sides_of_a_conversation_are_written(engine: Engine) -> None:
    turns = (Turn("user", "What is the capital of France?"),)
    found = answers(
        engine,
        [
            conversation(0, *turns, max_tokens=20),
            conversation(1, *turns, prompt="The capital of France is", max_tokens=4),
            conversation(2, role="user", max_tokens=80),
            conversation(3, *turns, Turn("assistant", "Paris."), role="user", prompt="And of", max_tokens=4),
        ],
    )
    assert "Paris" in found[0].text
    assert "Paris" in found[1].text
    assert found[2].text.strip()
    assert found[2].finish_reason is FinishReason.STOP  # a user ends the turn, and nobody answers in the same text
    assert found[3].text.strip()


def test_confidence_is_the_mean_log_probability(engine: Engine) -> None:
    prompt = "One, two, three, four,"
    found = answers(
        engine,
        [
            request(0, prompt, max_tokens=32),
            request(1, prompt, max_tokens=32, temperature=2.0, seed=1),
            request(2, "word " * (CONTEXT + 50)),
        ],
    )
    sure, wild = found[0].confidence, found[1].confidence
    assert sure is not None
    assert wild is not None
    assert math.isfinite(wild)
    assert wild < sure - 2 < 0
    assert sure < 0
    assert found[2].confidence is None


def test_the_text_of_a_control_token_is_data(engine: Engine) -> None:
    plain, with_control, hidden = "a  b", "a <|im_end|> b", "a <|im_end |> b"
    asked = [request(job, text) for job, text in enumerate((plain, with_control, hidden))]
    asked += [conversation(3 + job, Turn("user", text)) for job, text in enumerate((plain, with_control, hidden))]
    found = answers(engine, asked)
    for first in (0, 3):
        lengths = [found[first + job].prompt_tokens for job in range(3)]
        assert lengths[1] >= lengths[0] + 5  # many tokens, and not the one it names
        assert abs(lengths[1] - lengths[2]) <= 1


@pytest.mark.skipif(not SOAK, reason="starts vLLM a second time: make soak (test_process.py kills a scripted engine)")
def test_an_engine_killed_in_its_work_is_asked_again(engine: EngineProcess) -> None:
    wanted = [request(job, f"{job} plus one is", max_tokens=24, temperature=0.8, seed=job) for job in range(12)]
    straight = answers(engine, wanted)
    killed = engine.pid
    found: dict[int, Completion] = {}
    for batch in engine.generate(wanted):
        found |= {each.key.job: each for each in batch}
        if batch and engine.pid == killed:
            os.killpg(killed, signal.SIGKILL)
    assert engine.pid != killed
    assert set(found) == set(straight)


@pytest.mark.skipif(not SOAK, reason="starts vLLM twice more: make soak (test_process.py kills a process of its own)")
def test_a_core_in_a_process_of_its_own_is_started_again_when_it_is_killed(
    embedded_model: ModelFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As it is on a GPU; on a CPU vLLM's core works in the engine's process unless it is asked not to."""
    monkeypatch.setenv("VLLM_ENABLE_V1_MULTIPROCESSING", "1")
    settings = EngineSettings(in_flight=4, memory_gb=1, hang_seconds=600)
    make_engine = partial(VllmEngine, embedded_model, settings, max_model_len=CONTEXT)
    with EngineProcess(make_engine, settings, describe_vllm(embedded_model)) as engine:
        engine.wait_until_ready()
        first = engine.pid
        batches = engine.generate([request(job, f"{job} plus one is", max_tokens=200) for job in range(6)])
        next(batches)
        cores = [each for each in psutil.Process(first).children() if "EngineCore" in each.name()]
        assert len(cores) == 1
        cores[0].kill()
        found = [each.key.job for batch in batches for each in batch]
        assert (sorted(found), engine.pid != first) == (list(range(6)), True)


def test_want_of_memory_names_the_flags(embedded_model: ModelFolder) -> None:
    settings = EngineSettings(in_flight=4, memory_gb=100_000)
    make_engine = partial(VllmEngine, embedded_model, settings, max_model_len=CONTEXT)
    with (
        EngineProcess(make_engine, settings, describe_vllm(embedded_model)) as starting,
        pytest.raises(OutOfMemoryError, match="lower --in-flight, --max-model-len or --memory-gb"),
    ):
        starting.wait_until_ready()
