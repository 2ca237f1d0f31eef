"""What a model is asked and may answer fits its context: learned positions have none beyond it."""

from pathlib import Path

import pytest

from selfinstruct_local.errors import UsageError
from selfinstruct_local.evaluate.chat import Chat
from selfinstruct_local.models import check_model_folder
from tests.train.tiny_models import make_family

LONGER_THAN_ANY = 2_000  # tokens; the context of the tiny models is 512


@pytest.mark.parametrize("family", ["gpt2", "opt", "llama-tied"])
def test_an_answer_ends_with_the_context_and_a_question_without_room_is_refused(family: str, tmp_path: Path) -> None:
    chat = Chat(check_model_folder(make_family(family, tmp_path)))
    assert isinstance(chat.answer("Name a color.", max_tokens=LONGER_THAN_ANY), str)
    with pytest.raises(UsageError, match="has a context of 512; shorten it"):
        chat.answer("Name a color. " * LONGER_THAN_ANY)
