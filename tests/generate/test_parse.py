import gc
import sqlite3
import time
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from selfinstruct_local.engines import Completion, FinishReason, RequestKey
from selfinstruct_local.generate.job import Job, ParsedTask
from selfinstruct_local.generate.parsing.json_tasks import parse_task_objects
from selfinstruct_local.generate.parsing.questions import read_question, stands_alone, with_input
from selfinstruct_local.generate.parsing.tasks import clean_input, clean_instruction, parse_task_blocks
from selfinstruct_local.generate.profiles.registry import make_profile
from selfinstruct_local.generate.settings import GenerateSettings
from selfinstruct_local.generate.wording import WORDINGS
from selfinstruct_local.io.reader import read_tasks
from selfinstruct_local.languages.base import Language
from selfinstruct_local.runs.store.records import instances_to_json
from selfinstruct_local.seeds import seed_file
from selfinstruct_local.task import Task, as_question


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
    assert (second.rule, "(length)" in second.detail) == ("truncated", True)


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
        (" Name a river.\nOutput: x\nOutput: y", "field 'output' occurs twice"),
        ("", "no instruction"),
    ],
)
def test_what_gives_no_task_is_counted(text: str, detail: str) -> None:
    (draft,) = parse_task_blocks(completion(text))
    assert draft.rule == "malformed"
    assert detail in draft.detail


def read_input(read: Completion) -> ParsedTask:
    return with_input(ParsedTask(Task.single("Sort the words")), read)


@pytest.mark.parametrize(
    ("instruction", "text", "kept"),
    [
        ('Edit the sentence: "The store will be close today."', '"The store will be close today."', ""),
        ('Edit the sentence: "The store will be close today."', "The shop will be close today.", None),
        ("Is a potato a vegetable or a fruit?", "a potato", None),
        ("Is 40 a square number?", "A. Yes\nB. No", ""),
        ("把“今天天气很好。”改成问句。", "今天天气很好。", ""),
    ],
)
def test_an_input_that_the_instruction_has_is_dropped(instruction: str, text: str, kept: str | None) -> None:
    draft = with_input(ParsedTask(Task.single(instruction)), completion(text))
    assert (draft.rule, draft.task.input) == ("", text if kept is None else kept)


@pytest.mark.parametrize(
    ("instruction", "lang", "alone"),
    [
        ('Is the statement "All squares have four sides" true or false?', "en", True),
        ("Is the Moon nearer to the Earth than the Sun?", "en", True),
        ("Does the customer want a refund?", "en", False),
        ("Is this sentence a question?", "en", False),
        ('Answer "yes" or "no": is it a fruit?', "en", False),
        ("Classify the animal as a mammal or a bird.", "en", False),
        ("月亮比太阳离地球近吗？", "zh", True),
        ("这句话是疑问句吗？", "zh", False),
    ],
)
def test_a_question_about_the_world_or_a_quoted_text_needs_no_input(
    instruction: str, lang: Language, *, alone: bool
) -> None:
    assert stands_alone(instruction, lang, classification=True) == alone


def test_a_prompt_without_room_is_counted() -> None:
    refused = completion("", FinishReason.REFUSED)
    for draft in (*parse_task_blocks(refused), read_question(refused), read_input(refused)):
        assert draft.rule == "prompt_too_long"


@pytest.mark.parametrize("text", ["none", " None.", "<noinput>", "N/A", "(no input)", "", "-"])
def test_no_input_has_many_spellings(text: str) -> None:
    assert clean_input(text) == ""


def test_reads_chinese_tasks() -> None:
    text = (
        "写一句关于秋天的话。\n输入：无\n输出：秋风起，桂花香。\n\n"
        "### 任务 5\n指令： 把下面的句子改成问句：\n输入：他来了。\n输出：他来了吗？"
    )
    first, second = parse_task_blocks(completion(text))
    assert first.task == Task.single("写一句关于秋天的话。", "", "秋风起，桂花香。")
    assert second.task == Task.single("把下面的句子改成问句", "他来了。", "他来了吗？")
    assert [draft.rule for draft in (first, second)] == ["", ""]


@pytest.mark.parametrize("lang", ["en", "zh"])
@pytest.mark.parametrize("profile", ["alpaca", "self-instruct"])
def test_what_a_prompt_shows_is_what_the_parser_reads(lang: Language, profile: str) -> None:
    free = {"classification_share": None, "input_share": None}
    flags = {"lang": lang, "profile": profile, "rules": "none", "answers": "full"}
    settings = GenerateSettings.model_validate({**flags, **free})
    seeds = read_tasks(seed_file(lang))
    request, *_ = next(make_profile(settings).steps(Job(0, 0, seeds, [])))
    words = WORDINGS[lang]
    shown = request.prompt.partition(f"{words.heading(1)}\n{words.mark(words.instruction)}")[2]
    drafts = parse_task_blocks(completion(shown))
    by_instruction = {clean_instruction(seed.instruction): seed for seed in seeds}
    for draft in drafts[:3]:
        seed = by_instruction[draft.task.instruction]
        assert (draft.rule, draft.task.input, draft.task.output) == ("", seed.input.strip(), seed.output.strip())
    assert len(drafts) == 4  # the last is what the model goes on with


@pytest.mark.parametrize("lang", ["en", "zh"])
def test_a_turn_that_is_shown_is_what_the_parser_reads(lang: Language) -> None:
    for seed in read_tasks(seed_file(lang)):
        if "\n" not in seed.instruction:
            draft = read_question(completion(as_question(seed.instruction, seed.input)))
            wanted = Task.single(clean_instruction(seed.instruction), clean_input(seed.input))
            assert draft == ParsedTask(wanted), seed.id


@pytest.mark.parametrize(
    "form",
    [
        "**{}:** {}",
        "**{}**: {}",
        "**{}: {}**",
        "*{}:* {}",
        "__{}__: {}",
        "### {}: {}",
        "### **{}:** {}",
        "4. **{}:** {}",
        "{}：{}",
        "  {} : {}",
        "{}:{}",
    ],
)
def test_names_of_fields_come_in_many_forms(form: str) -> None:
    names = (("Instruction", "Name a *long* river."), ("Input", "Asia, 5_000 km"), ("Output", "The **Lena**, 4 km"))
    text = "\n".join(form.format(name, value) for name, value in names)
    (draft,) = parse_task_blocks(completion(f"\n\n### Task 4\n{text}"))
    assert draft == ParsedTask(Task.single("Name a *long* river.", "Asia, 5_000 km", "The **Lena**, 4 km"))


def test_emphasis_of_a_value_stays() -> None:
    text = "写一句话。\n**输入**：无\n**输出**：**秋**风起"
    assert parse_task_blocks(completion(text)) == [ParsedTask(Task.single("写一句话。", "", "**秋**风起"))]


@pytest.mark.parametrize("end", ["\r\n", "\r"])
def test_line_ends_of_other_systems_are_read(end: str) -> None:
    assert parse_task_blocks(completion(TWO.replace("\n", end))) == parse_task_blocks(completion(TWO))


def test_what_the_prompt_wrote_may_be_written_again() -> None:
    for again in ("### Task 4\nInstruction:", "\nInstruction:", "### Task 7\nInstruction:"):
        assert parse_task_blocks(completion(again + TWO)) == parse_task_blocks(completion(TWO))


def test_a_rule_between_tasks_is_no_text() -> None:
    ruled = TWO.replace("\n\n### Task 5", "\n\n---\n\n### Task 5")
    assert parse_task_blocks(completion(ruled)) == parse_task_blocks(completion(TWO))


@pytest.mark.parametrize(
    ("output", "detail"),
    [
        ("Ask like this:\n2. Input: x", "field 'input' occurs twice"),
        ("Ask like this:\n**Output:** x", "field 'output' occurs twice"),
        ("Ask like this:\nInstruction: Name a lake.\n\n", "field 'instruction' may be part of its 'output'"),
        ("Ask like this:\nInstruction: Name a lake.\nInput: none\nOutput: y", "field 'instruction' may be part of its"),
        ("Two steps\nInstruction: Name a lake.\nInput: none", "field 'instruction' may be part of its 'output'"),
    ],
)
def test_an_output_that_quotes_a_field_is_refused(output: str, detail: str) -> None:
    text = f" Write a prompt.\nInput: none\nOutput: {output}\n\n### Task 5\nInstruction: Sort\nOutput: a"
    first, *_, last = parse_task_blocks(completion(text))
    assert first.rule == "malformed"
    assert detail in first.detail
    assert last == ParsedTask(Task.single("Sort", "", "a"))


def test_a_field_without_its_input_that_quotes_one_is_refused() -> None:
    (draft,) = parse_task_blocks(completion(" Write a prompt.\nOutput: Ask:\n2. Input: x"))
    assert (draft.rule, draft.detail) == ("malformed", "field 'input' comes after 'output'")


def test_a_torn_task_without_a_heading_says_nothing_of_the_one_before() -> None:
    text = " Name a river.\nInput: none\nOutput: Lena\n\nInstruction: Name a la"
    first, second = parse_task_blocks(completion(text, FinishReason.LENGTH))
    assert (first.rule, second.rule) == ("", "truncated")


def test_lines_that_look_like_headings_are_text_unless_a_task_follows() -> None:
    text = " Plan my day.\nInput: none\nOutput: Two things.\n\nTask 1\nSleep.\n\nTask 2\nEat.\n\n### Task 5\n"
    (draft,) = parse_task_blocks(completion(text))
    assert draft == ParsedTask(Task.single("Plan my day.", "", "Two things.\n\nTask 1\nSleep.\n\nTask 2\nEat."))


@pytest.mark.parametrize("character", ["\x00", "\x1b", "\x7f", "\x90", "\ud800"])
def test_what_is_no_text_is_refused_and_can_be_stored(character: str) -> None:
    written = [
        parse_task_blocks(completion(f" Name{character} a river.\nInput: none\nOutput: x"))[0],
        parse_task_blocks(completion(f" Name a river.\nInput: none\nOutput: x{character}"))[0],
        read_question(completion(f" Name {character}a river.")),
        read_question(completion(f" Name a river.\n\n{character}")),
        parse_task_objects(completion(f'[{{"instruction": "Name", "input": "{character}", "output": "x"}}]'))[0],
        parse_task_objects(completion(f'[{{"input": "", "output": "x{character}"}}]'))[0],
        read_input(completion(f" a{character}\n")),
    ]
    store = sqlite3.connect(":memory:")
    for draft in written:
        assert draft.rule == "malformed"
        assert f"U+{ord(character):04X}" in draft.detail or "no instruction" in draft.detail
        assert character not in draft.task.instruction + draft.task.output + draft.detail
        store.execute("SELECT ?, ?", (instances_to_json(draft.task.instances), draft.task.instruction))


ARRAY = (
    b'[{"instruction": "Sort the words:", "input": "b, a", "output": "a\\nb"}, '
    b'{"instruction": "Say {", "input": "", "output": "\\"}"}]'
)


def test_reads_json() -> None:
    text = ARRAY.decode()
    wanted = [ParsedTask(Task.single("Sort the words", "b, a", "a\nb")), ParsedTask(Task.single("Say {", "", '"}'))]
    for each in (text, f"```json\n{text}\n```", f'{{"tasks": {text}}}', text.replace('", "', '" ,\n"')):
        for reason in (FinishReason.STOP, FinishReason.LENGTH):
            assert parse_task_objects(completion(each, reason)) == wanted


@pytest.mark.parametrize("around", ["{}", "```json\n{}", '{{"tasks": {}'])
def test_json_that_is_cut_short_keeps_whole_objects(around: str) -> None:
    text = ARRAY.decode()
    whole = text.index("}") + 1
    for end in range(1, len(text)):
        drafts = parse_task_objects(completion(around.format(text[:end]), FinishReason.LENGTH))
        kept = [draft for draft in drafts if not draft.rule]
        assert len(kept) == (end >= whole) + (end >= len(text) - 1)
        assert [draft.rule for draft in drafts[len(kept) :]] in ([], ["truncated"])
        assert drafts


@pytest.mark.parametrize(
    ("text", "details"),
    [
        ("", ["no instruction: "]),
        ("I cannot do that.", ["invalid JSON: I cannot do that."]),
        ('["Sort the words"]', ["not an object: Sort the words"]),
        ('[{"input": "x", "output": "y"}]', ["no instruction: x y"]),
        ('[{"instruction": "Sort", "input": "x"}]', ["no output"]),
        ('[{"instruction": "Sort", "input": ["x"], "output": "y"}]', ["field 'input' is not a string"]),
        ('[{"instruction": "Sort", "input": null, "output": 5}]', ["field 'output' is not a string"]),
        ('[{"instruction": "Say "hi"", "output": "y"}]', ['invalid JSON: {"instruction": "Say "hi"", "output": "y"}]']),
        ('{"instruction": ' * 5000, ['invalid JSON: {"instruction": {"instruction"']),
        (f'[{{"instruction": {"9" * 5000}}}]', ["field 'instruction' is not a string"]),
    ],
)
def test_json_that_gives_no_task_is_counted(text: str, details: list[str]) -> None:
    drafts = parse_task_objects(completion(text))
    assert [draft.rule for draft in drafts] == ["malformed"] * len(details)
    assert all(draft.detail.startswith(detail) for draft, detail in zip(drafts, details, strict=True))


def test_a_prompt_without_room_is_counted_in_json_too() -> None:
    assert parse_task_objects(completion("", FinishReason.REFUSED))[0].rule == "prompt_too_long"


@pytest.mark.parametrize(
    "piece",
    [
        *(
            "#",
            " ",
            "\n",
            "\r",
            "*",
            "9",
            "{",
            "[",
            '{"',
            '"',
            "\\",
            "Task",
            "Task ",
            "\n-",
            "\n ",
            "\nTask 5\n\n",
            "** ",
        ),
        *(
            "\n### Task 5",
            "\nInput:",
            "\nInstruction:",
            "\n5. ",
            "\n5. Input:",
            "\nExample 5",
            "\n** Input",
            "\n标签：",
        ),
        *('{"a":', '{"a":[', '{"instruction":"x","output":"y"},', "{}", '{"a" ', "\\ud800", "```json\n", "\x00"),
    ],
)
def test_the_time_to_read_anything_grows_as_its_length(piece: str) -> None:
    """A megabyte takes ten times as long as a tenth of it, not a hundred times; how long that is, is the machine's."""
    text = "Task" + piece * (1_000_000 // len(piece)) + "x"
    for parse in PARSERS:
        tenth = min(seconds_to_read(parse, text[: len(text) // 10]) for _ in range(2))
        assert seconds_to_read(parse, text) < 40 * max(tenth, 0.01)


def seconds_to_read(parse: Callable[[Completion], object], text: str) -> float:
    # The collector looks at all that the process holds, the more often the more objects are made.
    gc.disable()
    try:
        began = time.process_time()
        parse(completion(text))
        return time.process_time() - began
    finally:
        gc.enable()


PARSERS: list[Callable[[Completion], object]] = [parse_task_blocks, parse_task_objects, read_question, read_input]


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
    "Instruct\u0131on:",
    "\ud800",
    '[{"instruction": "',
    '", "output": "',
    '"}',
    "Example 2",
    "**",
    "\x00",
    "😀",
]


@given(
    st.one_of(st.text(), st.lists(st.sampled_from(MARKS)).map("".join)),
    st.sampled_from(list(FinishReason)),
)
def test_no_text_raises(text: str, reason: FinishReason) -> None:
    for parse in PARSERS:
        read = parse(completion(text, reason))
        for draft in read if isinstance(read, list) else [read]:
            assert isinstance(draft, ParsedTask)
            assert draft.rule or draft.task.instruction
