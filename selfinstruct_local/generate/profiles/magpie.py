"""Profile `magpie`: the model writes a user turn, then answers it.

Based on Magpie (Xu et al. 2024): given the beginning of a user turn, a chat model continues with a plausible user
request, because its training data contains such turns. Without an opening, a small model repeats a few requests.
Therefore most turns get an opening: common first words of questions, or the first words of a pool task or seed, so that
accepted tasks lead to new ones. Each request is answered greedily in a separate conversation, in one paragraph or at
full length. Only for chat models.
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

# Fraction of turns with an opening; fraction of those with the first words of a task; fraction of the latter from the
# pool: accepted tasks lead to better tasks than seeds that are too hard for the model. The other openings come from the
# template and lead to requests for advice, plans and reasons, because a small model makes up half of all facts.
BEGUN = 0.95
AS_A_TASK = 0.25
FROM_POOL = 0.9
QUESTION_SHARE = 7  # token limit of answers divided by that of questions


class MagpieProfile:
    """Profile in which the model writes user turns and answers them."""

    name = "magpie"
    summary = (
        "the model writes user turns, with openings of questions, pool tasks and seeds, then answers (chat models)"
    )
    defects_kept: tuple[str, ...] = ()
    demonstrations = 1
    shows_whole_tasks = False
    machine_made = 1
    # Chat needs the template of user turns, which the API of servers cannot request.
    needs_model_files: frozenset[PromptFormat] = frozenset({"chat"})
    unused = frozenset({"structured", "instances_per_task", "subject"})

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
        # A question is a task that still lacks its output, so this rule does not apply yet.
        self._question_rules = tuple(rule for rule in rules if rule.name != EMPTY_OUTPUT)
        self._turns_per_job = settings.tasks_per_prompt
        self._question_sampling = Sampling(
            temperature=settings.temperature,
            top_p=settings.top_p,
            # User turns are shorter than answers; a longer one is usually incoherent.
            max_tokens=max(1, settings.max_tokens // QUESTION_SHARE),
        )

    def steps(self, job: Job) -> Steps:
        """Yield the requests for user turns, then for answers to those that pass the rules."""
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
        """Return the beginning of a user turn; "" leaves it to the model."""
        stream = job.random("opening", branch)
        kind = self._steering.kind(job)
        if kind != ANY:
            # Only seeds: whether a generated task is classification is unknown in this profile.
            of_kind = [seed for seed in job.seeds if kind.fits(seed)]
            return self._first_words(job, stream, of_kind or job.seeds)
        if stream.random() >= BEGUN:
            return ""
        if stream.random() >= AS_A_TASK:
            return stream.choice(self._openings)
        return self._first_words(job, stream, job.generated if stream.random() < FROM_POOL else job.seeds)

    def _first_words(self, job: Job, stream: Random, tasks: Sequence[Task]) -> str:
        """Return the first words of one of the tasks and record it as shown; "" if there are no tasks."""
        if not tasks:
            return ""
        (task,) = self._steering.draw(stream, tasks, 1)
        job.shown.append(task)
        return first_words(task, self._lang)
