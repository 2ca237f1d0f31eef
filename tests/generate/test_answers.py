"""Several answers to one task, of which one is chosen."""

from collections.abc import Sequence
from typing import Any

import pytest

from selfinstruct_local.engines import FinishReason, Request
from selfinstruct_local.generate.job import ParsedTask
from selfinstruct_local.generate.profiles.answers import OTHERS_TEMPERATURE
from tests.generate.test_self_instruct import FORMATS, LABELLED, Said, job, settings, work_through


def answered(question: str, answers: Sequence[Said], **how: Any) -> tuple[ParsedTask, list[Request]]:
    """The draft of a question that was answered so, and the requests for the answers."""
    chosen = settings(answers_per_task=len(answers), rules="none", **how)

    def write(request: Request) -> str | Said:
        return question if request.key.stage == "question" else answers[request.key.branch]

    asked, (draft,) = work_through(job(), chosen, write)
    return draft, asked["answer"]


@pytest.mark.parametrize("prompt_format", FORMATS)
def test_of_labels_the_commonest_is_taken(prompt_format: str) -> None:
    space = " " if prompt_format == "completion" else ""
    said = [Said(f"{space}{label}", -0.1) for label in ("pleased", "angry", "angry")]
    draft, requests = answered(LABELLED["en"][0], said, prompt_format=prompt_format)
    assert (draft.task.output, draft.task.is_classification) == ("angry", True)
    # A label had to be one of the two: how likely it was says nothing of how sure the model is.
    assert draft.task.measures == {"agreement": 2 / 3}
    assert [request.sampling.temperature for request in requests] == [0.0, OTHERS_TEMPERATURE, OTHERS_TEMPERATURE]
    assert {request.sampling.choice for request in requests} == {(f"{space}pleased", f"{space}angry")}
    assert len({request.sampling.seed for request in requests}) == 3


def test_of_numbers_the_commonest_is_taken_however_it_is_spelt() -> None:
    draft, _ = answered(
        "Add 700 to 500.", [Said("1300", -0.1), Said("1,200", -0.5), Said("1200.", -0.9), Said("1200 or so", -0.2)]
    )
    assert draft.task.output == "1,200"
    assert draft.task.measures == {"output_confidence": -0.5, "agreement": 0.5}
    assert draft.task.is_classification is False


def test_of_other_texts_the_surest_is_taken() -> None:
    draft, _ = answered(
        "Say why bees dance.", [Said("For fun.", -0.9), Said("To show the way.", -0.2), Said("Who knows.", -0.5)]
    )
    assert draft.task.output == "To show the way."
    assert draft.task.measures == {"output_confidence": -0.2}


def test_answers_that_are_cut_short_do_not_count() -> None:
    torn = Said("To show the w", -0.1, FinishReason.LENGTH)
    draft, _ = answered("Say why bees dance.", [torn, Said("For fun.", -0.9), torn])
    assert (draft.rule, draft.task.output) == ("", "For fun.")
    draft, _ = answered("Say why bees dance.", [torn, torn])
    assert (draft.rule, "(length)" in draft.detail) == ("truncated", True)
    draft, _ = answered(LABELLED["en"][0], [torn, Said("angry", -0.3)])
    assert draft.task.measures == {"agreement": 1.0}


def test_one_answer_agrees_with_nobody() -> None:
    draft, requests = answered(LABELLED["en"][0], [Said("angry", -0.3)])
    assert (draft.task.measures, len(requests)) == (None, 1)
