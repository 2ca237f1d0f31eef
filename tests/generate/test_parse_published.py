"""The published parsing decisions one by one; the recorded runs of test_published.py have them all together."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from selfinstruct_local.engines import Completion, FinishReason, RequestKey
from selfinstruct_local.generate.parsing.published import (
    parse_published_blocks,
    parse_published_list,
    parse_published_yes_no,
)
from selfinstruct_local.io.published_instances import parse_published_instances
from selfinstruct_local.task import Instance


def said(text: str, reason: FinishReason = FinishReason.STOP) -> Completion:
    return Completion(RequestKey(0, "tasks", 0), text, reason, 10, len(text.split()))


FOUR = " Name a river\n4. Input:\n<noinput>\n4. Output:\nNile\n"


@pytest.mark.parametrize(
    ("text", "rules"),
    [
        (FOUR, [""]),
        (FOUR + "###\n5. Instruction: Sum\n5. Input:\n1, 2\n5. Output:\n3", ["", ""]),
        (FOUR + "###\n6. Instruction: Sum\n6. Input:\n1, 2\n6. Output:\n3", ["", "malformed"]),
        (FOUR + "## not a mark", [""]),
        (FOUR + "###", ["", "malformed"]),
        (FOUR + "4. Output:\nAmur", ["malformed"]),
        (FOUR.replace("4. Output", "14. Output"), [""]),
        (FOUR.replace("4. Output", "4.  \nOutput"), [""]),
        (FOUR.replace("4. Output", "4.Output"), ["malformed"]),
        (FOUR.replace("4. Output", "4. output"), ["malformed"]),
        (FOUR.replace("4. Output", "4. Result"), ["malformed"]),
        (FOUR.replace("Name a river", ""), ["malformed"]),
        ("", ["malformed"]),
    ],
)
def test_reads_blocks_as_published(text: str, rules: list[str]) -> None:
    drafts = parse_published_blocks(said(text), 4)
    assert [draft.rule for draft in drafts] == rules
    if not rules[0]:
        assert drafts[0].task.instruction == "Name a river"
        assert drafts[0].task.output.startswith("Nile")


@pytest.mark.parametrize(
    ("text", "instructions"),
    [
        (" Ask Bob\n10. tell Eve", ["Ask bob", "Tell eve"]),
        (" a  b\n10 . c", ["A b", "C"]),
        (" a\n10.c\n11) d 12. e", ["A 10.c 11) d 12. e"]),
        (" a\n10. ", ["A", ""]),
        ("", [""]),
    ],
)
def test_reads_a_list_as_published(text: str, instructions: list[str]) -> None:
    drafts = parse_published_list(said(text))
    assert [draft.task.instruction for draft in drafts] == instructions
    assert [draft.rule for draft in drafts] == ["" if each else "malformed" for each in instructions]
    torn = parse_published_list(said(text, FinishReason.LENGTH))
    assert [draft.rule for draft in torn] == ["truncated"] * len(instructions)


@pytest.mark.parametrize(
    ("text", "yes"),
    [(" Yes", True), ("yes", True), ("YES ", True), ("yES", False), ("Yes.", False), ("Yes, it", False), ("", False)],
)
def test_reads_a_kind_as_published(text: str, yes: bool) -> None:  # noqa: FBT001
    assert parse_published_yes_no(said(text)) is yes


@pytest.mark.parametrize(
    ("text", "cases"),
    [
        ("Output: x", [("", "x")]),
        ("Output 1: x\nOutput 2: y", [("", "x")]),
        ("Input: a\nOutput: x", [("a", "x")]),
        ("Paragraph: a\nOutput: x", [("Paragraph: a", "x")]),
        ("a", []),
        ("Example\na", [("", "a")]),
        ("Example 1\nInput: a\nOutput: x\nInput: b\nOutput: y", [("a", "x")]),
        ("See\nExample 1.\nOutput: x", [("", "See"), ("", "x")]),
        ("Output: For Example 3 apples", [("", "For"), ("", "apples")]),
        ("Example 1\nOutput: x\nExample 2\nOutput: x", [("", "x")]),
        ("Example 1\nInput: a\nOutput: x\nExample 2\nInput: a\nOutput: y", []),
        ("Example 1\nInput: a\nOutput: a\nExample 2\nInput: a\nOutput: y", [("a", "y")]),
        ("Output: as follows:", []),
    ],
)
def test_reads_worked_cases_as_published(text: str, cases: list[tuple[str, str]]) -> None:
    assert parse_published_instances(text, is_classification=False, most=5) == tuple(map(Instance._make, cases))


@pytest.mark.parametrize(
    ("text", "cases"),
    [
        ("Class label: x\na\nb", [("a\nb", "x")]),
        ("Class label: x", [("", "x")]),
        ("Class label:\nx\na", [("a", "x")]),
        ("Input: a\nLabel: x", []),
        ("Class label: x\na\nClass label: y\na", []),
        ("Class label: x\na\nClass label: x\na\nClass label: y\nb", [("a", "x"), ("b", "y")]),
    ],
)
def test_reads_labelled_cases_as_published(text: str, cases: list[tuple[str, str]]) -> None:
    assert parse_published_instances(text, is_classification=True, most=5) == tuple(map(Instance._make, cases))
    torn = parse_published_instances(text, is_classification=True, most=5, torn=True)
    assert len(torn) <= max(0, text.count("Class label:") - 1)


def test_as_many_cases_as_wanted_stay() -> None:
    text = "".join(f"Class label: x{number}\na{number}\n" for number in range(9))
    found = parse_published_instances(text, is_classification=True, most=5)
    assert [case.output for case in found] == ["x0", "x1", "x2", "x3", "x4"]


MARKS = [
    "###", "4. ", "5. ", "Instruction:", "Input:", "Output:", "Output 1:", "Example 1", "Class label:", "\n", "\n10. ",
    " ", "<noinput>", "word", "Yes", ":", "\x1c", "\x00", "ß", "😀",
]  # fmt: skip


@given(
    st.one_of(st.text(), st.lists(st.sampled_from(MARKS)).map("".join)),
    st.sampled_from(list(FinishReason)),
)
def test_every_text_gives_drafts_or_reasons(text: str, reason: FinishReason) -> None:
    completion = said(text, reason)
    for drafts in (parse_published_blocks(completion, 4), parse_published_list(completion)):
        assert drafts
        for draft in drafts:
            assert bool(draft.rule) == bool(draft.detail)
            assert draft.rule or draft.task.instruction
        if reason is not FinishReason.STOP:
            assert drafts[-1].rule
    parse_published_yes_no(completion)
    for kind in (True, False):
        for case in parse_published_instances(
            completion.text, is_classification=kind, most=5, torn=completion.finish_reason is not FinishReason.STOP
        ):
            assert case.output
            assert case.input != case.output
