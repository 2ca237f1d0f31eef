"""Profile self-instruct: what it asks in both formats, what it makes of the answers, and what it stores with a task."""

from collections.abc import Callable
from pathlib import Path
from string import Template
from typing import Any, NamedTuple

import pytest

from selfinstruct_local.engines import Completion, FinishReason, Request
from selfinstruct_local.generate.job import Job, ParsedTask
from selfinstruct_local.generate.profiles.answers import PRESENCE_PENALTY
from selfinstruct_local.generate.profiles.paragraph import PARAGRAPH
from selfinstruct_local.generate.profiles.self_instruct import MAX_QUESTION_TOKENS, SelfInstructProfile
from selfinstruct_local.generate.profiles.steering import OPENING_CHARACTERS, Steering
from selfinstruct_local.generate.settings import GenerateSettings
from selfinstruct_local.generate.wording import WORDINGS
from selfinstruct_local.io.reader import read_tasks
from selfinstruct_local.languages.base import Language
from selfinstruct_local.runs.store import RunStore
from selfinstruct_local.seeds import seed_file
from selfinstruct_local.task import Instance, Task
from tests.generate.test_run import generate
from tests.scripted_engine import PLACES, ScriptedEngine

PROMPTS = Path(__file__).parents[2] / "prompts"
LANGUAGES: tuple[Language, ...] = ("en", "zh")
FORMATS = ("completion", "chat")
# What a job is made to ask for, with the two shares that do it.
KINDS: dict[str, tuple[float | None, float | None]] = {
    "any": (None, None),
    "classification": (1, None),
    "input": (0, 1),
    "bare": (0, 0),
}
PLAIN = {
    "en": {"question": "Put the words into the order of the alphabet.", "input": "pear, fig", "answer": "fig, pear"},
    "zh": {"question": "按笔画从少到多给词语排序。", "input": "森、木", "answer": "木、森"},
}
LABELLED = {
    "en": ("Decide whether the reader is pleased or angry.", ("pleased", "angry")),
    "zh": ("判断这句话的语气是积极还是消极。", ("积极", "消极")),
}


def texts_of(lang: Language, kind: str) -> dict[str, str]:
    """What the engine writes in each stage for a task of a kind."""
    if kind != "classification":
        return PLAIN[lang]
    question, labels = LABELLED[lang]
    return {**PLAIN[lang], "question": question, "answer": labels[0]}


class Said(NamedTuple):
    """What the engine writes, and how sure of it it was."""

    text: str
    confidence: float | None = None
    reason: FinishReason = FinishReason.STOP


Write = Callable[[Request], str | Said]


def settings(lang: Language = "en", prompt_format: str = "chat", kind: str = "any", **flags: Any) -> GenerateSettings:
    shares = dict(zip(("classification_share", "input_share"), KINDS[kind], strict=True))
    given = {"lang": lang, "prompt_format": prompt_format, "answers": "full", "tasks_per_prompt": 1, **shares, **flags}
    return GenerateSettings.model_validate(given)


def job(lang: Language = "en", number: int = 0, **more: Any) -> Job:
    pool = [
        Task.single(
            f"Machine made {n}",
            "",
            "m",
        )._replace(id=f"gen-{n}")
        for n in range(20)
    ]
    return Job(number, 0, read_tasks(seed_file(lang)), pool, **more)


def by_stage(texts: dict[str, str]) -> Write:
    """Writes one text per stage, or one of the allowed answers; a base model begins after a space."""
    return lambda request: next(iter(request.sampling.choice), "") or texts[request.key.stage]


def work_through(
    asking: Job, chosen: GenerateSettings, write: Write
) -> tuple[dict[str, list[Request]], list[ParsedTask]]:
    """The requests of one job by their stages, and its drafts."""
    steps = SelfInstructProfile(chosen).steps(asking)
    asked: dict[str, list[Request]] = {}
    completions: list[Completion] | None = None
    while True:
        try:
            requests = steps.send(completions)  # type: ignore[arg-type]  # None begins it
        except StopIteration as finished:
            return asked, finished.value
        completions = []
        for request in requests:
            asked.setdefault(request.key.stage, []).append(request)
            written = write(request)
            said = Said(written) if isinstance(written, str) else written
            completions.append(Completion(request.key, said.text, said.reason, 9, 9, None, said.confidence))


def made_of(lang: Language, question: str, given: str = "", answer: str = "fine", **how: Any) -> ParsedTask:
    """What becomes of one task, in a chat, with the seeds of the run shown."""
    how.setdefault("kind", "input" if given else "bare")
    in_one = given if how["kind"] == "input" else ""
    texts = {"question": f"{question}\n\n{in_one}".strip(), "input": given, "answer": answer}
    seeds = how.pop("seeds", None)
    asking = job(lang) if seeds is None else Job(0, 0, seeds, [])
    _, (draft,) = work_through(asking, settings(lang, **how), by_stage(texts))
    return draft


# --- prompts --------------------------------------------------------------------------------------------------------


def template(name: str) -> Template:
    return Template((PROMPTS / f"{name}.txt").read_text(encoding="utf-8").removesuffix("\n"))


@pytest.mark.parametrize("lang", LANGUAGES)
@pytest.mark.parametrize("kind", KINDS)
def test_a_base_model_continues_a_list_of_whole_tasks_and_nothing_else(lang: Language, kind: str) -> None:
    words, texts = WORDINGS[lang], texts_of(lang, kind)
    asking, chosen = job(lang), settings(lang, "completion", kind)
    asked, (draft,) = work_through(asking, chosen, by_stage(texts))
    blocks = [
        f"{words.heading(number)}\n{words.field(words.instruction, task.instruction)}\n"
        f"{words.field(words.input, task.input)}\n{words.field(words.output, task.output)}"
        for number, task in enumerate(asking.shown, start=1)
    ]
    assert len(blocks) == 3
    blocks += Steering(chosen).requests(asking, words)
    prompt = template(f"self_instruct{words.suffix}").substitute(
        subject=words.other_subject, demonstrations="\n\n".join(blocks), next_number=4
    )
    (question,) = asked["question"]
    assert question.prompt == prompt
    ends = ("\n",) if kind in {"classification", "bare"} else (f"\n{words.mark(words.output)}",)
    assert question.sampling.stop == ends
    given = texts["input"] if kind == "classification" else ""
    assert ("input" in asked) == bool(given)
    if given:
        (request,) = asked["input"]
        assert request.prompt == f"{prompt} {texts['question']}\n{words.mark(words.input)}"
        assert request.sampling.stop == (f"\n{words.mark(words.output)}",)
    (answer,) = asked["answer"]
    field = words.field(words.input, given)
    assert answer.prompt == f"{prompt} {texts['question']}\n{field}\n{words.mark(words.output)}"
    assert answer.sampling.stop == (f"\n### {words.task}",)
    assert not any(each.turns for requests in asked.values() for each in requests)
    classified = kind == "classification"
    assert draft == ParsedTask(
        Task(texts["question"], (Instance(given, texts["answer"]),), is_classification=classified)
    )


@pytest.mark.parametrize("lang", LANGUAGES)
@pytest.mark.parametrize("kind", KINDS)
def test_a_chat_model_continues_a_conversation_of_whole_tasks_and_nothing_else(lang: Language, kind: str) -> None:
    words, texts = WORDINGS[lang], texts_of(lang, kind)
    asking, chosen = job(lang), settings(lang, "chat", kind)
    asked, (draft,) = work_through(asking, chosen, by_stage(texts))
    system = " ".join(
        [
            template(f"self_instruct_user{words.suffix}").substitute(subject=words.other_subject),
            *Steering(chosen).requests(asking, words),
        ]
    )
    turns = [("system", system)]
    for task in asking.shown:
        turns.append(("user", f"{task.instruction}\n\n{task.input}" if task.input else task.instruction))
        turns.append(("assistant", task.output))
    assert len(turns) == 7
    (question,) = asked["question"]
    assert (list(question.turns), question.prompt, question.role) == (turns, "", "user")
    assert question.sampling.stop == (("\n",) if kind in {"classification", "bare"} else ())
    given = texts["input"] if kind == "classification" else ""
    assert ("input" in asked) == bool(given)
    if given:
        (request,) = asked["input"]
        assert (list(request.turns), request.prompt, request.role) == (turns, f"{texts['question']}\n\n", "user")
    # The answer knows nothing of the tasks that were shown.
    (answer,) = asked["answer"]
    said = f"{texts['question']}\n\n{given}" if given else texts["question"]
    assert list(answer.turns) == [("system", template(f"answer{words.suffix}").substitute()), ("user", said)]
    assert (answer.prompt, answer.role) == ("", "assistant")
    classified = kind == "classification"
    assert draft == ParsedTask(
        Task(texts["question"], (Instance(given, texts["answer"]),), is_classification=classified)
    )


@pytest.mark.parametrize("prompt_format", FORMATS)
def test_tasks_of_the_field_of_the_seeds_are_asked_for(prompt_format: str) -> None:
    asked, _ = work_through(job(), settings("en", prompt_format, subject="seeds"), by_stage(PLAIN["en"]))
    request = asked["question"][0]
    said = request.turns[0].content if request.turns else request.prompt
    assert WORDINGS["en"].same_subject in said
    assert WORDINGS["en"].other_subject not in said


@pytest.mark.parametrize("lang", LANGUAGES)
@pytest.mark.parametrize("prompt_format", FORMATS)
def test_topics_are_asked_for_and_are_no_template(lang: Language, prompt_format: str) -> None:
    asked, _ = work_through(job(lang), settings(lang, prompt_format, topics=["$x {y}"]), by_stage(PLAIN[lang]))
    (question,) = asked["question"]
    text = "\n".join([*(turn.content for turn in question.turns), question.prompt])
    assert f"{WORDINGS[lang].about}$x {{y}}\n" in f"{text}\n"


@pytest.mark.parametrize("kind", ["any", "input"])
def test_the_model_writes_the_input_with_the_instruction_where_no_label_is_wanted(kind: str) -> None:
    texts = {"question": "Put the words in order.\n\npear, fig", "answer": "fig, pear"}
    asked, (draft,) = work_through(job(), settings(kind=kind), by_stage(texts))
    assert set(asked) == {"question", "answer"}
    assert draft.task.instances == (("pear, fig", "fig, pear"),)
    texts = {"question": " Put the words in order.\nInput: pear, fig", "answer": " fig, pear"}
    _, (draft,) = work_through(job(), settings(prompt_format="completion"), by_stage(texts))
    assert draft.task.instances == (("pear, fig", "fig, pear"),)


@pytest.mark.parametrize("prompt_format", FORMATS)
def test_requests_are_keyed_by_task_and_drawn_each_from_its_own_seed(prompt_format: str) -> None:
    chosen = settings("en", prompt_format, "classification", tasks_per_prompt=3, answers_per_task=2)
    lines = iter(["Is this town very old?", "Does this river reach the sea?", "Has the word two vowels?"])
    write: Write = lambda request: next(lines) if request.key.stage == "question" else "Ur, Rome"  # noqa: E731
    asked, drafts = work_through(job(number=7), chosen, write)
    assert [list(request.key) for request in asked["question"]] == [[7, "question", branch] for branch in range(3)]
    assert [list(request.key) for request in asked["input"]] == [[7, "input", branch] for branch in range(3)]
    assert [list(request.key) for request in asked["answer"]] == [[7, "answer", branch] for branch in range(6)]
    assert [list(request.key) for request in asked["reversed"]] == [[7, "reversed", branch] for branch in range(3)]
    seeds = [request.sampling.seed for requests in asked.values() for request in requests]
    assert len(set(seeds)) == 15
    assert not any(draft.rule for draft in drafts)


def test_a_classification_of_what_an_instruction_has_in_it_is_asked_no_input() -> None:
    lines = iter(["Is this town very old?", "Is the Moon nearer than the Sun?", 'Is "The sea is blue" true or false?'])
    write: Write = lambda request: next(lines) if request.key.stage == "question" else "Ur, Rome"  # noqa: E731
    asked, drafts = work_through(job(), settings("en", "chat", "classification", tasks_per_prompt=3), write)
    assert [request.key.branch for request in asked["input"]] == [0]
    assert [draft.task.input for draft in drafts] == ["Ur, Rome", "", ""]


def test_a_question_and_its_input_are_short_and_drawn_and_the_answer_is_greedy() -> None:
    chosen = settings("en", "chat", "classification", temperature=0.9, top_p=0.8, max_tokens=700)
    asked, _ = work_through(job(), chosen, by_stage(texts_of("en", "classification")))
    sampling = {stage: requests[0].sampling for stage, requests in asked.items()}
    drawn = {stage: (each.temperature, each.top_p, each.max_tokens) for stage, each in sampling.items()}
    assert drawn == {
        "question": (0.9, 0.8, MAX_QUESTION_TOKENS),
        "input": (0.5, 0.8, MAX_QUESTION_TOKENS),
        "answer": (0.0, 1.0, 700),
        "reversed": (0.0, 1.0, 700),
    }
    assert (sampling["answer"].regex, sampling["answer"].presence_penalty) == ("", 0.0)


# --- short answers --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("lang", LANGUAGES)
@pytest.mark.parametrize("prompt_format", FORMATS)
@pytest.mark.parametrize("kind", KINDS)
def test_with_short_answers_a_turn_begins_as_a_seed_of_the_kind_that_is_not_shown(
    lang: Language, prompt_format: str, kind: str
) -> None:
    for number in range(10):
        asking = job(lang, number)
        chosen = settings(lang, prompt_format, kind, answers="short")
        asked, (draft,) = work_through(asking, chosen, by_stage(PLAIN[lang]))
        wanted = Steering(chosen).kind(asking)
        others = [seed for seed in asking.seeds if wanted.fits(seed) and seed not in asking.shown]
        if lang == "zh":
            begun = {seed.instruction[:OPENING_CHARACTERS] for seed in others}
        else:
            begun = {" ".join(seed.instruction.split()[:2]) for seed in others}
        (question,) = asked["question"]
        opening = next((each for each in begun if question.prompt.endswith(each)), "")
        assert opening
        if prompt_format == "chat":
            assert question.prompt == opening
        assert draft.task.instruction.startswith(opening)


def test_short_answers_are_one_paragraph_and_what_needs_more_is_not_answered() -> None:
    asked, (draft,) = work_through(job(), settings(answers="short"), by_stage({**PLAIN["en"], "question": " it is."}))
    assert draft.rule == ""
    assert asked["answer"][0].sampling.regex == PARAGRAPH
    assert asked["answer"][0].sampling.presence_penalty == PRESENCE_PENALTY
    assert asked["answer"][0].turns[0].content == template("short_answer").substitute()
    asked, (draft,) = work_through(
        job(), settings(answers="short"), by_stage({**PLAIN["en"], "question": " it as a Python function."})
    )
    assert (draft.rule, set(asked)) == ("needs_lines", {"question"})


# --- classification -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("lang", LANGUAGES)
@pytest.mark.parametrize("prompt_format", FORMATS)
@pytest.mark.parametrize("kind", KINDS)
def test_an_answer_is_one_of_the_labels_that_an_instruction_names(
    lang: Language, prompt_format: str, kind: str
) -> None:
    instruction, labels = LABELLED[lang]
    texts = {"question": instruction, "input": PLAIN[lang]["input"]}
    asked, (draft,) = work_through(job(lang), settings(lang, prompt_format, kind, rules="none"), by_stage(texts))
    (answer,) = asked["answer"]
    space = " " if prompt_format == "completion" else ""
    assert answer.sampling.choice == tuple(f"{space}{label}" for label in labels)
    assert (answer.sampling.regex, answer.sampling.presence_penalty) == ("", 0.0)
    assert (draft.rule, draft.task.output, draft.task.is_classification) == ("", labels[0], True)


@pytest.mark.parametrize("lang", LANGUAGES)
@pytest.mark.parametrize("prompt_format", FORMATS)
def test_an_answer_is_yes_or_no_only_where_classification_is_wanted(lang: Language, prompt_format: str) -> None:
    question = "Does this sentence have a verb?" if lang == "en" else "下面这句话里有没有动词，是不是有动词吗？"
    texts = {"question": question, "input": PLAIN[lang]["input"], "answer": "Yes, it does." if lang == "en" else "有。"}
    for kind in KINDS:
        chosen = settings(lang, prompt_format, kind, rules="none")
        asked, (draft,) = work_through(job(lang), chosen, by_stage(texts))
        choice = tuple(label.strip() for label in asked["answer"][0].sampling.choice)
        answers = ("Yes", "No") if lang == "en" else ("是", "否")
        assert choice == (answers if kind == "classification" else ())
        assert draft.task.is_classification is (kind == "classification")


def test_short_labels_are_not_held_to_a_paragraph() -> None:
    seeds = [Task.single("Decide whether he is late or early.", "8 am", "early")._replace(is_classification=True)]
    texts = {"question": " the writer is pleased or angry.", "input": "What a day!"}
    asked, _ = work_through(Job(0, 0, seeds, []), settings(kind="classification", answers="short"), by_stage(texts))
    sampling = asked["answer"][0].sampling
    assert (sampling.choice, sampling.regex, sampling.presence_penalty) == (("pleased", "angry"), "", 0.0)


# --- runs -----------------------------------------------------------------------------------------------------------


JSON, SENTENCES, LABEL = '{"towns": ["Ur", "Uruk"]}', "Ur is old. Uruk is older.", "right"
TASKS = (
    ("Give the names of all towns in {} as JSON.", JSON),
    ("List every river that flows through {} as JSON.", '{"rivers": ["Ob", '),
    ("Describe the land of {} in two sentences.", SENTENCES),
    ("Tell me the story of {} in two sentences.", "There are none."),
    ("Decide whether it is true that {} has towns, and answer right or wrong.", LABEL),
)


class WritingEngine(ScriptedEngine):
    """Writes tasks whose answers can be checked, of which some answers fail."""

    def _answer(self, request: Request) -> Completion:
        self.answered += 1
        instruction, answer = TASKS[request.key.job % len(TASKS)]
        text = next(iter(request.sampling.choice), answer)
        if request.key.stage == "question":
            text = instruction.format(PLACES[request.key.job % len(PLACES)])
        return Completion(request.key, text, FinishReason.STOP, 5, 5, None, -0.3)


@pytest.mark.parametrize("prompt_format", FORMATS)
def test_the_checks_that_an_answer_passed_are_stored_with_the_task(tmp_path: Path, prompt_format: str) -> None:
    chosen = settings("en", prompt_format, "bare", num=3, window=1, patience=9)
    assert generate(tmp_path, chosen, WritingEngine()).reason == "done"
    with RunStore(tmp_path, read_only=True) as store:
        accepted, rejected = list(store.accepted()), store.totals().rejected
    assert rejected == {"failed_check": 2}
    assert {task.output: task.measures for task in accepted} == {
        JSON: {"confidence": -0.3, "output_confidence": -0.3, "check.json": 1.0},
        SENTENCES: {"confidence": -0.3, "output_confidence": -0.3, "check.length": 1.0},
        LABEL: {"confidence": -0.3, "check.labels": 1.0},
    }
    assert [task.is_classification for task in accepted] == [False, False, True]
