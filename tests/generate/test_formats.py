"""What profile alpaca asks in each format, and runs in all of them; for self-instruct see test_self_instruct.py."""

import random
import re
from collections.abc import Sequence
from pathlib import Path
from string import Template

import orjson
import pytest

from selfinstruct_local.config.loading import load_settings
from selfinstruct_local.engines import Completion, FinishReason, Request, RequestKey
from selfinstruct_local.generate.job import Job, ParsedTask
from selfinstruct_local.generate.parsing.json_tasks import parse_task_objects
from selfinstruct_local.generate.profiles.registry import PROFILES, make_profile
from selfinstruct_local.generate.settings import ENGLISH_ONLY, GenerateSettings
from selfinstruct_local.generate.wording import WORDINGS
from selfinstruct_local.io.reader import read_tasks
from selfinstruct_local.languages.base import Language
from selfinstruct_local.seeds import seed_file
from selfinstruct_local.task import Instance, Task
from tests.generate.test_run import generate, pool
from tests.scripted_engine import ScriptedEngine, answer

PROMPTS = Path(__file__).parents[2] / "prompts"
LANGUAGES: tuple[Language, ...] = ("en", "zh")


def settings(lang: Language = "en", **flags: object) -> GenerateSettings:
    return load_settings(GenerateSettings, None, {"lang": lang, "rules": "none", "profile": "alpaca", **flags})


def completion(text: str, reason: FinishReason = FinishReason.STOP) -> Completion:
    return Completion(RequestKey(0, "tasks", 0), text, reason, 10, 10)


def job(lang: Language = "en", number: int = 0) -> Job:
    seeds = read_tasks(seed_file(lang))
    return Job(number, 0, seeds, [Task("Machine made", id=f"gen-{n}") for n in range(20)])


def rounds(
    chosen: GenerateSettings, answers: Sequence[Sequence[str]] = ()
) -> tuple[list[list[Request]], list[ParsedTask]]:
    """The requests of job 0, round by round, and what it made of the answers to them."""
    steps = make_profile(chosen).steps(job(chosen.lang))
    asked = [next(steps)]
    try:
        for texts in answers:
            asked.append(steps.send([completion(text) for text in texts]))  # noqa: PERF401 - ended by StopIteration
    except StopIteration as finished:
        return asked, finished.value
    return asked, []


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


@pytest.mark.parametrize("lang", LANGUAGES)
def test_a_chat_says_what_the_completion_prompt_says(lang: Language) -> None:
    words = WORDINGS[lang]
    ((before,),), _ = rounds(settings(lang))
    ((after,),), _ = rounds(settings(lang, prompt_format="chat"))
    (turn,) = after.turns
    assert (turn.role, after.role, after.key, after.sampling) == ("user", "assistant", before.key, before.sampling)
    assert after.prompt == f"{words.heading(4)}\n{words.mark(words.instruction)}"
    head = before.prompt.removesuffix(after.prompt).rstrip()
    assert turn.content.startswith(head)
    assert turn.content.removeprefix(head).strip()  # somebody has to ask for more
    assert turn.content == turn.content.strip()


@pytest.mark.parametrize("prompt_format", ["completion", "chat"])
@pytest.mark.parametrize("profile", PROFILES)
def test_with_fewer_seeds_than_a_prompt_shows_all_are_shown(profile: str, prompt_format: str) -> None:
    seeds = [
        Task(f"Name {count} seas", (Instance("", f"{count} seas"),), number == 0)
        for number, count in enumerate(("two", "four"))
    ]
    flags: dict[str, object] = {} if profile in ENGLISH_ONLY else {"prompt_format": prompt_format}
    asking = Job(0, 0, seeds, [])
    request, *_ = next(make_profile(settings("en", profile=profile, **flags)).steps(asking))
    text = "\n".join([*(turn.content for turn in request.turns), request.prompt])
    if profile == "magpie":  # shows the first words of some
        assert set(asking.shown) <= set(seeds)
        return
    assert sorted(asking.shown) == sorted(seeds)
    assert all(text.count(seed.instruction) == 1 for seed in seeds)
    if request.turns and profile == "self-instruct":
        assert [turn.role for turn in request.turns] == ["system", "user", "assistant", "user", "assistant"]
    else:
        assert re.search(r"\n(?:### Task 3\nInstruction:|3\.).*$", text)


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
    assert drafts == [ParsedTask(Task.single("Sort", "b, a", "a, b"))]


def test_schemas_are_ones_that_the_decoder_takes() -> None:
    xgrammar = pytest.importorskip("xgrammar")
    testing = pytest.importorskip("xgrammar.testing")
    tasks = [Task.single('Say "hi"', "", 'a\n"b" \\ {c}'), Task.single("排序", "二 一", "一 二")]
    for lang in LANGUAGES:
        ((whole,),), _ = rounds(settings(lang, structured=True, tasks_per_prompt=2))
        array = [{"instruction": task.instruction, "input": task.input, "output": task.output} for task in tasks]
        grammar = xgrammar.Grammar.from_json_schema(whole.sampling.json_schema)
        text = orjson.dumps(array).decode()
        assert testing._is_grammar_accept_string(grammar, text)
        assert not testing._is_grammar_accept_string(grammar, text.replace("input", "other"))
        assert all(not draft.rule for draft in parse_task_objects(completion(text)))


@pytest.mark.parametrize("lang", LANGUAGES)
@pytest.mark.parametrize("prompt_format", ["completion", "chat"])
@pytest.mark.parametrize("structured", [False, True])
@pytest.mark.parametrize("share", [0, 1])
def test_steered_prompts_show_and_ask_for_the_kind(
    lang: Language,
    prompt_format: str,
    structured: bool,  # noqa: FBT001
    share: int,
) -> None:
    words = WORDINGS[lang]
    chosen = settings(
        lang, prompt_format=prompt_format, classification_share=share, topics=["$x {y}"], structured=structured
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


class StructuredEngine(ScriptedEngine):
    """The scripted engine, which obeys schemas and choices and tears some of its JSON."""

    def _answer(self, request: Request) -> Completion:
        completed = super()._answer(request)
        stream = random.Random(f"{request.sampling.seed}|{request.key}")
        sampling = request.sampling
        text, reason = completed.text, FinishReason.STOP
        if sampling.choice:
            text = random.Random(str(sorted(sampling.choice))).choice(sampling.choice)  # in either order of the labels
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
            key = RequestKey(0, "question" if name == "instruction" else "answer", 0)
            sampling = orjson.dumps(stream.random()).decode()
            written = answer(Request(key, sampling, request.sampling)).text.strip()
            value[name] = written
        return value


@pytest.mark.parametrize("prompt_format", ["completion", "chat"])
@pytest.mark.parametrize(("profile", "structured"), [("alpaca", False), ("alpaca", True), ("self-instruct", False)])
def test_runs_in_every_format_are_reproducible(
    tmp_path: Path,
    profile: str,
    prompt_format: str,
    structured: bool,  # noqa: FBT001
) -> None:
    flags = {"prompt_format": prompt_format, "structured": structured}
    steering = {"topics": ["rivers", "bridges"], "classification_share": 0.5}
    chosen = load_settings(
        GenerateSettings, None, {"num": 15, "window": 8, "patience": 400, "profile": profile, **flags, **steering}
    )
    pools = set()
    for order in range(3):
        outcome = generate(tmp_path / str(order), chosen, StructuredEngine(in_flight=1 + order, order=order))
        assert outcome.reason == "done"
        pools.add(pool(tmp_path / str(order)))
    assert len(pools) == 1
    assert len(orjson.loads(pools.pop())) >= 15
