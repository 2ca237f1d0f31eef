import warnings

import pytest

from selfinstruct_local.filters.decide import Decider
from selfinstruct_local.filters.echo import ECHO, echoes
from selfinstruct_local.kernels import NoveltyIndex
from selfinstruct_local.task import Task

SHOWN = [
    Task.single("Name the three longest rivers of Africa", "", "The Nile, the Congo and the Niger are the longest."),
    Task.single("Is this review good or bad?", "Fine.", "good"),
]


@pytest.mark.parametrize(
    ("instruction", "output", "what"),
    [
        ("Explain why the sky looks blue", "Explain why the sky looks so blue", "its instruction"),
        ("Explain why the sky looks blue", "Name the three longest rivers of Africa.", "few-shot example"),
        ("Explain why the sky looks blue", "The Nile, the Congo and the Niger are longest.", "few-shot example"),
        ("Explain why the sky looks blue", "good", None),
        ("Explain why the sky looks blue", "Air scatters short waves more.", None),
        ("Explain why the sky looks blue", "", None),
        ("Correct: he go to the old school by the river every day", "He goes to the old school by the river", None),
    ],
)
def test_echoes(instruction: str, output: str, what: str | None) -> None:
    (found,) = echoes([Task.single(instruction, "", output)], SHOWN, 0.8)
    assert found is None if what is None else found is not None and found.endswith(what)


def test_each_task_has_its_answer() -> None:
    echo = Task.single("Explain why the sky looks blue", "", "explain why the sky looks blue!")
    good = Task.single("Explain why the sea looks blue", "", "It mirrors the sky above it.")
    assert [bool(each) for each in echoes([good, echo, Task("A bare one"), good], SHOWN, 0.8)] == [0, 1, 0, 0]
    assert echoes([echo], [], 1.0) == [None]
    assert echoes([], SHOWN, 0.8) == []


def test_chinese_needs_its_tokenizer() -> None:
    task = Task.single("请说明天空为什么是蓝色的。", "", "请说明天空为什么是蓝的。")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert echoes([task], SHOWN, 0.8) == [None]
        assert echoes([task], SHOWN, 0.8, "unicode")[0]


def test_an_echo_does_not_join_the_index() -> None:
    decider = Decider((), NoveltyIndex())
    tasks = [
        Task.single("Explain why the sky looks blue", "", text) for text in ("Explain why the sky looks blue.", "Air.")
    ]
    verdicts = decider.decide(tasks, lambda given: echoes(given, SHOWN, 0.8))
    assert [(verdict.keep, verdict.rule) for verdict in verdicts] == [(False, ECHO), (True, "")]
    assert len(decider.index) == 1
