"""Profile `magpie`: the model writes the user's turn of a conversation, then answers it.

After Magpie (Xu et al. 2024): a chat model that is handed the beginning of a user's turn goes on with something that a
user may ask, since its training held such turns. Left alone, a small model asks the same few things; so most turns are
begun for it: with the first words of many a question, or as a task of the pool or a seed begins, which lets what was
accepted lead to more. Each is answered greedily, in a conversation of its own, in one paragraph or in full. For chat
models only.
"""

from collections.abc import Sequence
from random import Random

from selfinstruct_local.config import DecidingSettings
from selfinstruct_local.engine.base import Completion, Request, Sampling, Turn
from selfinstruct_local.filter.rules import EMPTY_OUTPUT
from selfinstruct_local.filter.rulesets import rule_set
from selfinstruct_local.generate.job import Draft, Job, Steps, screen
from selfinstruct_local.generate.parsing.tasks import MALFORMED, UNFINISHED, clean_instruction, cut_short, presentable
from selfinstruct_local.generate.profiles.paragraph import PARAGRAPH, has_items, needs_lines
from selfinstruct_local.generate.profiles.steering import Steering
from selfinstruct_local.generate.wording import WORDINGS
from selfinstruct_local.tasks import Instance, Task, as_question

NEEDS_LINES = "needs_lines"

# Of a turn that is begun as a task begins, the words: one leaves a small model astray, more would copy the rest.
OPENING_WORDS = 2
OPENING_CHARACTERS = 4  # the same for Chinese, which has no spaces
# Share of the turns that are begun; of these the share that begin as a task does, and of those as one of the pool: what
# was accepted once begins better tasks than a seed that is beyond the model. The rest have an opening of the template,
# which leads to advice, plans and reasons: of facts, a small model invents half.
BEGUN = 0.95
AS_A_TASK = 0.25
FROM_POOL = 0.9
# Of answers in one paragraph, in English: without it a small model that answers greedily says the same again until it
# is cut off. Of 36 questions, a reader who did not know which answer was which threw away 22 answers without it and 11
# with it. Chinese is left alone, since small vocabularies write one of its characters in several tokens.
PRESENCE_PENALTY = 1.0
QUESTION_SHARE = 7  # of the tokens of an answer, a question may have one in so many


class MagpieProfile:
    """See the module."""

    name = "magpie"
    summary = (
        "the model plays the user, then answers; turns begin as many questions, pool tasks and seeds do (chat models)"
    )
    defects_kept: tuple[str, ...] = ()
    demonstrations = 1
    shows_whole_tasks = False
    machine_made = 1
    needs_model_files = True  # the template of a user's turn, which servers cannot be asked for
    unused = frozenset({"structured", "instances_per_task"})

    def __init__(self, settings: DecidingSettings) -> None:
        words = WORDINGS[settings.lang]
        self._in_one_paragraph = settings.answers == "short"
        answer = "magpie_short_answer" if self._in_one_paragraph else "magpie_answer"
        self.prompts = tuple(f"{name}{words.suffix}" for name in ("magpie_user", "magpie_openings", answer))
        user, openings, assistant = (settings.prompts.load(name).substitute() for name in self.prompts)
        self._user = user
        self._openings = openings.splitlines()
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
            max_tokens=max(1, settings.max_tokens // QUESTION_SHARE),
        )
        self._answer_sampling = Sampling(
            temperature=0.0,
            top_p=1.0,
            max_tokens=settings.max_tokens,
            presence_penalty=PRESENCE_PENALTY if self._in_one_paragraph and settings.lang == "en" else 0.0,
            regex=PARAGRAPH if self._in_one_paragraph else "",
        )

    def steps(self, job: Job) -> Steps:
        """The users' turns, and the answers to those that the rules let pass."""
        openings = [self._opening(job, branch) for branch in range(self._turns_per_job)]
        topic = self._steering.topic(job)
        before = (Turn("system", f"{self._user}\n{self._words.about}{topic}" if topic else self._user),)
        questions = yield [
            job.request("question", branch, opening, self._question_sampling, before, "user")
            for branch, opening in enumerate(openings)
        ]
        read = [
            self._fit(screen(self._question_rules, read_question(opening, each)))
            for opening, each in zip(openings, questions, strict=True)
        ]
        drafts = job.screen_copies(read)
        good = [branch for branch, draft in enumerate(drafts) if not draft.rule]
        if not good:
            return drafts
        answers = yield [self._ask(job, branch, drafts[branch].task) for branch in good]
        for branch, answer in zip(good, answers, strict=True):
            drafts[branch] = self._fit(_with_answer(drafts[branch], answer))
        return drafts

    def _opening(self, job: Job, branch: int) -> str:
        """What the turn begins with; empty where the model begins it."""
        stream = job.random("opening", branch)
        wants = self._steering.wants_classification(job)
        if wants is not None:
            # Of what kind a machine-made task is, only the model has said.
            of_kind = [seed for seed in job.seeds if bool(seed.is_classification) == wants]
            return self._first_words(job, stream, of_kind or job.seeds)
        if stream.random() >= BEGUN:
            return ""
        if stream.random() >= AS_A_TASK:
            return stream.choice(self._openings)
        return self._first_words(job, stream, job.generated if stream.random() < FROM_POOL else job.seeds)

    def _first_words(self, job: Job, stream: Random, tasks: Sequence[Task]) -> str:
        """Those of one of the tasks, which is shown thereby; empty where there are none."""
        if not tasks:
            return ""
        (task,) = self._steering.draw(stream, tasks, 1)
        job.shown.append(task)
        if self._lang == "zh":
            return task.instruction[:OPENING_CHARACTERS]
        return " ".join(task.instruction.split()[:OPENING_WORDS])

    def _fit(self, draft: Draft) -> Draft:
        """The draft, turned away if its answer has to be one paragraph and cannot, or is none."""
        if not self._in_one_paragraph or draft.rule:
            return draft
        if word := needs_lines(draft.task.instruction):
            return draft._replace(rule=NEEDS_LINES, detail=f"one paragraph does not hold what is asked for: '{word}'")
        if any(has_items(each.output) for each in draft.task.instances):
            return draft._replace(rule=NEEDS_LINES, detail="the answer is a numbered list, pressed into one paragraph")
        return draft

    def _ask(self, job: Job, branch: int, task: Task) -> Request:
        turns = (self._before_answer, Turn("user", as_question(task.instruction, task.input)))
        return job.request("answer", branch, "", self._answer_sampling, turns)


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


def _with_answer(draft: Draft, completion: Completion) -> Draft:
    if cut_short(completion):
        return draft._replace(rule=UNFINISHED, detail=f"the answer was cut short ({completion.finish_reason.value})")
    task = draft.task
    measures = dict(task.measures or {})
    if completion.confidence is not None:
        measures["output_confidence"] = completion.confidence
    instances = (Instance(task.input, completion.text.strip()),)
    return presentable(Draft(task._replace(instances=instances, measures=measures or None)))
