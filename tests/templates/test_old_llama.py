"""The real engine on a LLaMA as it was first converted, whose tokenizer also got words that its embeddings have not."""

from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from selfinstruct_local.engines import FinishReason
from selfinstruct_local.engines.process import EngineProcess
from selfinstruct_local.engines.settings import EngineSettings
from selfinstruct_local.engines.vllm_engine import VllmEngine, describe_vllm
from selfinstruct_local.models import find_model
from selfinstruct_local.train.trainer import load_tokenizer
from tests.engines.test_vllm_engine import answers, request
from tests.models.llamas import make_llama
from tests.models.test_repair import first_conversion
from tests.models.test_vocabulary import add_tokens

pytestmark = pytest.mark.engine


@pytest.fixture
def engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[EngineProcess]:
    monkeypatch.setenv("SELFINSTRUCT_CACHE", str(tmp_path / "cache"))
    folder = make_llama(tmp_path / "old", hidden_size=128)
    first_conversion(folder)
    add_tokens(folder, "volcano")
    model = find_model(str(folder))
    settings = EngineSettings(in_flight=2, memory_gb=1)
    make_engine = partial(VllmEngine, model, settings, max_model_len=256)
    with EngineProcess(make_engine, settings, describe_vllm(model)) as started:
        started.wait_until_ready()
        yield started


def test_it_answers_and_refuses_what_it_has_no_row_for(engine: EngineProcess, tmp_path: Path) -> None:
    found = answers(engine, [request(1, "name a river"), request(2, "name a volcano"), request(3, "name a stone")])
    assert found[2].finish_reason is FinishReason.REFUSED
    tokenizer = load_tokenizer(find_model(str(tmp_path / "old")))
    for job, prompt in ((1, "name a river"), (3, "name a stone")):
        assert found[job].completion_tokens
        assert found[job].prompt_tokens == len(tokenizer(prompt)["input_ids"])
