"""Completions as they should be, and after accidents: whatever a model writes gives drafts that can be kept."""

import json
import random
import re
from collections.abc import Callable

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from selfinstruct_local.engines import Completion, FinishReason, RequestKey
from selfinstruct_local.generate.job import ParsedTask
from selfinstruct_local.generate.parsing.json_tasks import parse_task_objects
from selfinstruct_local.generate.parsing.questions import FOLLOW_UP, NO_REQUEST, read_question, with_input
from selfinstruct_local.generate.parsing.tasks import clean_input, clean_instruction, parse_task_blocks
from selfinstruct_local.generate.wording import WORDINGS, Wording
from selfinstruct_local.io.reader import read_tasks
from selfinstruct_local.seeds import seed_file
from selfinstruct_local.task import Task, as_question
from tests.kernels.oracles import SOAK

MUTATIONS = 1_000_000 if SOAK else 20_000
NAMES = {"malformed", "truncated", "prompt_too_long", FOLLOW_UP, NO_REQUEST}
UNFIT = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\ud800-\udfff]")
REASONS = (FinishReason.STOP, FinishReason.LENGTH, FinishReason.ABORT, FinishReason.REFUSED)
MARKERS = (
    *(
        "### Task 4\n",
        "\n### 任务 5\n",
        "\nTask 5\n",
        "\nInstruction:",
        "\n指令：",
        "\nInput:",
        "\n2. Input: ",
        "\nOutput:",
    ),
    *(
        "\n输出：",
        "\n**Output:** ",
        "\n9. ",
        "\n10、",
        "Thanks! ",
        "The end. ",
        "###",
        "**",
        "\n---\n",
        "\r\n",
    ),
    *(
        "none",
        "无",
        '"',
        "{",
        "}",
        "[",
        "]",
        '"},',
        '{"instruction": "',
        '", "output": "',
        "\\",
        "\\ud800",
        "\\u0000",
        "\x00",
    ),
    *(
        "\ud800",
        "\x1b[31m",
        "\u0130nput:",
        "Instruct\u0131on:",
        "\u2028",
        "\ufeff",
        "```json\n",
        "```",
        "null",
        "1e999",
        "NaN",
        ": ",
    ),
)

Parse = Callable[[Completion], list[ParsedTask]]


def completion(text: str, reason: FinishReason = FinishReason.STOP) -> Completion:
    return Completion(RequestKey(0, "tasks", 0), text, reason, 10, 10)


def blocks(tasks: list[Task], words: Wording) -> str:
    """What a model goes on with after `### Task 4` / `Instruction:`."""
    lines = []
    for number, task in enumerate(tasks, start=4):
        fields = ((words.instruction, task.instruction), (words.input, task.input), (words.output, task.output))
        lines.append("\n".join([words.heading(number), *(words.field(name, value) for name, value in fields)]))
    return "\n\n".join(lines).removeprefix(f"{words.heading(4)}\n{words.mark(words.instruction)}")


def objects(tasks: list[Task]) -> str:
    values = [{"instruction": task.instruction, "input": task.input, "output": task.output} for task in tasks]
    return json.dumps(values, ensure_ascii=False)


def questions(read: Completion) -> list[ParsedTask]:
    return [read_question(read)]


def inputs(read: Completion) -> list[ParsedTask]:
    return [with_input(ParsedTask(Task.single("Sort the words by their length")), read)]


def well_formed(stream: random.Random, words: Wording, seeds: list[Task]) -> list[tuple[str, Parse]]:
    """One completion of every kind, with what reads it."""
    tasks = stream.sample(seeds, stream.randint(1, 3))
    task = tasks[0]
    named = (words.field(words.instruction, task.instruction), words.field(words.input, task.input))
    return [
        (blocks(tasks, words), parse_task_blocks),
        (objects(tasks), parse_task_objects),
        (as_question(task.instruction, task.input), questions),
        ("\n".join([*named, words.field(words.output, task.output)]), questions),
        (f" {task.input}\n{words.field(words.output, task.output)}", inputs),
    ]


def corpus() -> list[tuple[str, Parse]]:
    stream = random.Random(4)
    found = []
    for lang, words in WORDINGS.items():
        seeds = [seed for seed in read_tasks(seed_file(lang)) if len(seed.input) + len(seed.output) < 200]
        for _ in range(20):
            found += well_formed(stream, words, seeds)
    return found


def mutate(text: str, stream: random.Random) -> str:
    for _ in range(stream.randint(1, 4)):
        size = len(text)
        start = stream.randint(0, size)
        end = min(size, start + stream.choice((1, 3, 10, 40, 200)))
        match stream.randrange(7):
            case 0:
                text = text[:start] + text[end:]
            case 1:
                text = text[:end] + text[start:end] + text[end:]
            case 2:
                other = stream.randint(0, size)
                first, second = sorted((start, other))
                text = text[second:] + text[first:second] + text[:first]
            case 3:
                text = text[:start] + stream.choice(MARKERS) + text[start:]
            case 4:
                text = text[:start] if stream.random() < 0.5 else text[start:]
            case 5:
                text = (
                    text[:start] + chr(stream.choice((stream.randrange(128), stream.randrange(0x11000)))) + text[end:]
                )
            case _:
                text = text.replace(
                    *stream.choice(((":", "："), ("\n", "\r\n"), ("\n", "\n\n"), ("\n", " "), ('"', "'")))
                )
    return text


def check(text: str, reason: FinishReason, drafts: list[ParsedTask]) -> None:
    assert drafts, "text that gives no draft is lost in silence"
    assert len(drafts) <= 2 + text.count("\n") + text.count("\r") + text.count("{") + text.count(","), "from nowhere"
    for draft in drafts:
        assert isinstance(draft.task, Task)
        assert draft.rule in NAMES if draft.rule else draft.task.instruction == draft.task.instruction.strip() != ""
        assert bool(draft.rule) == bool(draft.detail)
        texts = [draft.task.instruction, draft.detail, *(each for pair in draft.task.instances for each in pair)]
        assert not any(map(UNFIT.search, texts)), "a text that cannot be stored"
    if reason is FinishReason.REFUSED:
        assert [draft.rule for draft in drafts] in (["prompt_too_long"], ["malformed"])


def test_well_formed_completions_are_read() -> None:
    read = [parse(completion(text)) for text, parse in corpus()]
    accepted = [drafts for drafts in read if not any(draft.rule for draft in drafts)]
    assert len(accepted) == len(read)


def test_mutated_completions_give_drafts_that_can_be_kept() -> None:
    stream = random.Random(17)
    sound = corpus()
    seen: dict[str, int] = {}
    for number in range(MUTATIONS):
        text, parse = sound[number % len(sound)]
        text = mutate(text, stream)
        reason = REASONS[0] if stream.random() < 0.7 else stream.choice(REASONS)
        try:
            drafts = parse(completion(text, reason))
            check(text, reason, drafts)
        except Exception as error:  # noqa: BLE001 - whatever it is, the text that led to it is told
            pytest.fail(f"mutation {number}: {error!r}\n{reason}\n{text!r}")
        for draft in drafts:
            seen[draft.rule] = seen.get(draft.rule, 0) + 1
    # Every outcome was met: the fuzzing reaches both sides.
    assert set(seen) == {*NAMES, ""}
    assert seen[""] > MUTATIONS / 10


# Texts that hold nothing a parser looks for: no digits, colons, emphasis, headings or names of fields.
PLAIN = st.text(st.sampled_from("abc xyz,;!?äß中文\n«»"), min_size=1, max_size=40).map(str.strip).filter(bool)
ANY = st.text(st.characters(codec="utf-8", exclude_categories=("Cc", "Cs")), max_size=40)
KINDS = st.sampled_from(list(WORDINGS.values()))


@given(st.lists(st.builds(Task.single, PLAIN.map(clean_instruction), PLAIN, PLAIN), min_size=1, max_size=5), KINDS)
def test_blocks_are_read_as_they_were_written(tasks: list[Task], words: Wording) -> None:
    assert parse_task_blocks(completion(blocks(tasks, words))) == list(map(ParsedTask, tasks))


@given(st.builds(Task.single, PLAIN.map(clean_instruction), PLAIN), st.sampled_from([None, *WORDINGS.values()]))
def test_a_turn_is_read_as_it_was_written(task: Task, words: Wording | None) -> None:
    assume(task.input.casefold() not in task.instruction.casefold())  # an input that is there already is dropped
    lines = [as_question(task.instruction, task.input)]
    if words:
        lines = [words.field(words.instruction, task.instruction), words.field(words.input, task.input)]
    (draft,) = questions(completion("\n".join(lines)))
    assert draft.task == task
    assert draft.rule in {"", FOLLOW_UP, NO_REQUEST}


@given(st.lists(st.builds(Task.single, ANY, ANY, ANY), min_size=1, max_size=5), st.booleans())
def test_json_is_read_as_it_was_written(tasks: list[Task], torn: bool) -> None:  # noqa: FBT001
    text = objects(tasks)
    drafts = parse_task_objects(completion(text[:-1] if torn else text, FinishReason.LENGTH))
    assert len(drafts) == len(tasks)
    for draft, task in zip(drafts, tasks, strict=True):
        assert draft.task.instruction == clean_instruction(task.instruction)
        assert draft.rule == ("" if draft.task.instruction else "malformed")
        assert (draft.task.input, draft.task.output) == (clean_input(task.input), task.output.strip())
