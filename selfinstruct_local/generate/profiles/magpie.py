"""Profile `magpie`: the model writes the user's turn of a conversation, then answers it.

After Magpie (Xu et al. 2024): a chat model that is handed the beginning of a user's turn goes on with something that a
user may ask, since its training held such turns. Half of the turns are left to it; the others begin as a seed or a task
of the pool begins, which spreads what is asked and lets what was accepted lead to more. Each turn is answered greedily
in a conversation of its own, in a sentence or two or in full. For chat models only.
"""

from collections.abc import Sequence
from dataclasses import replace
from random import Random

from selfinstruct_local.config import DecidingSettings
from selfinstruct_local.engine.base import Completion, Request, Sampling, Turn
from selfinstruct_local.filter.rules import EMPTY_OUTPUT
from selfinstruct_local.filter.rulesets import rule_set
from selfinstruct_local.filter.unfinished import announces
from selfinstruct_local.generate.job import Draft, Job, Steps, screen
from selfinstruct_local.generate.parsing.tasks import MALFORMED, UNFINISHED, clean_instruction, cut_short, presentable
from selfinstruct_local.generate.profiles.steering import Steering
from selfinstruct_local.generate.wording import WORDINGS
from selfinstruct_local.prompts import load_prompt
from selfinstruct_local.tasks import Instance, Task

# Words of a task that a turn begins with: one leaves a small model astray, more would make it copy the rest.
OPENING_WORDS = 2
OPENING_CHARACTERS = 4  # the same for Chinese, which has no spaces
# Share of the turns that are begun for the model, and of these the share that begin as a task of the pool does: what
# was accepted once begins better tasks than a seed that is beyond the model.
BEGUN = 0.4
FROM_POOL = 0.9


class MagpieProfile:
    """See the module."""

    name = "magpie"
    summary = "the model plays the user, then answers; turns begin as seeds and pool tasks do (chat models)"
    defects_kept: tuple[str, ...] = ()
    demonstrations = 1
    shows_whole_tasks = False
    machine_made = 1

    def __init__(self, settings: DecidingSettings) -> None:
        words = WORDINGS[settings.lang]
        answer = "magpie_short_answer" if settings.answers == "short" else "magpie_answer"
        self.prompts = (f"magpie_user{words.suffix}", f"{answer}{words.suffix}")
        user, assistant = (load_prompt(name).substitute() for name in self.prompts)
        self._user = user
        self._words = words
        self._steering = Steering(settings)
        self._before_answer = Turn("system", assistant)
        self._lang = settings.lang
        rules = rule_set(settings.rules, settings.lang, settings.limits())
        # A question stands as a task without an output, and nothing else holds that against it.
        self._question_rules = tuple(rule for rule in rules if rule.name != EMPTY_OUTPUT)
        self._turns_per_job = settings.tasks_per_prompt
        self._question_sampling = Sampling(
            temperature=settings.temperature,
            top_p=settings.top_p,
            # A user writes less than is answered; a longer turn is mostly a text that goes astray.
            max_tokens=max(1, settings.max_tokens // 2),
        )
        self._answer_sampling = Sampling(
            temperature=0.0,
            top_p=1.0,
            max_tokens=settings.max_tokens,
            stop=("\n\n",) if settings.answers == "short" else (),
        )

    def steps(self, job: Job) -> Steps:
        """The users' turns, the answers to those that the rules let pass, and the rest of what was only announced."""
        openings = [self._opening(job, branch) for branch in range(self._turns_per_job)]
        topic = self._steering.topic(job)
        before = (Turn("system", f"{self._user}\n{self._words.about}{topic}" if topic else self._user),)
        questions = yield [
            job.request("question", branch, opening, self._question_sampling, before, "user")
            for branch, opening in enumerate(openings)
        ]
        read = [
            screen(self._question_rules, read_question(opening, each))
            for opening, each in zip(openings, questions, strict=True)
        ]
        drafts = job.screen_copies(read)
        good = [branch for branch, draft in enumerate(drafts) if not draft.rule]
        if not good:
            return drafts
        answers = yield [self._ask(job, branch, drafts[branch].task) for branch in good]
        told = dict(zip(good, answers, strict=True))
        if announcing := [branch for branch in good if _announces(told[branch])]:
            more = yield [self._ask(job, branch, drafts[branch].task, told[branch].text) for branch in announcing]
            for branch, rest in zip(announcing, more, strict=True):
                told[branch] = _joined(told[branch], rest)
        for branch, answer in told.items():
            drafts[branch] = _with_answer(drafts[branch], answer)
        return drafts

    def _opening(self, job: Job, branch: int) -> str:
        """What the turn begins with; empty where the model begins it."""
        stream = job.random("opening", branch)
        tasks = self._begin_like(job, stream)
        if not tasks:
            return ""
        (task,) = self._steering.draw(stream, tasks, 1)
        job.shown.append(task)
        if self._lang == "zh":
            return task.instruction[:OPENING_CHARACTERS]
        return " ".join(task.instruction.split()[:OPENING_WORDS])

    def _begin_like(self, job: Job, stream: Random) -> Sequence[Task]:
        """The tasks of which one lends its first words; empty where the model is to begin."""
        wants = self._steering.wants_classification(job)
        if wants is not None:
            # Of what kind a machine-made task is, only the model has said.
            return [seed for seed in job.seeds if bool(seed.is_classification) == wants] or job.seeds
        if stream.random() >= BEGUN:
            return ()
        return job.generated if job.generated and stream.random() < FROM_POOL else job.seeds

    def _ask(self, job: Job, branch: int, task: Task, begun: str = "") -> Request:
        """A request for the answer, or for more of one that a short answer's stop cut off after "as follows:"."""
        asked = f"{task.instruction}\n\n{task.input}" if task.input else task.instruction
        turns = (self._before_answer, Turn("user", asked))
        if not begun:
            return job.request("answer", branch, "", self._answer_sampling, turns)
        return job.request("continuation", branch, f"{begun.strip()}\n\n", self._answer_sampling, turns)


def read_question(opening: str, completion: Completion) -> Draft:
    """The task that a user's turn asks for: its first line or paragraph, and what follows as the input."""
    if cut_short(completion):
        return Draft(Task(opening), UNFINISHED, f"the user's turn was cut short ({completion.finish_reason.value})")
    head, _, rest = (opening + completion.text).strip().partition("\n")
    instruction = clean_instruction(head)
    if not instruction:
        return Draft(Task(""), MALFORMED, "the user's turn is empty")
    measures = None if completion.confidence is None else {"confidence": completion.confidence}
    return presentable(Draft(Task(instruction, (Instance(rest.strip(), ""),), measures=measures)))


def _announces(answer: Completion) -> bool:
    """Whether a paragraph ended where what it announces was to begin."""
    return not cut_short(answer) and announces(answer.text)


def _joined(answer: Completion, rest: Completion) -> Completion:
    text = f"{answer.text.strip()}\n\n{rest.text.strip()}" if rest.text.strip() else answer.text
    sure = [each.confidence for each in (answer, rest) if each.confidence is not None]
    return replace(rest, text=text, confidence=min(sure, default=None))


def _with_answer(draft: Draft, completion: Completion) -> Draft:
    if cut_short(completion):
        return draft._replace(rule=UNFINISHED, detail=f"the answer was cut short ({completion.finish_reason.value})")
    task = draft.task
    measures = dict(task.measures or {})
    if completion.confidence is not None:
        measures["output_confidence"] = completion.confidence
    instances = (Instance(task.input, completion.text.strip()),)
    return presentable(Draft(task._replace(instances=instances, measures=measures or None)))
