"""The real engine on the embedded model. One engine serves the module, since it takes half a minute to start."""

from collections.abc import Iterator

import pytest

from selfinstruct_local.engine import Completion, FinishReason, Request, RequestKey, Sampling
from selfinstruct_local.engine.settings import EngineSettings
from selfinstruct_local.engine.vllm_engine import VllmEngine
from selfinstruct_local.models import ModelFolder

pytestmark = pytest.mark.engine
CONTEXT = 2048  # of LLaMA-7B


@pytest.fixture(scope="module")
def engine(embedded_model: ModelFolder) -> Iterator[VllmEngine]:
    started = VllmEngine(embedded_model, EngineSettings(in_flight=4, memory_gb=1), max_model_len=CONTEXT)
    yield started
    started.close()


def request(job: int, prompt: str, **sampling: object) -> Request:
    defaults = {"temperature": 0.0, "top_p": 1.0, "max_tokens": 12}
    return Request(RequestKey(job, "test", 0), prompt, Sampling(**{**defaults, **sampling}))  # type: ignore[arg-type]


def answers(engine: VllmEngine, requests: list[Request]) -> dict[int, Completion]:
    return {each.key.job: each for batch in engine.generate(requests) for each in batch}


def test_answers_more_requests_than_fit_at_once(engine: VllmEngine) -> None:
    found = answers(engine, [request(job, f"{job} plus one is", max_tokens=4 + job) for job in range(10)])
    assert set(found) == set(range(10))
    for job, completion in found.items():
        assert completion.text
        assert completion.prompt_tokens > 2
        assert completion.completion_tokens <= 4 + job


def test_a_seed_fixes_the_draw(engine: VllmEngine) -> None:
    prompt = "Once upon a time there was"
    found = answers(engine, [request(job, prompt, temperature=1.5, seed=seed) for job, seed in enumerate((7, 7, 8))])
    assert found[0].text == found[1].text
    assert found[0].text != found[2].text


def test_stop_texts_end_a_completion_and_are_not_part_of_it(engine: VllmEngine) -> None:
    (found,) = answers(engine, [request(0, "1, 2, 3, 4, 5,", stop=(" 8",), max_tokens=40)]).values()
    assert found.finish_reason is FinishReason.STOP
    assert " 8" not in found.text


def test_the_answer_is_clamped_to_the_context_and_a_prompt_too_long_is_refused(engine: VllmEngine) -> None:
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


def test_requests_are_pulled_only_when_a_slot_is_free(engine: VllmEngine) -> None:
    pulled: list[int] = []

    def source() -> Iterator[Request | None]:
        for job in range(6):
            pulled.append(job)
            yield request(job, "One two three", max_tokens=5)
        yield None

    completions = engine.generate(source())
    next(completions)
    assert len(pulled) <= engine.settings.in_flight
    completions.close()
    assert not engine._engine.has_unfinished_requests()


def test_a_source_with_nothing_at_the_moment_gets_its_turn(engine: VllmEngine) -> None:
    waiting = [None, request(0, "One two", max_tokens=2)]
    batches = list(engine.generate(iter(waiting)))
    assert batches[0] == []
    assert batches[1][0].key.job == 0
