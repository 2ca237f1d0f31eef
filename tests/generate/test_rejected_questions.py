"""What profile self-instruct rejects of what the model asks, and before which tokens are spent."""

import pytest

from selfinstruct_local.engines import Completion, FinishReason, Request, RequestKey
from selfinstruct_local.generate.job import Job, ParsedTask
from selfinstruct_local.generate.parsing.questions import read_question
from selfinstruct_local.generate.profiles.copies import reject_labelled
from selfinstruct_local.languages.base import Language
from selfinstruct_local.task import Instance, Task
from tests.generate.test_self_instruct import (
    FORMATS,
    KINDS,
    PLAIN,
    Said,
    Write,
    by_stage,
    job,
    made_of,
    settings,
    texts_of,
    work_through,
)

SHOWN = [
    Task.single("Classify the word as noun or verb.", "the green hills of the far north", "noun"),
    Task.single("Name the seven seas of old.", "", "The Red Sea, the Black Sea, the Caspian and four more of them."),
    Task.single("Count the vowels in the word.", "a quiet evening by the old stone bridge in June", "Sixteen."),
]


@pytest.mark.parametrize(
    ("question", "given", "detail"),
    [
        ("Choose whether this one is a verb or a noun.", "run", ": noun, verb"),
        ("Translate it into French.", "the green hills of the far north", "ROUGE-L 1.000 of the input"),
        ("Translate it into French.", "The Red Sea, the Black Sea, the Caspian and four more.", "of the input"),
        ("The Red Sea, the Black Sea, the Caspian and four more, please.", "", "of the instruction"),
        ("Find the rhyme of the word.", "noun", "of the input with "),
    ],
)
@pytest.mark.parametrize("prompt_format", FORMATS)
def test_what_copies_a_shown_task_is_not_answered(prompt_format: str, question: str, given: str, detail: str) -> None:
    asking = Job(0, 0, SHOWN, [])
    chosen = settings("en", prompt_format, "input" if given else "bare", rules="none")
    texts = {"question": f"{question}\n\n{given}".strip(), "answer": "No."}
    asked, (draft,) = work_through(asking, chosen, by_stage(texts))
    assert sorted(asking.shown) == sorted(SHOWN)
    assert (draft.rule, "answer" in asked) == ("prompt_echo", False)
    assert detail in draft.detail


def test_what_only_looks_like_a_shown_task_passes() -> None:
    question = "Classify the word as noun, verb or article."
    assert made_of("en", question, "the blue hills", seeds=SHOWN, rules="none").rule == ""
    assert made_of("en", "Count the words in the line.", "a loud morning by the sea", seeds=SHOWN).rule == ""


def test_a_near_copy_of_a_seed_costs_one_request() -> None:
    find = lambda instructions, _: ["ROUGE-L 0.900"] * len(instructions)  # noqa: E731
    for kind in KINDS:
        asked, (draft,) = work_through(job(find_near_copies=find), settings(kind=kind), by_stage(PLAIN["en"]))
        assert (draft.rule, draft.detail, set(asked)) == ("not_novel", "ROUGE-L 0.900", {"question"})


@pytest.mark.parametrize("prompt_format", FORMATS)
def test_one_rejected_task_leaves_the_others_their_place(prompt_format: str) -> None:
    lines = ["Draw a map of the island.", "Is this town older than Rome?", "Thanks, and another one?"]
    texts = [
        ("question", lines),
        ("input", ["", "Ur, Rome", ""]),
        ("answer", ["", "Yes", ""]),
        ("reversed", ["", "Yes", ""]),
    ]
    write: Write = lambda request: dict(texts)[request.key.stage][request.key.branch]  # noqa: E731
    chosen = settings("en", prompt_format, "classification", tasks_per_prompt=3)
    asked, drafts = work_through(job(), chosen, write)
    assert [draft.rule for draft in drafts] == ["unsuitable_word", "", "follow_up"]
    assert {stage: [request.key.branch for request in asked[stage]] for stage in ("input", "answer")} == {
        "input": [1],
        "answer": [1],
    }
    assert drafts[1].task == Task("Is this town older than Rome?", (Instance("Ur, Rome", "Yes"),), True)


@pytest.mark.parametrize(
    ("lang", "question"),
    [
        ("en", "Thanks! What is the capital of Peru?"),
        ("en", "And what is the capital of Chile?"),
        ("en", "Explain the third point of your previous answer."),
        ("en", "Sort the list you gave by price."),
        ("zh", "谢谢，再写一首短诗。"),
        ("zh", "请解释刚才的回答里的第二点。"),
    ],
)
def test_what_goes_on_from_an_earlier_turn_is_rejected(lang: Language, question: str) -> None:
    draft = made_of(lang, question)
    assert (draft.rule, draft.task.output) == ("follow_up", "")
    assert draft.detail.startswith("refers to an earlier turn: '")


@pytest.mark.parametrize(
    ("question", "rule"),
    [
        ("The river rises in the hills. It ends in a lake.", "no_request"),
        ("I feel tired after a long day.", "no_request"),
        ("The river rises in the hills. Name it.", ""),
        ("I feel tired after a long day, what helps?", ""),
        ("My task is a short speech. You will write it.", ""),
        ("There are two trains, one of which you should take.", ""),
    ],
)
def test_what_asks_for_nothing_is_rejected(question: str, rule: str) -> None:
    assert made_of("en", question).rule == rule


@pytest.mark.parametrize(
    ("question", "given", "answer", "rule"),
    [
        # The input goes on with the answer.
        (
            "Say in one sentence what the text is about.",
            "Bees dance to show where flowers are.\n\nThe text is about the dance of the bees.",
            "The text is about the dance of the bees.",
            "answer_in_input",
        ),
        ("Say which town this is.", "Ur lies in the south.\n\nIt is an old town.", "Ur", ""),
        # What is to be written is there.
        (
            "Write a function that adds two numbers.",
            "def add(a, b):\n    return a + b",
            "def add(first, second):\n    return first + second",
            "answer_in_input",
        ),
        ("Write a test for the given function.", "def add(a, b):\n    return a + b", "assert add(1, 1) == 2", ""),
        # An answer may well be the end of one paragraph.
        ("Copy the last word of the line.", "one two three", "three", ""),
    ],
)
def test_an_input_that_gives_the_answer_away_is_rejected(question: str, given: str, answer: str, rule: str) -> None:
    draft = made_of("en", question, given, answer, rules="none")
    assert draft.rule == rule
    assert (draft.task.input, draft.task.output) == (given, answer if draft.rule == "" or "\n\n" in given else "")


@pytest.mark.parametrize("stage", ["question", "input", "answer"])
@pytest.mark.parametrize("prompt_format", FORMATS)
def test_what_is_cut_short_is_unfinished_and_asks_no_more(prompt_format: str, stage: str) -> None:
    def write(request: Request) -> Said:
        reason = FinishReason.LENGTH if request.key.stage == stage else FinishReason.STOP
        texts = texts_of("en", "classification")
        return Said((texts | {"reversed": texts["answer"]})[request.key.stage], -0.1, reason)

    asked, (draft,) = work_through(job(), settings("en", prompt_format, "classification"), write)
    assert (draft.rule, [each for each in asked if each != "reversed"][-1]) == ("truncated", stage)
    assert "(length)" in draft.detail


@pytest.mark.parametrize(
    ("question", "given", "instruction", "left"),
    [
        ("Is the sentence below correct?", "Yes or no.", "Is the sentence below correct? Yes or no.", ""),
        ("Bees can see red.", "True or False?", "Bees can see red. True or False?", ""),
        ("Is the word spelt right?", "yes or know", "Is the word spelt right?", "yes or know"),
    ],
)
def test_an_input_that_only_says_what_to_choose_from_belongs_to_the_instruction(
    question: str, given: str, instruction: str, left: str
) -> None:
    drafted = read_question(Completion(RequestKey(0, "question", 0), f"{question}\n\n{given}", FinishReason.STOP, 1, 1))
    assert (drafted.task.instruction, drafted.task.input) == (instruction, left)


@pytest.mark.parametrize("prompt_format", FORMATS)
def test_where_classification_is_wanted_an_instruction_names_its_labels(prompt_format: str) -> None:
    texts = {**PLAIN["en"], "question": "Name the oldest of these towns."}
    asked, (draft,) = work_through(job(), settings("en", prompt_format, "classification"), by_stage(texts))
    assert (draft.rule, set(asked)) == ("no_labels", {"question"})


@pytest.mark.parametrize(
    "given",
    [
        "2, 4, 6\n\nThe answer is 8.",
        "The cat sleeps.\n\nTo determine the noun, look for a thing.",
        "1. red\n2. blue\n\nLet's go through them one by one.",
    ],
)
def test_an_input_that_goes_on_with_an_answer_is_rejected_before_it_is_answered(given: str) -> None:
    asked, (draft,) = work_through(
        job(), settings(kind="classification"), by_stage({**texts_of("en", "classification"), "input": given})
    )
    assert (draft.rule, "answer" in asked) == ("answer_in_input", False)


@pytest.mark.parametrize(
    ("given", "label", "rule"),
    [
        ("a mountain", "tree", "answer_in_input"),
        ("The potato is a vegetable.", "vegetable", "answer_in_input"),
        ("Neither a fruit nor a vegetable grows there.", "fruit", ""),
        ("It grows in the ground.", "vegetable", ""),
    ],
)
def test_an_input_that_names_the_label_is_rejected(given: str, label: str, rule: str) -> None:
    labels = ("fruit", "vegetable", "mountain", "tree")
    draft = ParsedTask(Task.single("Sort it: fruit, vegetable, mountain or tree.", given, label))
    assert reject_labelled(draft, labels).rule == rule
    assert reject_labelled(draft, ()).rule == ""


@pytest.mark.parametrize("prompt_format", FORMATS)
def test_a_label_that_changes_with_the_order_of_the_labels_is_rejected(prompt_format: str) -> None:
    texts = {"question": "Is this town older than Rome?", "input": "Ur", "answer": "Yes", "reversed": "No"}
    write: Write = lambda request: texts[request.key.stage]  # noqa: E731
    asked, (draft,) = work_through(job(), settings("en", prompt_format, "classification"), write)
    assert (draft.rule, draft.detail) == ("inconsistent_label", "Yes, but No with the labels in reverse order")
    (reversed_order,) = asked["reversed"]
    said = reversed_order.turns[-1].content if reversed_order.turns else reversed_order.prompt
    assert "Is this town older than Rome? Answer with one of: No, Yes" in said
    assert set(reversed_order.sampling.choice) == set(asked["answer"][0].sampling.choice)
