"""LLM-as-a-judge for any profile: the model scores each task before it is decided.

There is one request per criterion, constrained to the five digits. The scores are stored in the task's measures as
`judge.CRITERION`, and the rule `judged_low` rejects tasks with low scores. Based on Zheng et al. 2023 (single-answer
grading).
"""

from selfinstruct_local.engines.base import Completion, Request, Sampling
from selfinstruct_local.filters.rules import apply_rules
from selfinstruct_local.filters.rulesets import rule_set
from selfinstruct_local.generate.job import Job, ParsedTask, Profile, Steps
from selfinstruct_local.generate.settings import DecidingSettings
from selfinstruct_local.generate.wording import WORDINGS
from selfinstruct_local.languages.base import Language
from selfinstruct_local.task import Task
from selfinstruct_local.templates.turns import Turn

CRITERIA: dict[Language, dict[str, str]] = {
    "en": {
        "clear": "How clear is the instruction, and is everything there that is needed to follow it?",
        "correct": "How correct is the output?",
        "complete": "How well does the output do what the instruction asks, all of it and nothing else?",
    },
    "zh": {
        "clear": "指令是否清楚，完成它所需的内容是否齐全？",  # noqa: RUF001 - Chinese marks are meant
        "correct": "输出是否正确？",  # noqa: RUF001
        "complete": "输出是否恰好完成了指令的全部要求？",  # noqa: RUF001
    },
}
POINTS = ("1", "2", "3", "4", "5")


class JudgedProfile:
    """A profile whose tasks are scored by the model that wrote them."""

    def __init__(self, inner: Profile, settings: DecidingSettings) -> None:
        """Wrap the profile that generates the tasks."""
        self._inner = inner
        self._words = WORDINGS[settings.lang]
        self._criteria = CRITERIA[settings.lang]
        self._chat = settings.prompt_format == "chat"
        name = f"judge{self._words.suffix}"
        self._template = settings.prompts.load(name)
        self._rules = rule_set(settings.rules, settings.lang, settings.thresholds())
        # In the completion format the score follows a colon and, in English, a space.
        space = " " if settings.lang == "en" and not self._chat else ""
        self._sampling = Sampling(
            temperature=0.0, top_p=1.0, max_tokens=4, choice=tuple(f"{space}{points}" for points in POINTS)
        )
        self.name = inner.name
        self.demonstrations = inner.demonstrations
        self.shows_whole_tasks = inner.shows_whole_tasks
        self.prompts = (*inner.prompts, name)

    def steps(self, job: Job) -> Steps:
        """Yield the requests of the profile, then those to the judge for the tasks that pass the rules."""
        drafts = yield from self._inner.steps(job)
        good = [
            branch
            for branch, draft in enumerate(drafts)
            if not draft.rule and draft.task.instances and apply_rules(self._rules, draft.task).keep
        ]
        if not good:
            return drafts
        answers = iter((yield [request for branch in good for request in self._ask(job, branch, drafts[branch].task)]))
        for branch in good:
            points = {f"judge.{name}": read_points(next(answers)) for name in self._criteria}
            drafts[branch] = _with_points(drafts[branch], points)
        return drafts

    def _ask(self, job: Job, branch: int, task: Task) -> list[Request]:
        requests = []
        for number, question in enumerate(self._criteria.values()):
            prompt = self._template.substitute(
                instruction=task.instruction,
                input=task.input or self._words.none,
                output=task.output,
                question=question,
            )
            turns = (Turn("user", prompt),) if self._chat else ()
            place = branch * len(self._criteria) + number
            requests.append(job.request("judge", place, "" if self._chat else prompt, self._sampling, turns))
        return requests


def read_points(completion: Completion) -> float | None:
    """Return the score from 1 to 5, or None if the completion is not such a digit."""
    text = completion.text.strip()
    return float(text) if text in POINTS else None


def _with_points(draft: ParsedTask, points: dict[str, float | None]) -> ParsedTask:
    told = {name: value for name, value in points.items() if value is not None}
    return draft._replace(task=draft.task._replace(measures={**(draft.task.measures or {}), **told}))
