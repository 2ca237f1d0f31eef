"""Profile magpie in the real loop and store, against an engine that plays the user and answers."""

import random
import re
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import orjson
import pytest

from selfinstruct_local.config.loading import load_settings
from selfinstruct_local.engines import Completion, FinishReason, Request, RequestKey
from selfinstruct_local.errors import EngineDeadError
from selfinstruct_local.generate.create import open_run
from selfinstruct_local.generate.display import RunDisplay
from selfinstruct_local.generate.job import Job, ParsedTask
from selfinstruct_local.generate.parsing.questions import read_question
from selfinstruct_local.generate.profiles.magpie import QUESTION_SHARE, MagpieProfile
from selfinstruct_local.generate.profiles.paragraph import PARAGRAPH, SENTENCES, needs_lines
from selfinstruct_local.generate.profiles.steering import OPENING_CHARACTERS, OPENING_WORDS
from selfinstruct_local.generate.run import EXPORT, Outcome, run
from selfinstruct_local.generate.settings import GenerateSettings
from selfinstruct_local.io.interrupt import Interrupt
from selfinstruct_local.io.progress import stderr_console
from selfinstruct_local.io.reader import read_tasks
from selfinstruct_local.prompts import load_prompt
from selfinstruct_local.runs.store import RunStore
from selfinstruct_local.seeds import seed_file
from selfinstruct_local.task import Task
from tests.generate.test_run import MODEL
from tests.scripted_engine import PLACES, THINGS, VERBS, ScriptedEngine

ANSWER = "Of all there are, these come first."


class TalkingEngine(ScriptedEngine):
    """Writes turns of users, some with an input, some unfit, torn or unsure, and answers them."""

    def _answer(self, request: Request) -> Completion:
        self.answered += 1
        return talk(request)


def talk(request: Request) -> Completion:
    stream = random.Random(f"{request.sampling.seed}|{request.prompt}|{request.turns}")
    reason, confidence = FinishReason.STOP, stream.uniform(-1.2, -0.2)
    if request.role == "user":
        places = " and ".join(stream.sample(PLACES, 3))
        text = f" {stream.choice(VERBS).lower()} the {stream.choice(THINGS)} of {places}"
        kind = stream.random()
        if kind < 0.1:
            text += "\n\n3, 1, 2"
        elif kind < 0.2:
            confidence = -3.0
        elif kind < 0.3:
            text += " and draw a map"
        elif kind < 0.35:
            text += "\x00"
        elif kind < 0.4:
            reason = FinishReason.LENGTH
    else:
        text = f"{ANSWER} {stream.choice(PLACES)}, {stream.randrange(10_000)}."
        kind = stream.random()
        if kind < 0.05:
            text += "\x1b"
        elif kind < 0.15:
            text = "They are as follows:"
    return Completion(request.key, text, reason, 5, 7, None, confidence)


def settings(**flags: object) -> GenerateSettings:
    limits = {"min_confidence": -1.4, "min_output_confidence": -1.4, "threshold": 0.8}
    flags = {"profile": "magpie", "num": 40, "window": 6, "patience": 60, **limits, **flags}
    return load_settings(GenerateSettings, None, flags)


def generate(folder: Path, chosen: GenerateSettings, engine: ScriptedEngine) -> Outcome:
    with RunStore(folder) as store:
        seeds = open_run(store, chosen, MODEL, [seed_file(chosen.lang)])
        display = RunDisplay(stderr_console(), store.totals(), chosen.num)
        return run(store, chosen, seeds, lambda: engine, display, Interrupt())


def work_through(
    job: Job, chosen: GenerateSettings, questions: Iterable[str], answers: dict[int, Completion] | None = None
) -> tuple[list[list[Request]], list[ParsedTask]]:
    """One job without a run: the rounds of requests, and the drafts."""
    steps = MagpieProfile(chosen).steps(job)
    rounds = [next(steps)]
    completions = [done(request.key, text) for request, text in zip(rounds[0], questions, strict=True)]
    while True:
        try:
            rounds.append(steps.send(completions))
        except StopIteration as finished:
            return rounds, finished.value
        completions = [(answers or {}).get(each.key.branch) or done(each.key, ANSWER) for each in rounds[-1]]


def done(
    key: RequestKey, text: str, confidence: float | None = None, reason: FinishReason = FinishReason.STOP
) -> Completion:
    return Completion(key, text, reason, 3, 4, None, confidence)


def seeds(lang: str = "en") -> list[Task]:
    return read_tasks(seed_file(lang))


GOOD = [
    " name the longest river of Africa",
    " tell why the sky is blue",
    " say who wrote Faust",
    " find a long word for a short one",
]


# --- openings -------------------------------------------------------------------------------------------------------


OPENINGS = frozenset(load_prompt("magpie_openings").substitute().splitlines())


@pytest.mark.parametrize("lang", ["en", "zh"])
def test_openings_are_many_and_no_whole_question(lang: str) -> None:
    lines = load_prompt("magpie_openings" if lang == "en" else "magpie_openings_zh").substitute().splitlines()
    assert len(set(lines)) == len(lines) >= 30
    assert all(line == line.strip() and line and line[-1] not in ".?!。？！" for line in lines)
    assert not any(needs_lines(line) for line in lines)


def test_turns_begin_as_many_questions_pool_tasks_and_seeds_do(tmp_path: Path) -> None:
    engine = TalkingEngine()
    generate(tmp_path, settings(num=80), engine)
    openings = [request.prompt for request in engine.asked if request.role == "user"]
    begun = [opening for opening in openings if opening]
    assert 0.6 < len(begun) / len(openings) < 0.95
    assert len(OPENINGS & set(begun)) > 20
    begun = [opening for opening in begun if opening not in OPENINGS]
    assert all(len(opening.split()) <= OPENING_WORDS and opening == opening.strip() for opening in begun)
    with RunStore(tmp_path, read_only=True) as store:
        of_seeds = {" ".join(task.instruction.split()[:OPENING_WORDS]) for task in store.seeds()}
        of_pool = {" ".join(task.instruction.split()[:OPENING_WORDS]) for task in store.accepted()}
    assert set(begun) <= of_seeds | of_pool
    assert set(begun) & of_seeds
    assert set(begun) & (of_pool - of_seeds)
    # What was begun is a part of the task.
    question = next(request for request in engine.asked if request.prompt and request.role == "user")
    assert read_question(talk(question), question.prompt).task.instruction.startswith(question.prompt)


def test_who_lent_the_first_words_stands_in_the_lineage(tmp_path: Path) -> None:
    engine = TalkingEngine()
    generate(tmp_path, settings(), engine)
    openings: dict[int, list[str]] = {}
    for request in sorted(engine.asked, key=lambda request: request.key):
        if request.role == "user":
            openings.setdefault(request.key.job, []).append(request.prompt)
    with RunStore(tmp_path, read_only=True) as store:
        accepted = list(store.accepted())
        known = {task.id: task for task in [*store.seeds(), *accepted]}
    shown = 0
    for task in accepted:
        assert task.lineage is not None
        assert task.lineage.profile == "magpie"
        lent = [" ".join(known[name].instruction.split()[:OPENING_WORDS]) for name in task.lineage.demonstrations]
        begun = Counter(opening for opening in openings[task.lineage.job] if opening)
        assert Counter(lent) <= begun
        assert set(begun - Counter(lent)) <= OPENINGS
        shown += len(lent)
    assert shown


def test_chinese_turns_begin_with_characters() -> None:
    pool = tuple(seeds("zh")[:20])
    job = Job(3, 0, seeds("zh"), pool)
    rounds, drafts = work_through(job, settings(lang="zh", tasks_per_prompt=8), ["介绍长江的三个支流"] * 8)
    template = load_prompt("magpie_openings_zh").substitute().splitlines()
    openings = [request.prompt for request in rounds[0] if request.prompt and request.prompt not in template]
    assert openings == [task.instruction[:OPENING_CHARACTERS] for task in job.shown]
    assert openings
    assert "人工智能" in rounds[0][0].turns[0].content
    assert drafts[0].task.instruction.endswith("介绍长江的三个支流")


# --- turns ----------------------------------------------------------------------------------------------------------


def test_the_topic_stands_in_the_system_turn() -> None:
    job = Job(0, 0, seeds(), ())
    (questions, answers), _ = work_through(job, settings(topics=["deep  sea fish"]), GOOD)
    assert all(request.role == "user" for request in questions)
    assert all([turn.role for turn in request.turns] == ["system"] for request in questions)
    assert all(request.turns[0].content.endswith("topic: deep sea fish") for request in questions)
    assert not any("deep sea" in turn.content for request in answers for turn in request.turns)
    (questions, _), _ = work_through(Job(0, 0, seeds(), ()), settings(), GOOD)
    assert not any("topic" in request.turns[0].content for request in questions)


def test_a_turn_is_read_into_instruction_and_input() -> None:
    key = RequestKey(0, "question", 0)
    draft = read_question(done(key, " numbers from low to high:\n\n3, 1, 2\n5\n", confidence=-0.5), "Sort the")
    assert draft == ParsedTask(
        Task.single("Sort the numbers from low to high", "3, 1, 2\n5", "")._replace(measures={"confidence": -0.5})
    )
    assert read_question(done(key, "Help  me")).task == Task.single("Help me")
    assert read_question(done(key, " \n ")).rule == "malformed"
    assert read_question(done(key, ":\nwhat then")).rule == "malformed"
    torn = read_question(done(key, " numbers", reason=FinishReason.LENGTH), "Sort the")
    assert (torn.rule, torn.task.instances) == ("truncated", ())
    unfit = read_question(done(key, "Sort \ud800 numbers\n\x07"))
    assert unfit.rule == "malformed"
    assert unfit.task == Task.single("Sort \ufffd numbers", "\ufffd")


def test_the_answer_is_asked_for_with_instruction_and_input() -> None:
    job = Job(0, 0, seeds(), ())
    asked = [*GOOD[:3], " sort the numbers in rising order\n\n3, 1, 2"]
    (questions, answers), drafts = work_through(job, settings(), asked)
    assert [request.role for request in answers] == ["assistant"] * 4
    assert [request.key.branch for request in answers] == [0, 1, 2, 3]
    assert all([turn.role for turn in request.turns] == ["system", "user"] for request in answers)
    assert all(request.prompt == "" for request in answers)
    whole = f"{questions[3].prompt}{asked[3]}".strip()
    assert answers[3].turns[1].content == whole
    assert drafts[3].task.instances[0] == ("3, 1, 2", ANSWER)
    assert all(not draft.rule for draft in drafts)


@pytest.mark.parametrize(("answers", "regex"), [("short", PARAGRAPH), ("full", "")])
def test_short_and_full_answers(answers: str, regex: str) -> None:
    chosen = settings(answers=answers)
    (questions, asked), _ = work_through(Job(0, 0, seeds(), ()), chosen, GOOD)
    assert {request.sampling.regex for request in asked} == {regex}
    assert {request.sampling.stop for request in [*questions, *asked]} == {()}
    assert {request.sampling.temperature for request in asked} == {0.0}
    assert {request.sampling.max_tokens for request in asked} == {chosen.max_tokens}
    assert {request.sampling.max_tokens for request in questions} == {chosen.max_tokens // QUESTION_SHARE}
    assert {request.sampling.temperature for request in questions} == {chosen.temperature}
    assert ("one paragraph" in asked[0].turns[0].content) == (answers == "short")
    assert ("short_answer" if answers == "short" else "answer") in MagpieProfile(chosen).prompts


@pytest.mark.parametrize(("answers", "lang", "penalty"), [("short", "en", 1.0), ("full", "en", 0), ("short", "zh", 0)])
def test_a_short_english_answer_is_kept_from_saying_the_same_again(answers: str, lang: str, penalty: float) -> None:
    chosen = settings(answers=answers, lang=lang)
    turns = [" 怎样才能睡得更好？", " 为什么秋天的叶子会变黄？", " 请说明如何泡茶。", " 有什么办法可以早起？"]
    (questions, asked), _ = work_through(Job(0, 0, seeds(), ()), chosen, turns if lang == "zh" else GOOD)
    assert {request.sampling.presence_penalty for request in asked} == {penalty}
    assert {request.sampling.presence_penalty for request in questions} == {0}


# --- rules ----------------------------------------------------------------------------------------------------------


def test_what_the_rules_refuse_is_not_answered() -> None:
    job = Job(1, 0, seeds(), ())
    asked = [GOOD[0], " draw a map of the island, please", "\x00 say it with words", " " + "why " * 200]
    (_, answers), drafts = work_through(job, settings(), asked)
    assert [request.key.branch for request in answers] == [0]
    assert [draft.rule for draft in drafts] == ["", "unsuitable_word", "malformed", "too_long"]
    rounds, drafts = work_through(Job(1, 0, seeds(), ()), settings(), [" draw a map of it, please"] * 4)
    assert len(rounds) == 1
    assert {draft.rule for draft in drafts} == {"unsuitable_word"}


def test_an_answer_that_will_not_do_is_refused_and_not_raised() -> None:
    key = RequestKey(0, "answer", 0)
    bad = {
        0: done(key, "Yes.\x00"),
        1: done(key, "A long ans", reason=FinishReason.LENGTH),
        2: done(key, "\ud800"),
        3: done(key, "", reason=FinishReason.REFUSED),
    }
    _, drafts = work_through(Job(0, 0, seeds(), ()), settings(), GOOD, bad)
    assert [draft.rule for draft in drafts] == ["malformed", "truncated", "malformed", "truncated"]
    assert drafts[0].task.output == "Yes.\ufffd"


def test_a_short_answer_is_one_paragraph_that_ends_with_a_sentence() -> None:
    fits = re.compile(PARAGRAPH)
    for text in (
        "Paris",
        "It is 3.5 km.",
        'She said "Go!" and left. He stayed.',
        "天黑了。我们回家吧！",
        "No. " * 5 + "No.",
        "Wait... What?!",
    ):
        assert fits.fullmatch(text), text
    for text in ("", "Two\nlines.", "It is done. And so", "No. " * SENTENCES + "No.", "1.””””", "So....."):
        assert not fits.fullmatch(text), text


@pytest.mark.parametrize("answers", ["short", "full"])
def test_what_no_paragraph_holds_is_asked_for_in_full_alone(answers: str) -> None:
    turns = [" write a Python function.", " give me a list of three birds.", *GOOD[2:]]
    numbered = {2: done(RequestKey(0, "answer", 2), "You need these: 1. A map. 2. A lamp.")}
    (_, asked), drafts = work_through(Job(0, 0, seeds(), ()), settings(answers=answers), turns, numbered)
    if answers == "full":
        assert [request.key.branch for request in asked] == [0, 1, 2, 3]
        assert [draft.rule for draft in drafts] == [""] * 4
    else:
        assert [request.key.branch for request in asked] == [2, 3]
        assert [draft.rule for draft in drafts] == ["needs_lines", "needs_lines", "needs_lines", ""]
        assert "'Python'" in drafts[0].detail
        assert "numbered list" in drafts[2].detail


def test_the_stages_of_a_run(tmp_path: Path) -> None:
    engine = TalkingEngine()
    assert generate(tmp_path, settings(num=80), engine).reason == "done"
    asked = {request.key: request for request in engine.asked}
    with RunStore(tmp_path, read_only=True) as store:
        rejected = store.totals().rejected
        decided = [each.decided for each in store.ledger()]
    assert {"unsuitable_word", "low_confidence", "malformed", "truncated", "cut_off"} <= set(rejected)
    for job in decided:
        for branch, candidate in enumerate(job.candidates):
            answered = (job.number, "answer", branch) in asked
            rule = candidate.verdict.rule
            if candidate.verdict.keep:
                assert answered
            if rule in {"unsuitable_word", "low_confidence"}:
                assert not answered
            # The ledger tells how sure the engine was of the turn it wrote, and of its answer.
            measures = candidate.task.measures or {}
            if rule not in {"malformed", "truncated"}:
                completion = talk(asked[RequestKey(job.number, "question", branch)])
                assert measures["confidence"] == completion.confidence
                assert (measures["confidence"] < -2) == (rule == "low_confidence")
            if candidate.verdict.keep:
                assert {"confidence", "output_confidence"} <= set(measures)


def test_without_a_floor_nothing_is_unsure(tmp_path: Path) -> None:
    generate(tmp_path, settings(min_confidence=-9.0), TalkingEngine())
    with RunStore(tmp_path, read_only=True) as store:
        assert "low_confidence" not in store.totals().rejected
        assert any((task.measures or {})["confidence"] == -3.0 for task in store.accepted())


def test_an_engine_that_does_not_tell_how_sure_it_was(tmp_path: Path) -> None:
    class Silent(TalkingEngine):
        def _answer(self, request: Request) -> Completion:
            told = super()._answer(request)
            return done(told.key, told.text, reason=told.finish_reason)

    generate(tmp_path, settings(), Silent())
    with RunStore(tmp_path, read_only=True) as store:
        assert {task.measures for task in store.accepted()} == {None}


# --- classification -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_a_share_of_classification_draws_from_such_seeds(share: float) -> None:
    for number in range(20):
        job = Job(number, 0, seeds(), [Task.single("Never show this one", "", "No.")])
        (questions, _), _ = work_through(job, settings(classification_share=share), GOOD)
        assert all(request.prompt for request in questions)
        assert len(job.shown) == len(questions)
        assert {bool(task.is_classification) for task in job.shown} == {share == 1}


# --- the same pool --------------------------------------------------------------------------------------------------


def test_the_pool_does_not_depend_on_the_order_of_completions(tmp_path: Path) -> None:
    pools = set()
    for order in range(6):
        folder = tmp_path / str(order)
        assert generate(folder, settings(), TalkingEngine(in_flight=1 + 2 * order, order=order)).reason == "done"
        pools.add((folder / EXPORT).read_bytes())
    (pool,) = pools
    assert len(orjson.loads(pool)) >= 40


def test_a_run_that_dies_again_and_again_ends_with_the_same_pool(tmp_path: Path) -> None:
    generate(tmp_path / "straight", settings(), TalkingEngine())
    deaths = 0
    for attempt in range(300):
        engine = TalkingEngine(in_flight=1 + attempt % 5, order=attempt, die_after=7)
        try:
            generate(tmp_path / "killed", settings(), engine)
            break
        except EngineDeadError:
            deaths += 1
    assert deaths > 10
    assert (tmp_path / "killed" / EXPORT).read_bytes() == (tmp_path / "straight" / EXPORT).read_bytes()
    ledgers = []
    for name in ("straight", "killed"):
        with RunStore(tmp_path / name, read_only=True) as store:
            ledgers.append([each.decided for each in store.ledger()])
    assert ledgers[0] == ledgers[1]
