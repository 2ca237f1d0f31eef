"""What the profiles ask in each format, and that the answers are read: chats, JSON, several cases, steered prompts."""

import itertools
import random
from collections.abc import Sequence
from pathlib import Path
from string import Template

import orjson
import pytest

from selfinstruct_local.config import GenerateSettings, load_settings
from selfinstruct_local.engine import Completion, FinishReason, Request, RequestKey
from selfinstruct_local.generate.job import Draft, Job
from selfinstruct_local.generate.parsing.cases import parse_case_objects
from selfinstruct_local.generate.parsing.json_tasks import parse_task_objects
from selfinstruct_local.generate.profiles.registry import make_profile
from selfinstruct_local.generate.profiles.steering import Steering
from selfinstruct_local.generate.wording import WORDINGS
from selfinstruct_local.language import Language
from selfinstruct_local.seeds import seed_file
from selfinstruct_local.taskfiles import read_tasks
from selfinstruct_local.tasks import Instance, Task
from tests.generate.test_run import generate, pool
from tests.scripted_engine import ScriptedEngine, answer

PROMPTS = Path(__file__).parents[2] / "prompts"
LANGUAGES: tuple[Language, ...] = ("en", "zh")
NEW_TASKS = {
    "en": ("List three kinds of green tea", "Say whether the text is a poem"),
    "zh": ("列出三种绿茶的名字", "判断这段文字是不是一首诗"),
}


def settings(lang: Language = "en", **flags: object) -> GenerateSettings:
    return load_settings(GenerateSettings, None, {"lang": lang, "rules": "none", **flags})


def completion(text: str, reason: FinishReason = FinishReason.STOP) -> Completion:
    return Completion(RequestKey(0, "tasks", 0), text, reason, 10, 10)


def job(lang: Language = "en", number: int = 0) -> Job:
    seeds = read_tasks(seed_file(lang))
    return Job(number, 0, seeds, [Task("Machine made", id=f"gen-{n}") for n in range(20)])


def rounds(chosen: GenerateSettings, answers: Sequence[Sequence[str]] = ()) -> tuple[list[list[Request]], list[Draft]]:
    """The requests of job 0, round by round, and what it made of the answers to them."""
    steps = make_profile(chosen).steps(job(chosen.lang))
    asked = [next(steps)]
    try:
        for texts in answers:
            asked.append(steps.send([completion(text) for text in texts]))  # noqa: PERF401 - ended by StopIteration
    except StopIteration as finished:
        return asked, finished.value
    return asked, []


def listing(lang: Language) -> str:
    first, second = NEW_TASKS[lang]
    return f" {first}\n10. {second}"


def self_instruct_rounds(chosen: GenerateSettings, cases: Sequence[str]) -> tuple[list[list[Request]], list[Draft]]:
    """The list, the kinds (the second new task is classification) and the cases."""
    words = WORDINGS[chosen.lang]
    return rounds(chosen, [[listing(chosen.lang)], [f" {words.no}", f" {words.yes}"], cases])


@pytest.mark.parametrize("lang", LANGUAGES)
def test_completion_prompts_are_the_templates_and_nothing_else(lang: Language) -> None:
    words = WORDINGS[lang]
    chosen = settings(lang)
    ((request,),), _ = rounds(chosen)
    shown = job(lang).demonstrate(3, machine_made=1, stage="tasks")
    blocks = [
        f"{words.heading(number)}\n{words.field(words.instruction, task.instruction)}\n"
        f"{words.field(words.input, task.input)}\n{words.field(words.output, task.output)}"
        for number, task in enumerate(shown, start=1)
    ]
    template = Template((PROMPTS / f"alpaca{words.suffix}.txt").read_text().removesuffix("\n"))
    assert request.prompt == template.substitute(demonstrations="\n\n".join(blocks), next_number=4)
    assert (request.turns, request.sampling.json_schema, request.sampling.choice) == ((), "", ())

    asked, _ = self_instruct_rounds(settings(lang, profile="self-instruct"), ["", ""])
    shown = job(lang).demonstrate(8, machine_made=2, stage="instructions")
    lines = "\n".join(f"{number}. {task.instruction}" for number, task in enumerate(shown, start=1))
    template = Template((PROMPTS / f"self_instruct_instructions{words.suffix}.txt").read_text().removesuffix("\n"))
    assert asked[0][0].prompt == template.substitute(demonstrations=lines, next_number=9)
    assert not any(request.turns for requests in asked for request in requests)


@pytest.mark.parametrize("lang", LANGUAGES)
def test_a_chat_says_what_the_completion_prompt_says(lang: Language) -> None:
    words = WORDINGS[lang]
    for profile, openings in (
        ("alpaca", [f"{words.heading(4)}\n{words.mark(words.instruction)}"]),
        ("self-instruct", ["9.", words.kind_question, words.mark(words.input), words.mark(words.label)]),
    ):
        plain, _ = self_instruct_rounds(settings(lang, profile=profile), ["", ""])
        chat, _ = self_instruct_rounds(settings(lang, profile=profile, prompt_format="chat"), ["", ""])
        found = set()
        for before, after in zip(itertools.chain(*plain), itertools.chain(*chat), strict=True):
            (turn,) = after.turns
            assert (turn.role, after.role, after.key, after.sampling) == (
                "user",
                "assistant",
                before.key,
                before.sampling,
            )
            assert before.prompt.endswith(after.prompt)
            head = before.prompt.removesuffix(after.prompt).rstrip()
            asked = turn.content.removeprefix(head)
            # Only the requests that go on with a list or a collection need somebody to ask for it.
            assert bool(asked.strip()) == (after.key.stage in {"tasks", "instructions"})
            assert turn.content == turn.content.strip()
            found.add(after.prompt)
        assert found == set(openings)


@pytest.mark.parametrize("lang", LANGUAGES)
@pytest.mark.parametrize("prompt_format", ["completion", "chat"])
def test_structured_tasks_are_asked_for_as_they_are_shown(lang: Language, prompt_format: str) -> None:
    chosen = settings(lang, structured=True, prompt_format=prompt_format)
    ((request,),), _ = rounds(chosen)
    text = request.turns[0].content if request.turns else request.prompt
    assert request.prompt == ("" if request.turns else f"{text.strip()}\n")
    start, end = text.index("[\n{"), text.index("}\n]") + 3
    shown = job(lang).demonstrate(3, machine_made=1, stage="tasks")
    assert orjson.loads(text[start:end]) == [
        {"instruction": task.instruction, "input": task.input, "output": task.output} for task in shown
    ]
    schema = orjson.loads(request.sampling.json_schema)
    assert (schema["minItems"], schema["maxItems"], request.sampling.stop) == (5, 5, ())
    made = [{"instruction": "Sort", "input": "b, a", "output": "a, b"}]
    _, drafts = rounds(chosen, [[orjson.dumps(made).decode()]])
    assert drafts == [Draft(Task.single("Sort", "b, a", "a, b"))]


def cases_of(lang: Language, *, structured: bool, many: bool) -> list[str]:
    """An answer of each kind: a case with an input and an output, one with a label and an input, twice if many."""
    words = WORDINGS[lang]
    pairs = [("b, a", "a, b"), ("d, c", "c, d")][: 2 if many else 1]
    texts = []
    for first, second in (("input", "output"), ("label", "input")):
        if structured:
            values = [{first: pair[0], second: pair[1]} for pair in pairs]
            texts.append(orjson.dumps(values if many else values[0]).decode())
            continue
        names = getattr(words, first), getattr(words, second)
        blocks = ["\n".join(words.field(*field) for field in zip(names, pair, strict=True)) for pair in pairs]
        text = blocks[0] if not many else f"{blocks[0]}\n\n{words.numbered_example(2)}\n{blocks[1]}"
        texts.append(text.removeprefix(words.mark(names[0])))
    return texts


@pytest.mark.parametrize("lang", LANGUAGES)
@pytest.mark.parametrize("prompt_format", ["completion", "chat"])
@pytest.mark.parametrize("structured", [False, True])
@pytest.mark.parametrize("most", [1, 5])
def test_worked_cases_come_in_every_format(
    lang: Language,
    prompt_format: str,
    structured: bool,  # noqa: FBT001
    most: int,
) -> None:
    words = WORDINGS[lang]
    chosen = settings(
        lang, profile="self-instruct", prompt_format=prompt_format, structured=structured, instances_per_task=most
    )
    asked, (task, labelled) = self_instruct_rounds(chosen, cases_of(lang, structured=structured, many=most > 1))
    cases = (Instance("b, a", "a, b"), Instance("d, c", "c, d"))[: 2 if most > 1 else 1]
    assert task == Draft(Task(NEW_TASKS[lang][0], cases, is_classification=False))
    assert labelled == Draft(Task(NEW_TASKS[lang][1], tuple(Instance(b, a) for a, b in cases), is_classification=True))
    for request in asked[1]:
        assert request.sampling.choice == ((f" {words.yes}", f" {words.no}") if structured else ())
    for request, fields in zip(asked[2], (["input", "output"], ["label", "input"]), strict=True):
        text = request.turns[0].content if request.turns else request.prompt
        if structured:
            schema = orjson.loads(request.sampling.json_schema)
            assert (schema["type"] == "array") == (most > 1)
            assert schema.get("maxItems", 1) == most
            assert list(schema.get("items", schema)["properties"]) == fields
            assert (request.sampling.presence_penalty, request.sampling.stop) == (0.0, ())
            shown = [line for line in text.splitlines() if line.startswith(("{", "["))]
            assert len(shown) == 4
            for line in shown:
                assert parse_case_objects(completion(line), is_classification=fields[0] == "label")
        else:
            assert request.prompt.endswith(words.mark(getattr(words, fields[0])))
            assert (f"\n{words.numbered_example(6)}" in request.sampling.stop) == (most > 1)
            whole = text + ("\n" + request.prompt if request.turns else "")
            assert whole.count(words.numbered_example(1)) == (5 if most > 1 else 0)


def test_schemas_are_ones_that_the_decoder_takes() -> None:
    xgrammar = pytest.importorskip("xgrammar")
    testing = pytest.importorskip("xgrammar.testing")
    tasks = [Task.single('Say "hi"', "", 'a\n"b" \\ {c}'), Task.single("排序", "二 一", "一 二")]
    for lang, many in itertools.product(LANGUAGES, (1, 3)):
        ((whole,),), _ = rounds(settings(lang, structured=True, tasks_per_prompt=2))
        chosen = settings(lang, profile="self-instruct", structured=True, instances_per_task=many)
        asked, _ = self_instruct_rounds(chosen, ["", ""])
        array = [{"instruction": task.instruction, "input": task.input, "output": task.output} for task in tasks]
        worked = [{"input": task.input, "output": task.output} for task in tasks]
        labels = [{"label": task.output, "input": task.input} for task in tasks]
        for request, value in ((whole, array), (asked[2][0], worked), (asked[2][1], labels)):
            grammar = xgrammar.Grammar.from_json_schema(request.sampling.json_schema)
            text = orjson.dumps(value if request is whole or many > 1 else value[0]).decode()
            assert testing._is_grammar_accept_string(grammar, text)
            assert not testing._is_grammar_accept_string(grammar, text.replace("input", "other"))
            read = parse_task_objects(completion(text)) if request is whole else []
            assert all(not draft.rule for draft in read)


def test_topics_and_kinds_are_drawn_by_job() -> None:
    topics = ("bees", "tides and\nmoons")
    steering = Steering(settings(topics=topics, classification_share=0.3))
    topics_drawn = [steering.topic(job(number=number)) for number in range(200)]
    kinds_drawn = [steering.wants_classification(job(number=number)) for number in range(200)]
    assert set(topics_drawn) == {"bees", "tides and moons"}
    assert 60 < topics_drawn.count("bees") < 140
    assert 40 < kinds_drawn.count(True) < 80
    assert kinds_drawn.count(None) == 0
    assert topics_drawn == [steering.topic(job(number=number)) for number in range(200)]
    free = Steering(settings())
    assert (free.topic(job()), free.wants_classification(job())) == ("", None)
    assert free.requests(job(), WORDINGS["en"]) == []
    for share, wanted in ((0, {False}), (1, {True})):
        sure = Steering(settings(classification_share=share))
        assert {sure.wants_classification(job(number=number)) for number in range(50)} == wanted


@pytest.mark.parametrize("lang", LANGUAGES)
@pytest.mark.parametrize("profile", ["alpaca", "self-instruct"])
@pytest.mark.parametrize("prompt_format", ["completion", "chat"])
@pytest.mark.parametrize("share", [0, 1])
def test_steered_prompts_show_and_ask_for_the_kind(
    lang: Language, profile: str, prompt_format: str, share: int
) -> None:
    words = WORDINGS[lang]
    structured = {"structured": True} if profile == "alpaca" else {}
    for flags in ({}, structured):
        chosen = settings(
            lang, profile=profile, prompt_format=prompt_format, classification_share=share, topics=["$x {y}"], **flags
        )
        asking = job(lang)
        (request,) = next(make_profile(chosen).steps(asking))
        text = request.turns[0].content if request.turns else request.prompt
        assert (words.labels_wanted in text, words.labels_unwanted in text) == (share == 1, share == 0)
        assert f"{words.about}$x {{y}}\n" in f"{text}\n"
        assert {bool(task.is_classification) for task in asking.shown} == {share == 1}
        assert all(
            orjson.dumps(task.instruction).decode()[1:-1] in text or task.instruction in text for task in asking.shown
        )


def test_too_few_seeds_of_a_kind_are_filled_up() -> None:
    seeds = [Task(f"Label {n}", is_classification=True) for n in range(2)] + [Task(f"Write {n}") for n in range(9)]
    asking = Job(0, 0, seeds, [])
    shown = Steering(settings(classification_share=1)).demonstrate(asking, 8, machine_made=2, stage="instructions")
    assert len({task.instruction for task in shown}) == 8
    assert {"Label 0", "Label 1"} <= {task.instruction for task in shown}
    assert asking.shown == shown


class StructuredEngine(ScriptedEngine):
    """The scripted engine, which obeys schemas and choices and tears some of its JSON."""

    def _answer(self, request: Request) -> Completion:
        completed = super()._answer(request)
        stream = random.Random(f"{request.sampling.seed}|{request.key}")
        sampling = request.sampling
        text, reason = completed.text, FinishReason.STOP
        if sampling.choice:
            text = stream.choice(sampling.choice)
        elif sampling.json_schema:
            text = orjson.dumps(self._value(orjson.loads(sampling.json_schema), request, stream)).decode()
            if stream.random() < 0.2:
                text, reason = text[: stream.randrange(len(text))], FinishReason.LENGTH
        else:
            return completed
        return Completion(request.key, text, reason, completed.prompt_tokens, completed.completion_tokens)

    def _value(self, schema: dict[str, object], request: Request, stream: random.Random) -> object:
        if schema["type"] == "array":
            count = stream.randint(int(str(schema["minItems"])), int(str(schema["maxItems"])))
            return [self._value(dict(schema["items"]), request, stream) for _ in range(count)]  # type: ignore[call-overload]
        value = {}
        for name in list(schema["properties"]):  # type: ignore[call-overload]
            key = RequestKey(0, "instructions", 0) if name == "instruction" else RequestKey(0, "instance", 0)
            sampling = orjson.dumps(stream.random()).decode()
            written = answer(Request(key, sampling, request.sampling)).text.strip()
            value[name] = written.splitlines()[0]
        return value


@pytest.mark.parametrize("prompt_format", ["completion", "chat"])
@pytest.mark.parametrize(
    ("profile", "structured", "most"),
    [
        ("alpaca", False, 1),
        ("alpaca", True, 1),
        ("self-instruct", False, 1),
        ("self-instruct", True, 1),
        ("self-instruct", True, 3),
    ],
)
def test_runs_in_every_format_are_reproducible(
    tmp_path: Path,
    profile: str,
    prompt_format: str,
    structured: bool,  # noqa: FBT001
    most: int,
) -> None:
    flags = {"prompt_format": prompt_format, "structured": structured, "instances_per_task": most}
    steering = {"topics": ["rivers", "bridges"], "classification_share": 0.5}
    chosen = load_settings(
        GenerateSettings, None, {"num": 25, "window": 8, "patience": 30, "profile": profile, **flags, **steering}
    )
    pools = set()
    for order in range(3):
        outcome = generate(tmp_path / str(order), chosen, StructuredEngine(in_flight=1 + order, order=order))
        assert outcome.reason == "done"
        pools.add(pool(tmp_path / str(order)))
    assert len(pools) == 1
    assert len(orjson.loads(pools.pop())) >= 25
