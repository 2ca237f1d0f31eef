"""The answer to a task, in a conversation of its own; for profiles that ask for an instruction and its output apart."""

from collections import Counter
from collections.abc import Generator, Sequence
from dataclasses import replace

from selfinstruct_local.config import DecidingSettings
from selfinstruct_local.engine.base import Completion, Request, Sampling, Turn
from selfinstruct_local.filter.labels import label_of
from selfinstruct_local.generate.job import Draft, Job
from selfinstruct_local.generate.parsing.tasks import UNFINISHED, cut_short, presentable
from selfinstruct_local.generate.profiles.paragraph import PARAGRAPH, has_items, needs_lines
from selfinstruct_local.generate.wording import WORDINGS
from selfinstruct_local.tasks import Instance, Task, as_question

NEEDS_LINES = "needs_lines"
INCONSISTENT_LABEL = "inconsistent_label"
# Stage of the request whose labels are in reverse order.
REVERSED = "reversed"
# Of answers in one paragraph, in English: without it a small model that answers greedily says the same again until it
# is cut off. Of 36 questions, a reader who did not know which answer was which threw away 22 answers without it and 11
# with it. Chinese is left alone, since small vocabularies write one of its characters in several tokens.
PRESENCE_PENALTY = 1.0
# Temperature of the answers after the first, which is greedy.
OTHERS_TEMPERATURE = 0.7


def answer_prompt(settings: DecidingSettings) -> str:
    """Return the name of the template of the system turn before a task."""
    name = "short_answer" if settings.answers == "short" else "answer"
    return f"{name}{WORDINGS[settings.lang].suffix}"


class Answers:
    """Asks for answers and reads them.

    With `answers_per_task` over 1 the first is greedy and the others are sampled. Of labels and numbers the commonest
    is taken (self-consistency, Wang et al. 2023), of other texts the one with the highest mean log-probability. A task
    that names labels is asked once more, with its labels in reverse order: models tend to choose by place (Zheng et al.
    2024), and where the label changes with the order the task is rejected.
    """

    def __init__(self, settings: DecidingSettings, *, chat: bool = True) -> None:
        """Takes whether answers are asked for in a conversation."""
        self._in_one_paragraph = settings.answers == "short"
        self._count = settings.answers_per_task
        self._words = WORDINGS[settings.lang]
        self._before: tuple[Turn, ...] = ()
        if chat:
            self._before = (Turn("system", settings.prompts.load(answer_prompt(settings)).substitute()),)
        self._sampling = Sampling(
            temperature=0.0,
            top_p=1.0,
            max_tokens=settings.max_tokens,
            presence_penalty=PRESENCE_PENALTY if self._in_one_paragraph and settings.lang == "en" else 0.0,
            regex=PARAGRAPH if self._in_one_paragraph else "",
        )

    def ask(self, job: Job, branch: int, task: Task, labels: Sequence[str] = ()) -> list[Request]:
        """Return the requests for the answers to a task.

        Args:
            job: that asks.
            branch: number of the task in the job.
            task: with its instruction and input.
            labels: the answer is held to one of them; none leaves it free.
        """
        turns = [
            (*self._before, Turn("user", as_question(each.instruction, each.input)))
            for each in self.wordings(task, labels)
        ]
        return self.ask_with(job, branch, [("", each) for each in turns], labels)

    def wordings(self, task: Task, labels: Sequence[str]) -> list[Task]:
        """Return the task in the words of each request; of one with labels, the last names them in reverse order."""
        if not labels:
            return [task] * self._count
        last = f"{self._words.choose}{self._words.comma.join(reversed(labels))}"
        return [*[task] * self._count, task._replace(instruction=f"{task.instruction} {last}")]

    def ask_with(
        self,
        job: Job,
        branch: int,
        prompts: Sequence[tuple[str, tuple[Turn, ...]]],
        labels: Sequence[str],
        stop: tuple[str, ...] = (),
    ) -> list[Request]:
        """Return the requests of `ask` with the prompt and the turns of each wording."""
        greedy = replace(self._sampling, stop=stop)
        if labels:
            space = "" if self._before else " "
            choice = tuple(f"{space}{label}" for label in labels)
            greedy = replace(greedy, choice=choice, regex="", presence_penalty=0.0)
        sampled = replace(greedy, temperature=OTHERS_TEMPERATURE)
        requests = [
            job.request("answer", branch * self._count + number, prompt, sampled if number else greedy, turns)
            for number, (prompt, turns) in enumerate(prompts[: self._count])
        ]
        return requests + [
            job.request(REVERSED, branch, prompt, greedy, turns) for prompt, turns in prompts[self._count :]
        ]

    def read(self, draft: Draft, completions: Sequence[Completion], labels: Sequence[str] = ()) -> Draft:
        """Return the draft with the answer that was chosen, or rejected if there is none."""
        task = draft.task
        if labels:
            *completions, last = completions
            first, second = (label_of(each.text, labels) for each in (completions[0], last))
            if first != second:
                detail = f"{first or 'no label'}, and with the labels in reverse order {second or 'no label'}"
                return draft._replace(rule=INCONSISTENT_LABEL, detail=detail)
        whole = [each for each in completions if not cut_short(each)]
        if not whole:
            reason = completions[0].finish_reason.value
            return draft._replace(rule=UNFINISHED, detail=f"the answer was cut short ({reason})")
        answer, agreement = choose(whole, labels)
        measures = dict(task.measures or {})
        if answer.confidence is not None and not labels:  # a label had to be one of these few
            measures["output_confidence"] = answer.confidence
        if agreement is not None and self._count > 1:
            measures["agreement"] = agreement
        instances = (Instance(task.input, answer.text.strip()),)
        return self.fit(presentable(Draft(task._replace(instances=instances, measures=measures or None))))

    def fit(self, draft: Draft) -> Draft:
        """Return the draft, rejected if its answer has to be one paragraph and cannot be, or is none."""
        if not self._in_one_paragraph or draft.rule:
            return draft
        if word := needs_lines(draft.task.instruction):
            return draft._replace(rule=NEEDS_LINES, detail=f"one paragraph does not hold what is asked for: '{word}'")
        if any(has_items(each.output) for each in draft.task.instances):
            return draft._replace(rule=NEEDS_LINES, detail="the answer is a numbered list, pressed into one paragraph")
        return draft


def collect(asked: Sequence[Sequence[Request]]) -> Generator[list[Request], list[Completion], list[list[Completion]]]:
    """Yield the requests of all tasks at once; return the completions of each task."""
    completions = iter((yield [request for requests in asked for request in requests]))
    return [[next(completions) for _ in requests] for requests in asked]


def choose(completions: Sequence[Completion], labels: Sequence[str]) -> tuple[Completion, float | None]:
    """Return the answer to take and the share of the answers that agree with it; None where texts do not compare.

    Args:
        completions: whole answers, at least one.
        labels: that the task names.
    """
    values = [label_of(each.text, labels) if labels else _number(each.text) for each in completions]
    known = Counter(value for value in values if value is not None)
    if not known:
        return max(completions, key=lambda each: each.confidence if each.confidence is not None else 0.0), None
    value, count = known.most_common(1)[0]  # of equally common ones the first
    return completions[values.index(value)], count / len(completions)


def _number(text: str) -> str | None:
    """Return an answer that is a number and nothing else, in one spelling."""
    bare = text.strip().rstrip(".").replace(",", "")
    try:
        return repr(float(bare))
    except ValueError:
        return None
