import pytest
from hypothesis import given
from hypothesis import strategies as st

from selfinstruct_local.engine import Completion, FinishReason, RequestKey
from selfinstruct_local.generate.parse import (
    clean_input,
    parse_labelled_fields,
    parse_numbered_instructions,
    parse_task_blocks,
    parse_yes_no,
)


def completion(text: str, reason: FinishReason = FinishReason.STOP) -> Completion:
    return Completion(RequestKey(0, "tasks", 0), text, reason, 10, len(text.split()))


TWO = """ Name a long river.
Input: none
Output: The Nile
is long.

### Task 5
Instruction: Sort  the
 words:
Input: b, a
Output: a, b
"""


def test_reads_whole_tasks() -> None:
    first, second = parse_task_blocks(completion(TWO))
    assert (first.task.instruction, first.task.input, first.task.output) == (
        "Name a long river.",
        "",
        "The Nile\nis long.",
    )
    assert (second.task.instruction, second.task.input, second.task.output) == ("Sort the words", "b, a", "a, b")
    assert not first.rule
    assert not second.rule


def test_a_torn_end_is_dropped_and_said() -> None:
    first, second = parse_task_blocks(completion(TWO, FinishReason.LENGTH))
    assert not first.rule
    assert (second.rule, second.detail) == ("unfinished", "cut short (length)")


@pytest.mark.parametrize(
    "heading", ["### Task 99", "## Task", "### task 5:", "Task 5", "", "### Task 5.  "], ids=lambda text: text or "none"
)
def test_headings_may_be_wrong_or_missing(heading: str) -> None:
    drafts = parse_task_blocks(completion(TWO.replace("### Task 5", heading)))
    assert [draft.task.instruction for draft in drafts] == ["Name a long river.", "Sort the words"]


def test_marks_inside_a_text_are_text() -> None:
    text = " Make a title.\nInput: none\nOutput: # One\n### Part\n20. In 2020. See Input: above, 2. Output: x"
    (draft,) = parse_task_blocks(completion(text))
    assert draft.task.output == "# One\n### Part\n20. In 2020. See Input: above, 2. Output: x"


def test_numbered_fields_of_the_published_format_are_read() -> None:
    text = " Make a title.\n4. Input:\n<noinput>\n4. Output:\nA title"
    (draft,) = parse_task_blocks(completion(text))
    assert (draft.task.input, draft.task.output) == ("", "A title")


@pytest.mark.parametrize(
    ("text", "detail"),
    [
        (" Name a river.\nInput: none", "no output"),
        ("\nInput: none\nOutput: x", "no instruction"),
        (" Name a river.\nOutput: x\nOutput: y", "field 'output' stands twice"),
        ("", "no instruction"),
    ],
)
def test_what_gives_no_task_is_counted(text: str, detail: str) -> None:
    (draft,) = parse_task_blocks(completion(text))
    assert draft.rule == "malformed"
    assert detail in draft.detail


def test_a_prompt_without_room_is_counted() -> None:
    for parse in (parse_task_blocks, parse_numbered_instructions):
        (draft,) = parse(completion("", FinishReason.REFUSED))
        assert draft.rule == "prompt_too_long"


@pytest.mark.parametrize("text", ["none", " None.", "<noinput>", "N/A", "(no input)", "", "-"])
def test_no_input_has_many_spellings(text: str) -> None:
    assert clean_input(text) == ""


def test_reads_a_numbered_list() -> None:
    drafts = parse_numbered_instructions(completion(" Name a river.\n10. Sort words:\n11) Sum 2020. and 3.\n"))
    assert [draft.task.instruction for draft in drafts] == ["Name a river.", "Sort words", "Sum 2020. and 3."]
    drafts = parse_numbered_instructions(completion(" Name a river.\n10. Sor", FinishReason.LENGTH))
    assert [draft.rule for draft in drafts] == ["", "unfinished"]


@pytest.mark.parametrize(
    ("text", "yes"), [(" Yes", True), ("YES.", True), (" No", False), ("", False), ("maybe yes", False)]
)
def test_reads_yes_and_no(text: str, yes: bool) -> None:  # noqa: FBT001
    assert parse_yes_no(completion(text)) is yes


def test_reads_a_worked_case() -> None:
    fields = parse_labelled_fields(completion(" b, a\nOutput: a, b\n"), "Input", "Output")
    assert fields == {"Input": "b, a", "Output": "a, b"}
    assert parse_labelled_fields(completion(" b, a"), "Input", "Output") is None
    assert parse_labelled_fields(completion(" b\nOutput: a", FinishReason.LENGTH), "Input", "Output") is None


MARKS = [
    "### Task 4\n",
    "Instruction:",
    "Input:",
    "Output:",
    "\n",
    " ",
    "4. ",
    "###",
    "none",
    "word",
    "\ud7ff",
    "\x00",
    "😀",
]


@given(
    st.one_of(st.text(), st.lists(st.sampled_from(MARKS)).map("".join)),
    st.sampled_from(list(FinishReason)),
)
def test_no_text_raises(text: str, reason: FinishReason) -> None:
    for parse in (parse_task_blocks, parse_numbered_instructions):
        for draft in parse(completion(text, reason)):
            assert draft.rule or draft.task.instruction
    parse_yes_no(completion(text, reason))
    parse_labelled_fields(completion(text, reason), "Input", "Output")
