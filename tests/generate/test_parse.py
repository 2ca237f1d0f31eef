import pytest
from hypothesis import given
from hypothesis import strategies as st

from selfinstruct_local.config import GenerateSettings, load_settings
from selfinstruct_local.engine import Completion, FinishReason, RequestKey
from selfinstruct_local.generate.job import Job
from selfinstruct_local.generate.parse import (
    clean_input,
    clean_instruction,
    parse_numbered_instructions,
    parse_task_blocks,
    parse_worked_case,
    parse_yes_no,
)
from selfinstruct_local.generate.profiles import make_profile
from selfinstruct_local.generate.wording import WORDINGS
from selfinstruct_local.language import Language
from selfinstruct_local.seeds import seed_file
from selfinstruct_local.taskfiles import read_tasks
from selfinstruct_local.tasks import Task


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
    assert parse_worked_case(completion(" b, a\nOutput: a, b\n"), "output") == ("b, a", "a, b")
    assert parse_worked_case(completion(" b, a"), "output") is None
    assert parse_worked_case(completion(" b\nOutput: a", FinishReason.LENGTH), "output") is None


def test_reads_chinese_tasks() -> None:
    text = (
        "写一句关于秋天的话。\n输入：无\n输出：秋风起，桂花香。\n\n"
        "### 任务 5\n指令： 把下面的句子改成问句：\n输入：他来了。\n输出：他来了吗？"
    )
    first, second = parse_task_blocks(completion(text))
    assert first.task == Task.single("写一句关于秋天的话。", "", "秋风起，桂花香。")
    assert second.task == Task.single("把下面的句子改成问句", "他来了。", "他来了吗？")
    assert [draft.rule for draft in (first, second)] == ["", ""]
    assert parse_worked_case(completion("好评\n输入：味道很好。"), "input") == ("好评", "味道很好。")
    assert parse_yes_no(completion("是"))
    assert not parse_yes_no(completion("不是"))
    assert [
        draft.task.instruction for draft in parse_numbered_instructions(completion(" 写一首诗\n10. 列出三种茶"))
    ] == [
        "写一首诗",
        "列出三种茶",
    ]


@pytest.mark.parametrize("lang", ["en", "zh"])
@pytest.mark.parametrize("profile", ["alpaca", "self-instruct"])
def test_what_a_prompt_shows_is_what_the_parser_reads(lang: Language, profile: str) -> None:
    settings = load_settings(GenerateSettings, None, {"lang": lang, "profile": profile, "rules": "none"})
    seeds = read_tasks(seed_file(lang))
    made = make_profile(settings)
    steps = made.steps(Job(0, 0, seeds, []))
    (request,) = next(steps)
    words = WORDINGS[lang]
    if profile == "alpaca":
        shown = request.prompt.partition(f"{words.heading(1)}\n{words.mark(words.instruction)}")[2]
        drafts = parse_task_blocks(completion(shown))
        by_instruction = {clean_instruction(seed.instruction): seed for seed in seeds}
        for draft in drafts[:3]:
            seed = by_instruction[draft.task.instruction]
            assert (draft.rule, draft.task.input, draft.task.output) == ("", seed.input.strip(), seed.output.strip())
        assert len(drafts) == 4  # the last is what the model goes on with
        return
    (kind,) = steps.send([completion(" 列出三种茶\n" if lang == "zh" else " List three kinds of tea\n")])
    assert kind.prompt.endswith(words.kind_question)
    (case,) = steps.send([completion(words.yes)])
    assert case.prompt.endswith(words.mark(words.label))


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
    parse_worked_case(completion(text, reason), "output")
