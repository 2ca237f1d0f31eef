"""Every profile on the real engine, small: in both formats, free and held to a schema, in English and Chinese."""

from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import orjson
import pytest

from selfinstruct_local.config.loading import load_settings
from selfinstruct_local.engines import Completion, Engine, FinishReason, Request
from selfinstruct_local.engines.process import EngineProcess
from selfinstruct_local.engines.settings import EngineSettings
from selfinstruct_local.engines.vllm_engine import VllmEngine, describe_vllm
from selfinstruct_local.filters.labels import named_labels, yes_no
from selfinstruct_local.generate.create import open_run
from selfinstruct_local.generate.launch import ChosenModel
from selfinstruct_local.generate.run import run
from selfinstruct_local.generate.settings import GenerateSettings
from selfinstruct_local.io.interrupt import Interrupt
from selfinstruct_local.models import ModelFolder
from selfinstruct_local.runs.store import DecidedJob, RunStore
from selfinstruct_local.seeds import seed_file
from tests.kernels.oracles import SOAK

pytestmark = pytest.mark.engine
CONTEXT = 2048
REQUESTS = 5
# Enough for a task or two and no more.
TOKENS = 100
LONG = pytest.mark.skipif(not SOAK, reason="one more real run of the same code: in `make soak`")


class KeptEngine:
    """An engine that outlives the runs it serves: what they leave in flight is finished and thrown away."""

    def __init__(self, engine: EngineProcess) -> None:
        self._engine = engine
        self.description = engine.description
        self.capacity = engine.capacity

    def wait_until_ready(self, keep_waiting: Callable[[], bool]) -> None:
        self._engine.wait_until_ready(keep_waiting)

    def generate(self, requests: Iterable[Request | None]) -> Generator[list[Completion], None, None]:
        ended = False

        def until_the_end() -> Iterator[Request | None]:
            for request in requests:
                if ended:
                    return
                yield request

        batches = self._engine.generate(until_the_end())
        try:
            for batch in batches:  # noqa: UP028 - `yield from` would close them with us
                yield batch
        finally:
            ended = True
            for _ in batches:
                pass

    def close(self) -> None:
        pass


class Seen(NamedTuple):
    """A watcher that keeps the completions."""

    completions: list[Completion]

    def starting(self) -> None:
        pass

    def started(self) -> None:
        pass

    def received(self, completions: Sequence[Completion]) -> None:
        self.completions.extend(completions)

    def decided(self, jobs: Sequence[DecidedJob]) -> None:
        pass

    def scoring(self, tasks: int) -> None:
        pass


@pytest.fixture(scope="module")
def engine(embedded_model: ModelFolder) -> Iterator[Engine]:
    settings = EngineSettings(in_flight=8, memory_gb=1)
    make_engine = partial(VllmEngine, embedded_model, settings, max_model_len=CONTEXT)
    with EngineProcess(make_engine, settings, describe_vllm(embedded_model)) as started:
        yield KeptEngine(started)


def completions(store: RunStore, settings: GenerateSettings, engine: Engine, model: ModelFolder) -> list[Completion]:
    """What the engine wrote in a run of a few requests, all of it stored."""
    seeds = open_run(store, settings, ChosenModel(model).facts(), [seed_file(settings.lang)])
    seen = Seen([])
    outcome = run(store, settings, seeds, lambda: engine, seen, Interrupt())
    assert outcome.reason in {"requests", "done"}
    assert store.totals().completions == len(seen.completions) >= min(REQUESTS, settings.num)
    return seen.completions


@pytest.mark.parametrize(
    "flags",
    [
        {"profile": "alpaca"},
        pytest.param(
            {"profile": "alpaca", "prompt_format": "chat", "structured": True, "tasks_per_prompt": 1}, marks=LONG
        ),
        {"profile": "alpaca", "lang": "zh"},
        {"profile": "self-instruct", "prompt_format": "chat", "classification_share": 1.0, "min_confidence": -9},
        {"profile": "self-instruct", "input_share": 1.0, "answers": "full", "min_confidence": -9},
        pytest.param(
            {"profile": "self-instruct", "prompt_format": "chat", "lang": "zh", "answers_per_task": 2}, marks=LONG
        ),
        {"profile": "magpie", "topics": ["cooking"], "judge": True, "min_confidence": -9, "min_output_confidence": -9},
        {"profile": "magpie", "lang": "zh", "answers": "full"},
        {"profile": "alpaca-2023"},
        {"profile": "self-instruct-2022"},
    ],
    ids=lambda flags: "-".join(f"{name}={value}" for name, value in flags.items()).replace("profile=", ""),
)
def test_a_profile_runs_on_the_real_engine(
    tmp_path: Path, engine: Engine, embedded_model: ModelFolder, flags: dict[str, object]
) -> None:
    chosen = load_settings(
        GenerateSettings,
        None,
        {"max_tokens": TOKENS, "in_flight": 8, "window": 4, "num": 50, "request_budget": REQUESTS, **flags},
    )
    with RunStore(tmp_path) as store:
        written = completions(store, chosen, engine, embedded_model)
        candidates = [each for job in store.ledger() for each in job.decided.candidates]
    assert all(
        each.text or each.finish_reason is not FinishReason.STOP for each in written if each.key.stage == "tasks"
    )
    assert all(each.confidence is not None and each.confidence <= 0 for each in written if each.completion_tokens)
    for each in candidates:
        assert each.verdict.keep or each.verdict.rule, each
    if chosen.structured and chosen.profile == "alpaca":
        whole = [each for each in written if each.finish_reason is FinishReason.STOP]
        assert all(orjson.loads(each.text) for each in whole)
    if chosen.profile == "self-instruct":
        assert {each.key.stage for each in written} <= {"question", "input", "answer"}
        for task in (each.task for each in candidates if each.task.is_classification):
            labels = named_labels(task.instruction, chosen.lang) or yes_no(task.instruction, chosen.lang)
            assert not task.output or task.output in labels
    if chosen.profile == "alpaca-2023":  # it may not end by itself
        assert {each.finish_reason for each in written} <= {FinishReason.LENGTH, FinishReason.STOP}
    if chosen.judge:
        judged = [each for each in written if each.key.stage == "judge"]
        assert {each.text.strip() for each in judged} <= set("12345")
