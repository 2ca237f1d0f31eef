"""The judge over the profiles: what it asks, what it notes, and what is refused for it."""

import random
from pathlib import Path

import orjson
import pytest

from selfinstruct_local.config.loading import load_settings
from selfinstruct_local.engines import Completion, FinishReason, Request, RequestKey
from selfinstruct_local.filters.rules import apply_rules
from selfinstruct_local.filters.rulesets import rule_set
from selfinstruct_local.generate.job import Job, ParsedTask, Steps
from selfinstruct_local.generate.profiles.judge import CRITERIA, JudgedProfile, read_points
from selfinstruct_local.generate.profiles.registry import make_profile
from selfinstruct_local.generate.run import EXPORT
from selfinstruct_local.generate.settings import GenerateSettings
from selfinstruct_local.languages.base import Language
from selfinstruct_local.runs.store import RunStore
from selfinstruct_local.task import Instance, Task
from tests.generate.test_magpie import talk
from tests.generate.test_run import generate
from tests.scripted_engine import ScriptedEngine, answer

NAMES = [f"judge.{name}" for name in CRITERIA["en"]]
GOOD = Task.single("Name three long rivers of Africa.", "", "The Nile, the Congo and the Niger.")
LABEL = Task("Say whether it is good or bad", (Instance("I love it.", "Good"),))


class JudgingEngine(ScriptedEngine):
    """Gives points as well, mostly good ones, and now and then no digit."""

    def _answer(self, request: Request) -> Completion:
        self.answered += 1
        if request.key.stage != "judge":
            return talk(request) if request.turns else answer(request)
        stream = random.Random(f"{request.sampling.seed}|{request.prompt}")
        text = stream.choice([*request.sampling.choice[2:], *request.sampling.choice[3:], request.sampling.choice[0]])
        return Completion(request.key, "?" if stream.random() < 0.1 else text, FinishReason.STOP, 9, 1)


class Fixed:
    """A profile that makes the same drafts in every job, without asking."""

    name = "fixed"
    demonstrations = 0
    shows_whole_tasks = False
    prompts: tuple[str, ...] = ()

    def __init__(self, *drafts: ParsedTask) -> None:
        self._drafts = drafts

    def steps(self, job: Job) -> Steps:  # noqa: ARG002 - a profile's signature
        yield from ()
        return list(self._drafts)


def settings(**flags: object) -> GenerateSettings:
    flags = {"num": 25, "window": 6, "patience": 60, "judge": True, "threshold": 0.8, **flags}
    return load_settings(GenerateSettings, None, flags)


def judge(chosen: GenerateSettings, *drafts: ParsedTask) -> tuple[list[Request], Steps]:
    steps = JudgedProfile(Fixed(*drafts), chosen).steps(Job(0, 0, (), ()))
    return next(steps), steps


def judged(chosen: GenerateSettings, draft: ParsedTask, points: list[str]) -> ParsedTask:
    requests, steps = judge(chosen, draft)
    completions = [
        Completion(request.key, text, FinishReason.STOP, 1, 1) for request, text in zip(requests, points, strict=True)
    ]
    with pytest.raises(StopIteration) as finished:
        steps.send(completions)
    (told,) = finished.value.value
    assert isinstance(told, ParsedTask)
    return told


def test_points_become_measures() -> None:
    draft = judged(settings(), ParsedTask(GOOD), ["5", " 4", "3\n"])
    assert draft == ParsedTask(GOOD._replace(measures=dict(zip(NAMES, (5.0, 4.0, 3.0), strict=True))))
    sure = GOOD._replace(measures={"confidence": -0.5})
    assert judged(settings(), ParsedTask(sure), ["5", "4", "3"]).task.measures == {
        "confidence": -0.5,
        **dict(zip(NAMES, (5.0, 4.0, 3.0), strict=True)),
    }


@pytest.mark.parametrize("text", ["", "?", "6", "0", "4.5", "five", "3 of 5", "\uff15"])
def test_points_that_cannot_be_read_leave_no_measure(text: str) -> None:
    assert read_points(Completion(RequestKey(0, "judge", 0), text, FinishReason.STOP, 1, 1)) is None
    assert judged(settings(), ParsedTask(GOOD), ["5", text, "2"]).task.measures == {NAMES[0]: 5.0, NAMES[2]: 2.0}


def test_too_few_points_are_refused() -> None:
    chosen = settings(min_judge=3)
    rules = rule_set(chosen.rules, "en", chosen.thresholds())
    low = apply_rules(rules, judged(chosen, ParsedTask(GOOD), ["5", "2", "5"]).task)
    assert (low.rule, low.detail) == ("judged_low", "2 points for correct, at least 3 wanted")
    assert apply_rules(rules, judged(chosen, ParsedTask(GOOD), ["3", "3", "3"]).task).keep
    assert apply_rules(rules, judged(chosen, ParsedTask(GOOD), ["?", "?", "?"]).task).keep


@pytest.mark.parametrize("lang", ["en", "zh"])
def test_a_completion_goes_on_after_the_question(lang: Language) -> None:
    task = GOOD if lang == "en" else Task.single("说出非洲最长的三条河流。", "", "尼罗河、刚果河和尼日尔河。")
    requests, _ = judge(settings(lang=lang, prompt_format="completion"), ParsedTask(task))
    assert [request.key for request in requests] == [(0, "judge", number) for number in range(3)]
    space = " " if lang == "en" else ""
    for request, question in zip(requests, CRITERIA[lang].values(), strict=True):
        assert request.turns == ()
        assert task.instruction in request.prompt
        assert task.output in request.prompt
        assert question in request.prompt
        assert request.prompt == request.prompt.rstrip()
        assert request.sampling.choice == tuple(f"{space}{points}" for points in range(1, 6))
        assert request.sampling.temperature == 0


def test_in_a_chat_it_is_the_users_turn() -> None:
    requests, _ = judge(settings(prompt_format="chat"), ParsedTask(LABEL), ParsedTask(GOOD))
    assert [request.key.branch for request in requests] == list(range(6))
    for request, task in zip(requests, [LABEL] * 3 + [GOOD] * 3, strict=True):
        (turn,) = request.turns
        assert (turn.role, request.role, request.prompt) == ("user", "assistant", "")
        assert f"Instruction: {task.instruction}\nInput: {task.input or 'none'}\nOutput: {task.output}" in turn.content
        assert request.sampling.choice == tuple("12345")


def test_what_is_refused_is_not_judged() -> None:
    short = Task.single("Name rivers", "", "The Nile.")
    drafts = [
        ParsedTask(short),
        ParsedTask(GOOD, "malformed", "torn"),
        ParsedTask(Task(GOOD.instruction)),
        ParsedTask(GOOD),
    ]
    requests, _ = judge(settings(), *drafts)
    assert {request.key.branch // 3 for request in requests} == {3}
    steps = JudgedProfile(Fixed(*drafts[:3]), settings()).steps(Job(0, 0, (), ()))
    with pytest.raises(StopIteration) as finished:
        next(steps)
    assert finished.value.value == drafts[:3]


def test_its_prompt_decides_the_run() -> None:
    plain = make_profile(settings(judge=False))
    with_judge = make_profile(settings())
    assert with_judge.prompts == (*plain.prompts, "judge")
    assert (with_judge.name, with_judge.demonstrations) == (plain.name, plain.demonstrations)
    assert with_judge.shows_whole_tasks == plain.shows_whole_tasks


@pytest.mark.parametrize("profile", ["alpaca", "self-instruct", "magpie"])
def test_every_profile_can_be_judged(tmp_path: Path, profile: str) -> None:
    limits = {"min_confidence": None, "min_output_confidence": -2.0}
    chosen = settings(profile=profile, **(limits if profile == "magpie" else {}))
    engine = JudgingEngine()
    assert generate(tmp_path / "a", chosen, engine).reason == "done"
    asked = {request.key for request in engine.asked}
    judged_low = 0
    with RunStore(tmp_path / "a", read_only=True) as store:
        for each in store.ledger():
            for position, candidate in enumerate(each.decided.candidates):
                points = {
                    name: value for name, value in (candidate.task.measures or {}).items() if name.startswith("judge.")
                }
                assert set(points) <= set(NAMES)
                rule = candidate.verdict.rule
                was_judged = (each.decided.number, "judge", 3 * position) in asked
                # What only the decision can see, an echo or a near copy, is refused after the judge.
                if rule not in {"", "judged_low", "prompt_echo", "not_novel"}:
                    assert not was_judged
                if rule in {"", "judged_low"}:
                    assert was_judged
                if rule == "judged_low":
                    judged_low += 1
                    assert min(points.values()) < chosen.min_judge
                if candidate.verdict.keep:
                    assert all(value >= chosen.min_judge for value in points.values())
        assert judged_low
        # Where points could not be read there is none; all others are noted.
        counts = {sum(name in NAMES for name in task.measures or ()) for task in store.accepted()}
    assert 3 in counts
    assert orjson.loads((tmp_path / "a" / EXPORT).read_bytes())
    generate(tmp_path / "b", chosen, JudgingEngine(in_flight=9, order=5))
    assert (tmp_path / "a" / EXPORT).read_bytes() == (tmp_path / "b" / EXPORT).read_bytes()
