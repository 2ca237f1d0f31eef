"""Profile `magpie`: the model writes the user's turn of a conversation, then answers it.

After Magpie (Xu et al. 2024): a chat model that is handed the beginning of a user's turn goes on with something that a
user may ask, since its training held such turns. Left alone, a small model asks the same few things; so most turns are
begun for it: with the first words of many a question, or as a task of the pool or a seed begins, which lets what was
accepted lead to more. Each is answered greedily, in a conversation of its own, in one paragraph or in full. For chat
models only.
"""

from collections.abc import Sequence
from random import Random

from selfinstruct_local.engines.base import Sampling
from selfinstruct_local.filters.rules import EMPTY_OUTPUT
from selfinstruct_local.filters.rulesets import rule_set
from selfinstruct_local.generate.job import Job, Steps, passed, screen
from selfinstruct_local.generate.parsing.questions import read_question
from selfinstruct_local.generate.profiles.answers import Answers, answer_prompt, collect
from selfinstruct_local.generate.profiles.steering import ANY, Steering, first_words
from selfinstruct_local.generate.settings import DecidingSettings, PromptFormat
from selfinstruct_local.generate.wording import WORDINGS
from selfinstruct_local.task import Task
from selfinstruct_local.templates.turns import Turn

# Share of the turns that are begun; of these the share that begin as a task does, and of those as one of the pool: what
# was accepted once begins better tasks than a seed that is beyond the model. The rest have an opening of the template,
# which leads to advice, plans and reasons: of facts, a small model invents half.
BEGUN = 0.95
AS_A_TASK = 0.25
FROM_POOL = 0.9
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
    # The template of a user's turn, which servers cannot be asked for.
    needs_model_files: frozenset[PromptFormat] = frozenset({"chat"})
    unused = frozenset({"structured", "instances_per_task"})

    def __init__(self, settings: DecidingSettings) -> None:
        words = WORDINGS[settings.lang]
        own = (f"{name}{words.suffix}" for name in ("magpie_user", "magpie_openings"))
        self.prompts = (*own, answer_prompt(settings))
        user, openings = (settings.prompts.load(name).substitute() for name in self.prompts[:2])
        self._user = user
        self._openings = openings.splitlines()
        self._words = words
        self._steering = Steering(settings)
        self._answers = Answers(settings)
        self._lang = settings.lang
        rules = rule_set(settings.rules, settings.lang, settings.thresholds())
        # A question stands as a task without an output, and nothing else holds that against it.
        self._question_rules = tuple(rule for rule in rules if rule.name != EMPTY_OUTPUT)
        self._turns_per_job = settings.tasks_per_prompt
        self._question_sampling = Sampling(
            temperature=settings.temperature,
            top_p=settings.top_p,
            # A user writes less than is answered; a longer turn is mostly a text that goes astray.
            max_tokens=max(1, settings.max_tokens // QUESTION_SHARE),
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
            self._answers.fit(screen(self._question_rules, read_question(each, opening)))
            for opening, each in zip(openings, questions, strict=True)
        ]
        drafts = job.screen_copies(read)
        if not (good := passed(drafts)):
            return drafts
        asked = [self._answers.ask(job, branch, drafts[branch].task) for branch in good]
        answers = yield from collect(asked)
        for branch, completions in zip(good, answers, strict=True):
            drafts[branch] = self._answers.read(drafts[branch], completions)
        return drafts

    def _opening(self, job: Job, branch: int) -> str:
        """What the turn begins with; empty where the model begins it."""
        stream = job.random("opening", branch)
        kind = self._steering.kind(job)
        if kind != ANY:
            # Whether a machine-made task is classification, nobody has said.
            of_kind = [seed for seed in job.seeds if kind.fits(seed)]
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
        return first_words(task, self._lang)
